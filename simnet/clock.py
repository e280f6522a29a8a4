"""The event heap: virtual time in integer ns, equal times in the order of scheduling."""

import heapq
from collections.abc import Callable


class EventHeap:
    """Callbacks at virtual times; the whole simulator's only source of time."""

    def __init__(self, start_ns: int) -> None:
        self.now_ns = start_ns
        self.events = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0

    def at(self, at_ns: int, callback: Callable[[], None]) -> None:
        """Run `callback` at `at_ns`, or now when that is past."""
        self._serial += 1
        heapq.heappush(self._heap, (max(at_ns, self.now_ns), self._serial, callback))

    def after(self, delay_ns: int, callback: Callable[[], None]) -> None:
        """Run `callback` in `delay_ns`."""
        self.at(self.now_ns + delay_ns, callback)

    def run(self, until_ns: int, events_max: int = 10_000_000) -> None:
        """Run what is due until `until_ns`; RuntimeError after `events_max` events."""
        while self._heap and self._heap[0][0] <= until_ns:
            self.now_ns, _, callback = heapq.heappop(self._heap)
            self.events += 1
            if self.events > events_max:
                raise RuntimeError(f"more than {events_max} events: a loop?")
            callback()
        self.now_ns = max(self.now_ns, until_ns)
