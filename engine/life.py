"""The life of one model's worker: loaded on demand, unloaded for another, restarted when it
dies, withdrawn when it keeps dying.

Which model may take memory is not decided here. Must not know llama.cpp, which lives in the
worker. Rule: engine/README.md; `engine.stage` is the table.
"""

import os
from collections import deque
from collections.abc import Callable

import structlog
import trio

from engine import frames
from engine.frames import Failed, FrameError, Ready
from engine.job import now_ns
from engine.known import KnownModel
from engine.loaded import LoadedModel, worker_error
from engine.memory import data_bytes_max, layer_bytes, step_bytes
from engine.process import WorkerProcess, open_worker
from engine.speed import start_ns_max
from engine.stage import STAGES, Stage, StageEvent
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S, milliseconds

log = structlog.get_logger("engine")


class DeviceLine:
    """Says once what the build computes on: nobody should wonder why the GPU is idle."""

    def __init__(self) -> None:
        self._is_said = False

    def __call__(self, ready: Ready) -> None:
        """A model is ready."""
        if not self._is_said and ready.engine.endswith(frames.CPU_BUILD):
            log.info(
                "engine.cpu_only",
                engine=ready.engine,
                meaning="this build of llama.cpp uses no GPU; see engine/README.md, GPU",
            )
        self._is_said = True


