"""The event queue: virtual time in integer ns, equal times in the order of scheduling.

Events lie in slots of about a millisecond, and only the slot that is due is kept as a heap: most
events are pushed with an append, and popped from a heap of hundreds rather than of millions.
The order is that of one heap over (time, serial).
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Any, Final

SLOT_BITS: Final = 20  # 2^20 ns: 1.05 ms

Event = tuple[Any, ...]  # at_ns, serial, callback, its arguments


class EventHeap:
    """Callbacks at virtual times; the whole simulator's only source of time."""

    def __init__(self, start_ns: int) -> None:
        self.now_ns = start_ns
        self.events = 0
        self._serial = 0
        self._slot = start_ns >> SLOT_BITS
        self._due: list[Event] = []  # a heap: the events of `_slot`
        self._later: dict[int, list[Event]] = {}  # slot -> its events, in no order
        self._slots: list[int] = []  # a heap of the keys of `_later`

    def __len__(self) -> int:
        """Events that have not run."""
        return len(self._due) + sum(map(len, self._later.values()))

    def at(self, at_ns: int, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback(*arguments)` at `at_ns`, or now when that is past."""
        if at_ns < self.now_ns:
            at_ns = self.now_ns
        self._serial += 1
        slot = at_ns >> SLOT_BITS
        event = (at_ns, self._serial, callback, *arguments)
        if slot == self._slot:
            heapq.heappush(self._due, event)
            return
        later = self._later.get(slot)
        if later is None:
            self._later[slot] = [event]
            heapq.heappush(self._slots, slot)
        else:
            later.append(event)

    def at_each(
        self,
        times_ns: Sequence[int],
        callback: Callable[..., None],
        firsts: Sequence[Any],
        *rest: Any,
    ) -> None:
        """Call `callback(first, *rest)` for each of `firsts`, at its time of `times_ns`."""
        now_ns, serial, due, later = self.now_ns, self._serial, self._due, self._later
        now_slot = self._slot
        for at_ns, first in zip(times_ns, firsts, strict=True):
            if at_ns < now_ns:
                at_ns = now_ns
            serial += 1
            event = (at_ns, serial, callback, first, *rest)
            slot = at_ns >> SLOT_BITS
            bucket = due if slot == now_slot else later.get(slot)
            if bucket is due:
                heapq.heappush(due, event)
            elif bucket is None:
                later[slot] = [event]
                heapq.heappush(self._slots, slot)
            else:
                bucket.append(event)
        self._serial = serial

    def after(self, delay_ns: int, callback: Callable[..., None], *arguments: Any) -> None:
        """Call `callback(*arguments)` in `delay_ns`."""
        self.at(self.now_ns + delay_ns, callback, *arguments)

    def next_ns(self) -> int | None:
        """When the next event is due, for who drives the queue by another clock; None: never."""
        if self._due:
            # Only a slot that time has not come to yet can hold anything sooner.
            return int(self._due[0][0])
        return min(event[0] for event in self._later[self._slots[0]]) if self._slots else None

    def run(self, until_ns: int, events_max: int = 10_000_000) -> None:
        """Run what is due until `until_ns`; RuntimeError after `events_max` events in all."""
        if not self.run_some(until_ns, events_max - self.events):
            raise RuntimeError(f"more than {events_max} events: a loop?")

    def run_some(self, until_ns: int, events: int) -> bool:
        """Run at most `events` of what is due until `until_ns`; whether all of it has run."""
        pop = heapq.heappop
        left = events
        try:
            while True:
                due = self._due
                while due:
                    if due[0][0] > until_ns:
                        self.now_ns = max(self.now_ns, until_ns)
                        return True
                    if left <= 0:
                        return False
                    left -= 1
                    event = pop(due)
                    self.now_ns = event[0]
                    event[2](*event[3:])
                if not self._slots or self._slots[0] << SLOT_BITS > until_ns:
                    self.now_ns = max(self.now_ns, until_ns)
                    return True
                self._slot = pop(self._slots)
                self._due = self._later.pop(self._slot)
                heapq.heapify(self._due)
        finally:
            self.events += events - left
