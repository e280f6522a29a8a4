"""A model whose worker is up: its jobs, its measured speed, and what the worker says.

Ends with the worker; loading and restarting are not its business. Must not know llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from engine import frames
from engine.frames import Failed, FrameError, JobFinished, JobRechecked, Ready, Report, Speed
from engine.interface import EngineEvent, Finished, JobSpec, RecheckReport
from engine.job import RunningJob, told_error
from engine.process import WorkerProcess
from engine.recheck import read_report
from engine.settings import LlamaSettings
from engine.speed import silence_ns
from protocol.errors import EngineError
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
        for event in report.events:
            job = self._jobs.get(event.handle)
            if job is None:
                raise FrameError("an event of no job")
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
        handle = self._take_handle()
        submit = frames.Submit(handle, spec.prompt, spec.parameters, spec.owner)
        with self._submitted(spec, submit) as job:
            while True:
                event = await job.next_event()
                if not isinstance(event, JobRechecked):
                    emit(event)
                if isinstance(event, Finished):
                    return

    async def recheck(self, spec: JobSpec, token_ids: Sequence[int]) -> RecheckReport:
        """As `Rechecker.recheck`, on this worker."""
        handle = self._take_handle()
        message = frames.Recheck(handle, spec.prompt, spec.parameters, tuple(token_ids))
        with self._submitted(spec, message) as job:
            while True:
                event = await job.next_event()
                if isinstance(event, JobRechecked):
                    return read_report(event, token_ids, self.ready)

    def _take_handle(self) -> int:
        if len(self._jobs) >= self._settings.places + self._settings.queue_jobs:
            raise EngineError("engine.overloaded", f"{len(self._jobs)} jobs")
        self._next_handle += 1
        return self._next_handle - 1

    @contextmanager
    def _submitted(
        self, spec: JobSpec, message: frames.Submit | frames.Recheck
    ) -> Iterator[RunningJob]:
        """The worker has the job for the length of the block; cancelled if that ends early."""
        try:
            # What the worker could not decode would end it, and every other job with it.
            frames.check(message)
        except FrameError as error:
            raise EngineError("engine.bad_spec", str(error)) from None
        self._worker.send_nowait(message)
        job = RunningJob(spec, self.ready, rechecks=isinstance(message, frames.Recheck))
        self._jobs[message.handle] = job
        try:
            yield job
        finally:
            # Its place is counted as taken until the worker says that it is free.
            if not job.is_over:
                self._worker.send_nowait(frames.Cancel(message.handle))


def worker_error(failed: Failed) -> EngineError:
    """What the worker reports, if it is a code at all."""
    return told_error(failed.code, failed.detail)
