"""Places that jobs take in their turn, for engines whose work is done elsewhere.

The fair queue with tasks that wait in it. Must not know what a place is. Rule: engine/README.md,
"Queue".
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from engine.interface import JobSpec
from engine.queue import FairQueue
from protocol.errors import EngineError
from protocol.units import NS_PER_S, milliseconds


class Turns:
    """`places` jobs at once; `bound` others wait."""

    def __init__(self, places: int, bound: int) -> None:
        self._places = places
        self._taken = 0
        self._queue: FairQueue[trio.Event] = FairQueue(bound)

    @property
    def free(self) -> int:
        """How many more jobs would start at once."""
        return max(0, self._places - self._taken)

    @property
    def room(self) -> int:
        """How many more jobs, of different owners, would be taken to wait."""
        return self._queue.room()

    @asynccontextmanager
    async def turn(self, spec: JobSpec, cost_ns: int, ttft_ns: int) -> AsyncIterator[None]:
        """A job's place, for the length of the block.

        `cost_ns` is about what it takes of a place, `ttft_ns` the estimate of its first token.
        EngineError: `engine.overloaded`, `engine.too_late` at once or when its time has passed.
        """
        limit_ns = spec.ttft_ns_max
        if not self.free and not self._queue.has_room(spec.owner):
            raise EngineError("engine.overloaded", f"{len(self._queue)} jobs wait")
        if limit_ns and ttft_ns > limit_ns:
            over_ms = milliseconds(ttft_ns - limit_ns)
            raise EngineError("engine.too_late", f"by about {over_ms} ms")
        turn = trio.Event()
        ticket = self._queue.push(turn, spec.owner, spec.priority, cost_ns)
        self._give()
        try:
            with trio.CancelScope() as scope:
                scope.deadline = (
                    trio.current_time() + limit_ns / NS_PER_S if limit_ns else math.inf
                )
                await turn.wait()
            if not turn.is_set():
                raise EngineError("engine.too_late", "its time passed while it waited")
            yield
        finally:
            if not self._queue.remove(ticket):
                self._taken -= 1
                self._give()

    def _give(self) -> None:
        while self._queue and self.free:
            self._taken += 1
            self._queue.pop().job.set()
