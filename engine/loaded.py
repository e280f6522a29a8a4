"""A model whose worker is up: its jobs, its measured speed, and what the worker says.

Ends with the worker; loading and restarting are not its business. Must not know llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Callable, Sequence

import trio

from engine import frames
from engine.frames import Failed, FrameError, JobFinished, Ready, Report, Speed
from engine.job import Job, told_error
from engine.process import WorkerProcess
from engine.speed import silence_ns
from protocol.errors import EngineError
from protocol.units import NS_PER_S


class LoadedModel:
    """One worker from its readiness to its end.

    `on_finished` is called when a job succeeds, `on_over` when a place has become free.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        ready: Ready,
        on_finished: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._on_finished = on_finished
        self.on_over: Callable[[Job], None] = lambda job: None
        self._jobs: dict[int, Job] = {}
        self._next_handle = 0
        self.ready = ready
        self.speed: Speed = ready.speed

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._worker.pid

    @property
    def jobs(self) -> Sequence[Job]:
        """Those that the worker has, in order of arrival; cancelled ones until it says so."""
        return tuple(self._jobs.values())

    async def serve(self) -> EngineError | None:
        """Hand out what the worker says until it dies (None), fails or falls silent.

        FrameError when what it says makes no sense.
        """
        silent = 0
        while True:
            owes = bool(self._jobs)
            # In two halves: if this process was stopped meanwhile, the worker gets one yet.
            with trio.move_on_after(silence_ns(self.speed) / 2 / NS_PER_S) as scope:
                messages = await self._worker.receive()
            if scope.cancelled_caught:
                silent = silent + 1 if owes else 0
                if silent == 2:
                    return EngineError("engine.timeout", "the worker fell silent")
                continue
            silent = 0
            if not messages:
                return None
            for message in messages:
                if isinstance(message, Report):
                    self._take(message)
                elif isinstance(message, Failed):
                    return worker_error(message)
                else:
                    raise FrameError("it is ready twice")

    def _take(self, report: Report) -> None:
        self.speed = report.speed
        over = []
        for event in report.events:
            job = self._jobs.get(event.handle)
            if job is None:
                raise FrameError("an event of no job")
            job.take(event)
            if job.is_over:
                over.append(self._jobs.pop(event.handle))
            if isinstance(event, JobFinished):
                self._on_finished()
        for job in over:
            self.on_over(job)

    def fail_jobs(self, error: EngineError) -> None:
        """The worker is gone, and every job that it had with it."""
        for job in self._jobs.values():
            job.fail(EngineError(error.code, error.detail))
        self._jobs.clear()

    def give(self, job: Job) -> None:
        """The worker has the job from now on."""
        handle = self._next_handle
        self._next_handle += 1
        self._jobs[handle] = job
        self._worker.send_nowait(job.message(handle))
        job.given(handle, self.ready)

    def cancel(self, job: Job) -> None:
        """Nobody wants it any more; its place is taken until the worker says that it is free."""
        assert job.handle is not None
        self._worker.send_nowait(frames.Cancel(job.handle))


def worker_error(failed: Failed) -> EngineError:
    """What the worker reports, if it is a code at all."""
    return told_error(failed.code, failed.detail)
