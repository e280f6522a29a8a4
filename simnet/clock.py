"""The event queue: virtual time in integer ns, equal times in the order of scheduling.

Events lie in slots of about a millisecond. Those of a slot are sorted when it is due, and what
is scheduled into the slot meanwhile finds its place among them: most events cost an append, a
share of a sort and a step of a loop. The order is that of one heap over (time, serial).
"""

import heapq
from bisect import insort
from collections.abc import Callable, Sequence
from itertools import islice
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
        self._due: list[Event] = []  # the events of `_slot`, sorted
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
            insort(self._due, event)
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
        second: Any,
    ) -> None:
        """Call `callback(first, second)` for each of `firsts`, at its time of `times_ns`."""
        now_ns, serial, due, later = self.now_ns, self._serial, self._due, self._later
        now_slot = self._slot
        for at_ns, first in zip(times_ns, firsts, strict=True):
            if at_ns < now_ns:
                at_ns = now_ns
            serial += 1
            event = (at_ns, serial, callback, first, second)
            slot = at_ns >> SLOT_BITS
            bucket = due if slot == now_slot else later.get(slot)
            if bucket is due:
                insort(due, event)
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
        left = events
        while True:
            left -= self._run_due(until_ns, left)
            if self._due:
                if self._due[0][0] <= until_ns:
                    return False
                break
            if not self._slots or self._slots[0] << SLOT_BITS > until_ns:
                break
            self._slot = heapq.heappop(self._slots)
            self._due = self._later.pop(self._slot)
            self._due.sort()
        self.now_ns = max(self.now_ns, until_ns)
        return True

    def _run_due(self, until_ns: int, events: int) -> int:
        """Run at most `events` of the slot that is due, until `until_ns`; how many have run."""
        due, ran = self._due, 0
        try:
            # What these events schedule into their own slot finds its place behind them.
            for ran, event in enumerate(islice(due, max(0, events)), 1):
                at_ns = event[0]
                if at_ns > until_ns:
                    ran -= 1
                    break
                self.now_ns = at_ns
                if len(event) == 5:  # most have two arguments, and a plain call is faster
                    event[2](event[3], event[4])
                else:
                    event[2](*event[3:])
        finally:
            del due[:ran]
            self.events += ran
        return ran
