"""trio on virtual time, each time the same: what is due together runs in the order of its setting.

trio runs tasks that are due together in their order or, by chance, the other way round, and takes
equal deadlines by where in memory they lie, lest programs rely on one. Here an equal seed has to
give an equal run.
"""

import heapq
from collections.abc import Callable
from typing import Any, Final

import trio
import trio._core._run as trio_scheduling
import trio.testing

from protocol.units import NS_PER_S

STALE_MAX: Final = 1_000


class _InOrder:
    """Instead of trio's chance: always turn the batch, so that tasks run in the order of time."""

    def random(self) -> float:
        """Under a half."""
        return 0.0


class DeadlinesInOrder:
    """Instead of trio's: by the ns, and those of one ns in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, float, Any]] = []
        self._serial = 0
        self._active = 0  # not of the heap, in which those that were changed stay for a while

    def add(self, deadline: float, scope: Any) -> None:
        """A scope has this deadline now."""
        self._serial += 1
        self._active += 1
        heapq.heappush(self._heap, (round(deadline * NS_PER_S), self._serial, deadline, scope))

    def remove(self, deadline: float, scope: Any) -> None:
        """It has another one, or none."""
        self._active -= 1
        if len(self._heap) > 2 * self._active + STALE_MAX:
            last = {id(entry[3]): entry for entry in sorted(self._heap) if _holds(entry)}
            self._heap = sorted(last.values())

    def next_deadline(self) -> float:
        """The earliest."""
        while self._heap:
            if _holds(self._heap[0]):
                return self._heap[0][2]
            heapq.heappop(self._heap)
        return float("inf")

    def expire(self, now: float) -> bool:
        """Cancel what is due; whether anything was."""
        now_ns, found = round(now * NS_PER_S), False
        while self._heap and self._heap[0][0] <= now_ns:
            entry = heapq.heappop(self._heap)
            if _holds(entry):
                found = True
                entry[3].cancel()
        return found


def _holds(entry: tuple[int, int, float, Any]) -> bool:
    return bool(entry[2] == entry[3]._registered_deadline)


async def _begin(main: Callable[..., Any], *arguments: Any) -> None:
    context: Any = trio_scheduling.GLOBAL_RUN_CONTEXT
    context.runner.deadlines = DeadlinesInOrder()
    await main(*arguments)


def run_in_order(main: Callable[..., Any], *arguments: Any) -> None:
    """`trio.run` on virtual time; the last argument moves the clock."""
    scheduling: Any = trio_scheduling
    before = scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r
    scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r = False, _InOrder()
    try:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(_begin, main, *arguments, clock.jump, clock=clock)
    finally:
        scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r = before
