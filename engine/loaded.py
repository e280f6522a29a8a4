"""A model whose worker is up: its jobs, its measured speed, and what the worker says.

Ends with the worker; loading and restarting are not its business. Must not know llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Callable, Sequence

import trio

from engine import frames
from engine.frames import Failed, FrameError, JobFinished, Ready, Report, Speed
from engine.interface import EngineEvent, Finished, JobSpec
from engine.job import RunningJob, now_ns
from engine.process import WorkerProcess
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import CODES, EngineError
from protocol.units import NS_PER_S


class LoadedModel:
    """One worker from its readiness to its end; `on_finished` is called when a job succeeds."""

    def __init__(
        self,
        worker: WorkerProcess,
        ready: Ready,
        settings: LlamaSettings,
        on_finished: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._on_finished = on_finished
        self._jobs: dict[int, RunningJob] = {}
        self._next_handle = 0
        self.ready = ready
        self.speed: Speed = ready.speed

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._worker.pid

    @property
    def jobs(self) -> Sequence[RunningJob]:
        """Those that the worker has, in order of arrival; cancelled ones until it says so."""
        return tuple(self._jobs.values())

    async def serve(self) -> EngineError | None:
        """Hand out what the worker says until it dies (None), fails or falls silent."""
        silence_ns = limits.ENGINE_SILENCE_NS_MAX
        while True:
            with trio.move_on_after(silence_ns / NS_PER_S) as scope:
                messages = await self._worker.receive()
            if scope.cancelled_caught:
                oldest_ns = min((job.submitted_ns for job in self._jobs.values()), default=None)
                if oldest_ns is not None and now_ns() - oldest_ns >= silence_ns:
                    return EngineError("engine.timeout", "the worker fell silent")
                continue
            if not messages:
                return None
            for message in messages:
                if isinstance(message, Report):
                    self._take(message)
                elif isinstance(message, Failed):
                    return worker_error(message)

    def _take(self, report: Report) -> None:
        self.speed = report.speed
        for event in report.events:
            job = self._jobs.get(event.handle)
            if job is None:
                continue
            job.take(event)
            if job.is_over:
                del self._jobs[event.handle]
            if isinstance(event, JobFinished):
                self._on_finished()

    def fail_jobs(self, error: EngineError) -> None:
        """The worker is gone, and every job with it."""
        for job in self._jobs.values():
            job.fail(EngineError(error.code, error.detail))
        self._jobs.clear()

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As `Engine.run_job`, on this worker."""
        if len(self._jobs) >= self._settings.places + self._settings.queue_jobs:
            raise EngineError("engine.overloaded", f"{len(self._jobs)} jobs")
        handle = self._next_handle
        self._next_handle += 1
        submit = frames.Submit(handle, spec.prompt, spec.parameters)
        try:
            # What the worker could not decode would end it, and every other job with it.
            frames.check(submit)
        except FrameError as error:
            raise EngineError("engine.bad_spec", str(error)) from None
        self._worker.send_nowait(submit)
        job = RunningJob(spec, self.ready)
        self._jobs[handle] = job
        try:
            while True:
                event = await job.next_event()
                emit(event)
                if isinstance(event, Finished):
                    return
        finally:
            # Its place is counted as taken until the worker says that it is free.
            if not job.is_over:
                self._worker.send_nowait(frames.Cancel(handle))


def worker_error(failed: Failed) -> EngineError:
    """What the worker reports, if it is a code at all."""
    return EngineError(failed.code if failed.code in CODES else "engine.crashed", failed.detail)
