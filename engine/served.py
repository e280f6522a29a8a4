"""One model of the daemon as jobs see it: what it promises, who uses it.

Knows whether its worker is up, not how that comes about. Must not know llama.cpp.
Rule: engine/README.md.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from engine.catalogue import ModelSource
from engine.interface import EngineEvent, Estimate, JobSpec, ModelInfo, RecheckReport
from engine.job import now_ns
from engine.known import KnownModel
from engine.life import ModelLife
from engine.loaded import LoadedModel
from engine.memory import Occupant, needed_bytes
from engine.notes import ModelNotes
from engine.settings import LlamaSettings
from engine.speed import estimate
from engine.stage import Stage
from protocol import limits
from protocol.errors import EngineError


class ServedModel:
    """Runs one GGUF: `known.read`, then `life.run` as a task, then `life.load`."""

    def __init__(self, source: ModelSource, settings: LlamaSettings, notes: ModelNotes) -> None:
        self.source = source
        self.known = KnownModel(source, settings, notes)
        self.life = ModelLife(self.known)
        self._settings = settings
        self._claims = 0
        # Claimed and not yet given to a worker, in order of arrival.
        self._waiting: list[JobSpec] = []
        self._last_used_ns = 0

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
        return bool(self._waiting) and self.life.loaded is None

    @property
    def free_places(self) -> int:
        """How many more jobs would start at once, or as soon as it is loaded."""
        return max(0, self._settings.places - self._jobs) if self.info else 0

    @property
    def _jobs(self) -> int:
        running = len(self.life.loaded.jobs) if self.life.loaded else 0
        return running + len(self._waiting)

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

    def estimate(self, input_tokens: int) -> Estimate:
        """What to promise a job that arrives now, from when the model is loaded."""
        loaded = self.life.loaded
        jobs = loaded.jobs if loaded else ()
        waiting = [spec.parameters.output_tokens_max for spec in self._waiting]
        return estimate(
            loaded.speed if loaded else self.known.speed,
            input_tokens=input_tokens,
            unread_tokens=sum(job.unread_tokens for job in jobs),
            tokens_left=[*(job.tokens_left for job in jobs), *waiting],
        )

    @contextmanager
    def claim(self, spec: JobSpec) -> Iterator[None]:
        """For the length of a job, keep the model loaded. EngineError `engine.overloaded`."""
        if self._jobs >= self._settings.places + self._settings.queue_jobs:
            raise EngineError("engine.overloaded", f"{self._jobs} jobs")
        self._claims += 1
        self._waiting.append(spec)
        try:
            yield
        finally:
            self._claims -= 1
            self._stop_waiting(spec)
            self._last_used_ns = now_ns()

    def _stop_waiting(self, spec: JobSpec) -> None:
        # By identity: two jobs may be equal in everything.
        self._waiting = [one for one in self._waiting if one is not spec]

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As `Engine.run_job`, for a job that has a claim."""
        await self._loaded(spec).run_job(spec, emit)

    async def recheck(self, spec: JobSpec, token_ids: Sequence[int]) -> RecheckReport:
        """As `Rechecker.recheck`, for a job that has a claim."""
        return await self._loaded(spec).recheck(spec, token_ids)

    def _loaded(self, spec: JobSpec) -> LoadedModel:
        """The worker, which counts the job from now on."""
        self._stop_waiting(spec)
        if self.life.loaded is None:
            raise EngineError("engine.crashed", "the worker is being restarted")
        return self.life.loaded
