"""One model of the daemon as jobs see it: what it promises, who uses it, whose turn it is.

Knows whether its worker is up, not how that comes about. Must not know llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio

from engine import frames
from engine.catalogue import ModelSource
from engine.frames import FrameError, JobRechecked, Ready
from engine.interface import (
    EngineEvent,
    Estimate,
    Finished,
    ModelHealth,
    ModelInfo,
    RecheckReport,
)
from engine.job import Job, now_ns
from engine.known import KnownModel
from engine.life import ModelLife
from engine.memory import Occupant, data_bytes_max, needed_bytes
from engine.notes import ModelNotes
from engine.process import resident_bytes
from engine.queue import FairQueue, Ticket
from engine.recheck import read_report
from engine.settings import LlamaSettings
from engine.speed import cost_ns, estimate
from engine.stage import Stage
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S, milliseconds


class ServedModel:
    """Runs one GGUF: `known.read`, then `life.run` as a task, then `life.load`."""

    def __init__(
        self,
        source: ModelSource,
        settings: LlamaSettings,
        notes: ModelNotes,
        on_ready: Callable[[Ready], None],
    ) -> None:
        self.source = source
        self.known = KnownModel(source, settings, notes)
        self.life = ModelLife(self.known, on_ready)
        self._settings = settings
        self._claims = 0
        # Claimed and not yet given to a worker.
        self._queue: FairQueue[Job] = FairQueue(settings.queue_jobs)
        self._last_used_ns = 0
        self._released = trio.Event()
        self.life.on_change = self._life_changed

    @property
    def name(self) -> str:
        """What requests ask for."""
        return self.known.name

    @property
    def info(self) -> ModelInfo | None:
        """The model as it is served, or would be once loaded; None while it is down.

        `context_tokens` is that of one place.
        """
        life = self.life
        if life.loaded is not None:
            context_tokens = life.loaded.ready.context_tokens
        elif life.is_recovering or not self.known.is_proven:
            return None
        else:
            context_tokens = self.known.context_tokens
        return replace(self.known.file.info, context_tokens=context_tokens)

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """All that it is offered as: alone, and with each adapter; none while it is down."""
        info = self.info
        if info is None:
            return ()
        return (info, *(adapter.info(info) for adapter in self.known.adapters))

    def adapter_of(self, name: str) -> int | None:
        """The number of the adapter that a request for `name` wants; None if it means another."""
        names = [self.name, *(adapter.source.offered for adapter in self.known.adapters)]
        return names.index(name) if name in names else None

    @property
    def load_left_ns(self) -> int:
        """How long until it would serve, by the last time that it was loaded."""
        if self.life.loaded is not None:
            return 0
        is_loading = self.life.stage is Stage.LOADING
        gone_ns = now_ns() - self.life.load_begin_ns if is_loading else 0
        return max(0, self.known.load_ns - gone_ns)

    @property
    def loads_in_time(self) -> bool:
        """Whether requesters would wait for it to load."""
        return self.known.load_ns <= limits.ENGINE_COLD_START_NS_MAX

    @property
    def is_waited_for(self) -> bool:
        """Whether a job is about to have it loaded."""
        return bool(self._queue) and self.life.loaded is None

    @property
    def free_places(self) -> int:
        """How many more jobs would start at once, or as soon as it is loaded."""
        return max(0, self._settings.places - self._jobs) if self.info else 0

    @property
    def queue_room(self) -> int:
        """How many more jobs, of different owners, would be taken to wait for a place."""
        return self._queue.room(self._vacant) - self.free_places if self.info else 0

    @property
    def _given(self) -> Sequence[Job]:
        """The jobs that the worker has."""
        return self.life.loaded.jobs if self.life.loaded else ()

    @property
    def _vacant(self) -> int:
        """Places that no worker's job has, whether or not somebody waits for them."""
        return max(0, self._settings.places - len(self._given))

    @property
    def _jobs(self) -> int:
        return len(self._given) + len(self._queue)

    def occupant(self, key: int, *, planned: bool) -> Occupant | None:
        """The room that it takes, or is `planned` to; None when it takes none.

        It stays while it is used, on its way in, or could not come back in time.
        """
        stage = self.life.stage
        if stage in (Stage.COLD, Stage.WITHDRAWN) and not (planned and self.is_waited_for):
            return None
        stays = bool(self._claims) or stage is Stage.LOADING or not self.loads_in_time
        return Occupant(key, self.needed_bytes, self._last_used_ns, stays)

    @property
    def needed_bytes(self) -> int:
        """The memory that it takes when loaded, from above."""
        return needed_bytes(self.known.file, self._settings)

    def health(self) -> ModelHealth:
        """How it does, for its operator."""
        life = self.life
        pid = life.loaded.pid if life.loaded else None
        return ModelHealth(
            name=self.name,
            source=str(self.source.path),
            stage=life.stage.value,
            # Cancelled jobs count until the worker says that they are over.
            running=len(self._given),
            queued=len(self._queue),
            restarts=life.restarts,
            last_error=str(life.last_error or ""),
            pid=pid,
            resident_bytes=resident_bytes(pid) if pid else 0,
            limit_bytes=data_bytes_max(self.known.file, self._settings),
        )

    def estimate(self, input_tokens: int, before: Sequence[Ticket[Job]] | None = None) -> Estimate:
        """What to promise a job that arrives now, from when the model is loaded.

        It goes after those that wait, or after `before` alone.
        """
        loaded = self.life.loaded
        waiting = [ticket.job for ticket in (self._queue.tickets() if before is None else before)]
        jobs = [*self._given, *waiting]
        return estimate(
            loaded.speed if loaded else self.known.speed,
            input_tokens=input_tokens,
            unread_tokens=sum(job.unread_tokens for job in jobs),
            tokens_left=[job.tokens_left for job in jobs],
        )

    @contextmanager
    def claim(self, job: Job, *, load_ns: int = 0) -> Iterator[None]:
        """Have a job wait for its turn; for the length of the block, the model stays loaded.

        `load_ns` passes before anything starts. EngineError: `engine.overloaded`,
        `engine.too_late`, `engine.bad_spec`.
        """
        self._check(job, load_ns)
        spec = job.spec
        speed = self.life.loaded.speed if self.life.loaded else self.known.speed
        cost = cost_ns(speed, job.input_tokens, job.tokens_left)
        job.ticket = self._queue.push(job, spec.owner, spec.priority, cost)
        self._claims += 1
        self._give_turns()
        try:
            yield
        finally:
            self._claims -= 1
            self._last_used_ns = now_ns()
            self._released.set()
            self._released = trio.Event()
            if not self._queue.remove(job.ticket) and not job.is_over and self.life.loaded:
                self.life.loaded.cancel(job)

    async def wait_unclaimed(self) -> None:
        """Until no job uses it."""
        while self._claims:
            await self._released.wait()

    def _check(self, job: Job, load_ns: int) -> None:
        spec = job.spec
        try:
            # What the worker could not decode would end it, and every other job with it.
            frames.check(job.message(0))
        except FrameError as error:
            raise EngineError("engine.bad_spec", str(error)) from None
        if not self._queue.has_room(spec.owner, self._vacant):
            waiting = len(self._queue)
            why = f"{waiting} jobs wait" if not self._queue.room(self._vacant) else "its share"
            raise EngineError("engine.overloaded", why)
        if spec.ttft_ns_max:
            before = self._queue.ahead(spec.owner, spec.priority)
            ttft_ns = self.estimate(job.input_tokens, before).ttft_ns + load_ns
            if ttft_ns > spec.ttft_ns_max:
                over_ms = milliseconds(ttft_ns - spec.ttft_ns_max)
                raise EngineError("engine.too_late", f"by about {over_ms} ms")

    def _life_changed(self) -> None:
        """Jobs that wait go to a new worker; who waits for a model that is given up, fails."""
        if self.life.loaded is not None:
            self.life.loaded.on_over = self._job_over
            self._give_turns()
        elif self.life.stage is Stage.WITHDRAWN or self.life.is_over:
            while self._queue:
                self._queue.pop().job.fail(self.life.failure)

    def _give_turns(self) -> None:
        """Give the worker as many jobs as it has places."""
        while self._queue and self.life.loaded is not None and self._vacant:
            self.life.loaded.give(self._queue.pop().job)

    def _job_over(self, job: Job) -> None:
        """A place is free: charge what the job took, and let the next one have it."""
        assert job.ticket is not None
        if self.life.loaded is not None:
            read = max(0, job.input_tokens - job.reused_tokens)
            taken_ns = cost_ns(self.life.loaded.speed, read, job.output_tokens)
            self._queue.settle(job.ticket, taken_ns)
        self._give_turns()

    async def run_job(self, job: Job, emit: Callable[[EngineEvent], None]) -> None:
        """As `Engine.run_job`, for a job whose turn has come."""
        with trio.move_on_after(limits.ENGINE_JOB_NS_MAX / NS_PER_S):
            while True:
                event = await job.next_event()
                if not isinstance(event, JobRechecked):
                    emit(event)
                if isinstance(event, Finished):
                    return
        raise EngineError("engine.timeout", "it ran longer than any job may")

    async def recheck(self, job: Job, token_ids: Sequence[int]) -> RecheckReport:
        """As `Rechecker.recheck`, for a job whose turn has come."""
        while True:
            event = await job.next_event()
            if isinstance(event, JobRechecked):
                assert job.ready is not None
                return read_report(event, token_ids, job.ready)
