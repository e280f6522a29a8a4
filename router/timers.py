"""Named timers on a heap: sans-IO, the driver asks when the next one is due."""

import heapq
from typing import NamedTuple

from protocol import limits
from protocol.errors import RemoteError


class TimerKey(NamedTuple):
    """What a timer is for: its kind and the thing's id."""

    kind: str
    subject: bytes
    lane: int = 0


class Timers:
    """At most one deadline a key; setting again replaces it."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TimerKey]] = []
        self._live: dict[TimerKey, int] = {}  # key -> serial of its newest entry
        self._serial = 0

    def set(self, key: TimerKey, at_ns: int) -> None:
        """Fire `key` at `at_ns`. RemoteError `admission.full` at TIMERS_MAX."""
        if key not in self._live and len(self._live) >= limits.TIMERS_MAX:
            raise RemoteError("admission.full", "timers", penalize=False)
        self._serial += 1
        self._live[key] = self._serial
        heapq.heappush(self._heap, (at_ns, self._serial, key))
        if len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def cancel(self, key: TimerKey) -> None:
        """Forget `key`; nothing happens when it isn't set."""
        self._live.pop(key, None)

    def next_at_ns(self) -> int | None:
        """When the earliest timer is due, or None."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ns: int) -> TimerKey | None:
        """The next timer that is due at `now_ns`, removed; None when there is none."""
        at_ns = self.next_at_ns()
        if at_ns is None or at_ns > now_ns:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._live[key]
        return key
