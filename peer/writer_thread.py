"""One thread that makes one call at a time for a task.

`trio.to_thread` borrows a thread for every call, asks a limiter and copies the context: measured,
150 us and 48 of CPU to go there and back, to this one's 50 to 90 and 28. A commit to a good disk
takes 100 to 200, so the log's waiters feel the difference.
"""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import outcome
import trio

_Work = tuple[Callable[[], None], trio.lowlevel.Task]


class Caller(Protocol):
    """What makes blocking calls for a task."""

    async def run(self, call: Callable[[], None]) -> None:
        """Makes the call; returns, or raises, as it does. Not to be cancelled."""
        ...


class WriterThread:
    """The thread, for as long as the block; calls are never abandoned once begun."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._work, name="log writer", daemon=True)

    def __enter__(self) -> "WriterThread":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    async def run(self, call: Callable[[], None]) -> None:
        """Makes the call there; returns, or raises, as it does. Not to be cancelled."""
        self._queue.put((call, trio.lowlevel.current_task()))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            call, task = work
            result = outcome.capture(call)
            self._token.run_sync_soon(trio.lowlevel.reschedule, task, result)
            # The caller may go on for long before the next call, and frames are large.
            del work, call, task, result