class ModelLife:
    """Start `run` as a task, then `load` and `unload`; `loaded` is the worker while it serves.

    `is_recovering` from a failure until it serves again. `on_change` is called at every step
    of its stages, and at the end. `restarts` and `last_error` are for people who look.
    """

    def __init__(self, known: KnownModel, on_ready: Callable[[Ready], None]) -> None:
        self.stage = Stage.COLD
        self.loaded: LoadedModel | None = None
        self.is_recovering = False
        self.is_leaving = False
        self.load_begin_ns = 0
        self.on_change: Callable[[], None] = lambda: None
        self.is_over = False
        self.restarts = 0
        self.last_error: EngineError | None = None
        self._known = known
        self._on_ready = on_ready
        self._scope = trio.CancelScope()
        self._changed = trio.Event()
        self._is_wanted = False
        self._failures = 0
        self._failed_loads = 0
        self._failed_at_ns: deque[int] = deque(maxlen=limits.ENGINE_CRASHES_MAX)

    async def load(self) -> None:
        """Until the worker is up; an EngineError says why an attempt failed."""
        failed_loads = self._failed_loads
        self._is_wanted = True
        self._touch()
        while self.loaded is None:
            if self._failed_loads != failed_loads:
                raise self.failure
            await self._wait_change()

    def unload_nowait(self) -> None:
        """Begin to end the worker, which must have no jobs: from here on it gets none."""
        self._is_wanted = False
        self.is_leaving = True
        self.loaded = None
        self._scope.cancel()

    async def wait_cold(self) -> None:
        """Until the memory of a model that was unloaded is free."""
        while self.stage is not Stage.COLD:
            await self._wait_change()

    async def wait_serving(self) -> None:
        """Until the worker is up; at once when it is."""
        while self.loaded is None:
            await self._wait_change()

    async def _wait_change(self) -> None:
        if self.is_over:
            raise self.failure
        await self._changed.wait()

    @property
    def failure(self) -> EngineError:
        """Why it does not serve, as an error for a job that waits."""
        if self.is_over and self.stage is not Stage.WITHDRAWN:
            return EngineError("engine.cancelled", "the engine was stopped")
        error = self.last_error or EngineError("engine.crashed")
        return EngineError(error.code, error.detail)

    def forgive(self) -> None:
        """It works: the next crash is restarted at once again."""
        self._failures = 0

    async def run(self) -> None:
        """Load when wanted, and again when the worker dies.

        Ends only for a model that has never worked.
        """
        try:
            await self._run()
        finally:
            self.is_over = True
            self._touch()
            self.on_change()

    async def _run(self) -> None:
        while True:
            while not self._is_wanted:
                await self._changed.wait()
            with trio.CancelScope() as self._scope:
                error = await self._live()
                if not self._known.is_proven:
                    self._fail(StageEvent.WITHDRAW, error)
                    return
                await self._rest(error)
            if self._scope.cancel_called:
                self.is_leaving = False
                self._step(StageEvent.UNLOAD)

    async def _live(self) -> EngineError:
        """One worker from start to end; why it ended."""
        self._step(StageEvent.LOAD)
        self.load_begin_ns = now_ns()
        try:
            await self._known.read()
            error = await self._work()
        except EngineError as unreadable:
            error = unreadable
        if self.stage is Stage.LOADING:
            await self._known.note_failed(error)
            self._failed_loads += 1
        return error

    async def _work(self) -> EngineError:
        loaded: LoadedModel | None = None
        error: EngineError | None = EngineError("engine.cancelled", "the engine was stopped")
        try:
            async with open_worker() as worker:
                try:
                    first = await self._start(worker)
                    if isinstance(first, Ready):
                        loaded = LoadedModel(worker, first, self.forgive)
                        await self._serve(loaded)
                        error = await loaded.serve()
                    else:
                        error = first
                except FrameError as nonsense:
                    error = EngineError("engine.crashed", f"it wrote nonsense: {nonsense}")
                finally:
                    self.loaded = None
                    self.is_recovering = not self.is_leaving
            if error is None:
                error = self._death(worker, is_serving=loaded is not None)
            return error
        finally:
            if loaded is not None:
                self._known.speed = loaded.speed
                loaded.fail_jobs(error or EngineError("engine.crashed"))

    def _death(self, worker: WorkerProcess, *, is_serving: bool) -> EngineError:
        """What to say of a worker that ended without a word."""
        if is_serving:
            return EngineError("engine.crashed", worker.diagnosis())
        why = f"the worker died while loading, {worker.diagnosis()}"
        return EngineError("engine.bad_model", f"{self._known.source.path}: {why}")

    async def _start(self, worker: WorkerProcess) -> Ready | EngineError | None:
        """Have the model loaded; None when the worker died over it."""
        path, settings, file = self._known.source.path, self._known.settings, self._known.file
        worker.send_nowait(
            frames.Load(
                path=os.fsencode(path),
                threads=settings.threads(file.info.size_bytes),
                places=settings.places,
                context_tokens=self._known.context_tokens,
                chunk_tokens=settings.prefill_chunk_tokens,
                queue_jobs=settings.queue_jobs,
                step_ns_min=settings.step_ns_min(),
                prefix_reuse=settings.prefix_reuse,
                data_bytes=data_bytes_max(file, settings),
                layers=file.layers,
                layer_bytes=layer_bytes(file, settings),
                step_bytes=step_bytes(file),
                adapters=tuple(
                    frames.LoadAdapter(os.fsencode(each.source.path), each.source.scale_milli)
                    for each in self._known.adapters
                ),
            )
        )
        with trio.move_on_after(start_ns_max(file.info.size_bytes) / NS_PER_S):
            for message in await worker.receive():
                if isinstance(message, Ready):
                    if len(message.speed.step_ns) != settings.places:
                        raise FrameError("speeds of other places")
                    return message
                if isinstance(message, Failed):
                    return worker_error(message)
            return None
        return EngineError("engine.timeout", f"{path}: it takes too long to load")

    async def _serve(self, loaded: LoadedModel) -> None:
        """The worker is ready: from here on it has jobs."""
        measured_ns = now_ns() - self.load_begin_ns
        self.loaded = loaded
        self.is_recovering = False
        self._step(StageEvent.READY)
        self._on_ready(loaded.ready)
        log.info(
            "engine.ready",
            model=self._known.name,
            places=self._known.settings.places,
            start_ms=milliseconds(measured_ns),
        )
        await self._known.note_passed(loaded.speed, measured_ns)

    async def _rest(self, error: EngineError) -> None:
        """After a failure: a pause that grows, or, when it fails again and again, a long one."""
        self._failed_at_ns.append(now_ns())
        first_ns, last_ns = self._failed_at_ns[0], self._failed_at_ns[-1]
        often = len(self._failed_at_ns) == limits.ENGINE_CRASHES_MAX
        if often and last_ns - first_ns <= limits.ENGINE_CRASHES_NS:
            delay_ns = limits.ENGINE_WITHDRAWN_NS
            self._failed_at_ns.clear()
            self._fail(StageEvent.WITHDRAW, error)
            log.error(
                "engine.withdrawn",
                model=self._known.name,
                crashes=limits.ENGINE_CRASHES_MAX,
                code=error.code,
                reason=error.detail,
                retry_s=delay_ns // NS_PER_S,
            )
        else:
            delay_ns = limits.ENGINE_RESTART_NS_MIN << min(self._failures, 16)
            delay_ns = min(delay_ns, limits.ENGINE_RESTART_NS_MAX)
            self._failures += 1
            self._fail(StageEvent.FAIL, error)
            log.warning(
                error.code,
                model=self._known.name,
                reason=error.detail,
                restart_ms=milliseconds(delay_ns),
            )
        await trio.sleep(delay_ns / NS_PER_S)
        if self.stage is Stage.WITHDRAWN:
            # Others may have taken its memory: it is loaded when a job asks for it.
            self._is_wanted = self.is_recovering = False
            self._step(StageEvent.RETURN)
        else:
            self.restarts += 1

    def _fail(self, event: StageEvent, error: EngineError) -> None:
        self.last_error = error
        self.is_recovering = True
        self._step(event)

    def _step(self, event: StageEvent) -> None:
        self.stage = STAGES[self.stage, event]
        self._touch()
        self.on_change()

    def _touch(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = trio.Event()
