"""The event queue, driven by trio's clock: models and daemons see the same time.

On trio's MockClock time moves on when every task has come to rest, so that whatever an event
sets off happens at the event's time.
"""

from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from protocol.units import NS_PER_S
from simnet.clock import EventHeap

_ALL = 1 << 62


class TaskClock(EventHeap):
    """`now_ns` is trio's time since `begin`; before it and after `end` it stands still."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = self._still_ns = start_ns
        self._zero_s: float | None = None
        self._scope: trio.CancelScope | None = None
        self._waits_for_ns = 0
        super().__init__(start_ns)

    @property
    def now_ns(self) -> int:
        """Now, in ns."""
        if self._zero_s is None:
            return self._still_ns
        return self._start_ns + round((trio.current_time() - self._zero_s) * NS_PER_S)

    @now_ns.setter
    def now_ns(self, at_ns: int) -> None:
        """Time is trio's: nobody sets it."""

    def begin(self) -> None:
        """Time runs."""
        self._zero_s = trio.current_time()

    def end(self, at_ns: int) -> None:
        """Time stands still, at a moment that has been."""
        self._still_ns, self._zero_s = at_ns, None

    def run_due(self) -> None:
        """Run the events of this moment, for who comes after them."""
        self.run_some(self.now_ns, _ALL)

    def seconds(self, at_ns: int) -> float:
        """A moment by trio's clock."""
        assert self._zero_s is not None, "the clock does not run"
        return self._zero_s + (at_ns - self._start_ns) / NS_PER_S

    def at(self, at_ns: int, callback: Any, *arguments: Any) -> None:
        """As in `EventHeap`; whoever waits for a later event wakes up."""
        super().at(at_ns, callback, *arguments)
        self._wake(at_ns)

    def at_each(self, times_ns: Any, callback: Any, firsts: Any, second: Any) -> None:
        """As in `EventHeap`."""
        super().at_each(times_ns, callback, firsts, second)
        if times_ns:
            self._wake(min(times_ns))

    def _wake(self, at_ns: int) -> None:
        if self._scope is not None and at_ns < self._waits_for_ns:
            self._scope.cancel()

    async def keep_running(self, jump: Callable[[float], None] | None = None) -> None:
        """Run events when they are due, for ever; `jump` moves a clock that is not real."""
        while True:
            at_ns = self.next_ns()
            self._waits_for_ns = _ALL if at_ns is None else at_ns
            deadline = float("inf") if at_ns is None else self.seconds(at_ns)
            with trio.CancelScope(deadline=deadline) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            self.run_due()
            if jump is not None:
                # Who is due together with this task can't be seen from within its turn.
                await trio.testing.wait_all_tasks_blocked()
                self._run_ahead(jump)

    def _run_ahead(self, jump: Callable[[float], None]) -> None:
        """Most events are the models' own: while no task has anything to do, go from one to the
        next without a turn of trio's loop, which costs five times as much."""
        while (at_ns := self.next_ns()) is not None:
            tasks = trio.lowlevel.current_statistics()
            ahead_s = self.seconds(at_ns) - trio.current_time()
            if tasks.tasks_runnable or tasks.seconds_to_next_deadline <= ahead_s:
                return
            if ahead_s > 0:
                jump(ahead_s)
            self.run_due()
