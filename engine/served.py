"""One model of the daemon: its file, its worker and its jobs; restarted when it dies.

Must not know llama.cpp, which lives in the worker. Rule: engine/README.md.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog
import trio

from engine import frames
from engine.catalogue import ModelFile, ModelSource, fingerprint, read_model
from engine.frames import Failed, FrameError, JobFinished, Ready, Report
from engine.interface import EngineEvent, Estimate, Finished, JobSpec, ModelInfo
from engine.job import RunningJob, now_ns
from engine.notes import ModelNotes, Trial, failed_trial, passed_trial
from engine.process import WorkerProcess, open_worker
from engine.settings import LlamaSettings
from engine.speed import estimate
from engine.task import TaskStatus
from protocol import limits
from protocol.errors import CODES, EngineError
from protocol.units import NS_PER_S, milliseconds

log = structlog.get_logger("engine")


class ServedModel:
    """Runs one GGUF: `read`, then `run` as a task."""

    def __init__(
        self, source: ModelSource, settings: LlamaSettings, notes: ModelNotes | None = None
    ) -> None:
        self.source = source
        self._path = source.path
        self._settings = settings
        self._notes = notes or ModelNotes()
        self._file: ModelFile | None = None
        self._worker: WorkerProcess | None = None
        self._ready: Ready | None = None
        self._speed = frames.Speed(0, ())
        self._jobs: dict[int, RunningJob] = {}
        self._next_handle = 0
        self._failures = 0
        self._serving = trio.Event()

    @property
    def file(self) -> ModelFile | None:
        """The file as it was read; None before."""
        return self._file

    @property
    def name(self) -> str:
        """What requests ask for; "" before the file was read."""
        return self._file.info.name if self._file else ""

    @property
    def info(self) -> ModelInfo | None:
        """The model as it is served, with the context of one place; None while it is down."""
        if self._file is None or self._ready is None:
            return None
        return replace(self._file.info, context_tokens=self._ready.context_tokens)

    @property
    def worker_pid(self) -> int | None:
        """The process id of the worker; None while it is down."""
        return self._worker.pid if self._worker and self._ready else None

    @property
    def free_places(self) -> int:
        """How many more jobs would start at once."""
        return max(0, self._settings.places - len(self._jobs)) if self._ready else 0

    async def wait_serving(self) -> None:
        """Until the worker is up; at once when it is."""
        while self._ready is None:
            await self._serving.wait()

    def estimate(self, input_tokens: int) -> Estimate:
        """What to promise a job that arrives now."""
        jobs = self._jobs.values()
        return estimate(
            self._speed,
            input_tokens=input_tokens,
            unread_tokens=sum(job.unread_tokens for job in jobs),
            tokens_left=[job.tokens_left for job in jobs],
        )

    async def read(self) -> None:
        """Read the file, unless it is the one that was read. EngineError `engine.bad_model`."""
        if self._file is None or self._file.fingerprint != fingerprint(self._path):
            read = partial(read_model, name=self.source.name, digest=self._notes.digest)
            self._file = await trio.to_thread.run_sync(read, self._path)

    async def run(self, *, task_status: TaskStatus[EngineError | None]) -> None:
        """Keep a worker running; started with None once it serves, or with why it can't.

        Later failures are logged and tried again, later and later.
        """
        has_served = False

        def serves() -> None:
            nonlocal has_served
            if not has_served:
                has_served = True
                task_status.started(None)

        while True:
            try:
                await self.read()
                error = await self._live(serves)
            except EngineError as unreadable:
                error = unreadable
            if not has_served:
                task_status.started(error)
                return
            delay_ns = min(
                limits.ENGINE_RESTART_NS_MIN << min(self._failures, 16),
                limits.ENGINE_RESTART_NS_MAX,
            )
            self._failures += 1
            log.warning(
                error.code,
                model=self.name,
                reason=error.detail,
                restart_ms=milliseconds(delay_ns),
            )
            await trio.sleep(delay_ns / NS_PER_S)

    async def _live(self, serves: Callable[[], None]) -> EngineError:
        """One worker from start to end; why it ended."""
        begin_ns = now_ns()
        error: EngineError | None
        async with open_worker() as worker:
            try:
                first = await self._load(worker)
                if isinstance(first, Ready):
                    self._worker, self._ready, self._speed = worker, first, first.speed
                    log.info(
                        "engine.ready",
                        model=self.name,
                        places=self._settings.places,
                        start_ms=milliseconds(now_ns() - begin_ns),
                    )
                    self._serving.set()
                    serves()
                    await self._note_passed(first, now_ns() - begin_ns)
                    error = await self._serve(worker)
                else:
                    error = first
            except FrameError as nonsense:
                error = EngineError("engine.crashed", f"it wrote no frame: {nonsense}")
            finally:
                was_ready = self._ready is not None
                self._worker = self._ready = None
                self._serving = trio.Event()
        if error is None:
            code = "engine.crashed" if was_ready else "engine.bad_model"
            where = "" if was_ready else f"{self._path}: the worker died while loading, "
            error = EngineError(code, where + worker.diagnosis())
        if not was_ready:
            await self._note_failed(error)
        for job in self._jobs.values():
            job.fail(EngineError(error.code, error.detail))
        self._jobs.clear()
        return error

    async def _note_passed(self, ready: Ready, load_ns: int) -> None:
        speed = ready.speed
        await self._note(
            passed_trial(self._settings.conditions(), load_ns, speed.prefill_ns, speed.step_ns)
        )

    async def _note_failed(self, error: EngineError) -> None:
        await self._note(failed_trial(self._settings.conditions(), f"{error.code} {error.detail}"))

    async def _note(self, trial: Trial) -> None:
        assert self._file is not None
        file = self._file
        record = partial(self._notes.record, file.fingerprint, file.info.digest, trial)
        await trio.to_thread.run_sync(record)

    async def _load(self, worker: WorkerProcess) -> Ready | EngineError | None:
        """Have the model loaded; None when the worker died over it."""
        assert self._file is not None
        wanted = self._settings.context_tokens or limits.ENGINE_CONTEXT_TOKENS_DEFAULT
        worker.send_nowait(
            frames.Load(
                path=str(self._path),
                threads=self._settings.threads(),
                places=self._settings.places,
                context_tokens=min(wanted, self._file.info.context_tokens),
                chunk_tokens=self._settings.prefill_chunk_tokens,
                queue_jobs=self._settings.queue_jobs,
                step_ns_min=self._settings.step_ns_min(),
            )
        )
        with trio.move_on_after(limits.ENGINE_START_NS_MAX / NS_PER_S):
            for message in await worker.receive():
                if isinstance(message, Ready):
                    return message
                if isinstance(message, Failed):
                    return _worker_error(message.code, message.detail)
            return None
        return EngineError("engine.timeout", f"{self._path}: it takes too long to load")

    async def _serve(self, worker: WorkerProcess) -> EngineError | None:
        """Hand out what the worker says until it dies (None), fails or falls silent."""
        silence_ns = limits.ENGINE_SILENCE_NS_MAX
        while True:
            with trio.move_on_after(silence_ns / NS_PER_S) as scope:
                messages = await worker.receive()
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
                    return _worker_error(message.code, message.detail)

    def _take(self, report: Report) -> None:
        self._speed = report.speed
        for event in report.events:
            job = self._jobs.get(event.handle)
            if job is None:
                continue
            job.take(event)
            if job.is_over:
                del self._jobs[event.handle]
            if isinstance(event, JobFinished):
                # It works: the next crash is restarted at once again.
                self._failures = 0

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As `Engine.run_job`, for this model."""
        worker, ready = self._worker, self._ready
        if worker is None or ready is None:
            raise EngineError("engine.crashed", "the worker is being restarted")
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
        worker.send_nowait(submit)
        job = RunningJob(spec, ready)
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
                worker.send_nowait(frames.Cancel(handle))


def _worker_error(code: str, detail: str) -> EngineError:
    """What the worker reports, if it is a code at all."""
    return EngineError(code if code in CODES else "engine.crashed", detail)
