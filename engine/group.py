"""Several engines behind the interface of one: local models and remote servers.

Of those that offer a model, the first is asked; the next one stands in for it when it fails
before its first token. Must not know what kinds of engines there are. Rule: engine/README.md,
"Remote".
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
import trio

from engine.interface import (
    Embedding,
    EmbedSpec,
    Engine,
    EngineEvent,
    Estimate,
    Finished,
    JobSpec,
    ModelHealth,
    ModelInfo,
    Started,
)
from engine.job import after_waiting, now_ns
from engine.task import TaskStatus
from protocol import limits
from protocol.errors import EngineError

log = structlog.get_logger("engine")

# Failures of an engine; the others are the job's own and would be the same elsewhere.
FALLBACK_CODES = (
    "engine.crashed",
    "engine.no_room",
    "engine.overloaded",
    "engine.remote_denied",
    "engine.remote_failed",
    "engine.timeout",
    "engine.too_late",
    "engine.unknown_model",
)


class RunnableEngine(Engine, Protocol):
    """An engine that is kept running by a task."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `started` once jobs are taken."""
        ...


class EngineGroup:
    """Serves what any of `engines` does; the order says who is preferred."""

    def __init__(self, engines: Sequence[RunnableEngine]) -> None:
        self._engines = tuple(engines)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all of them; an EngineError of one that can't start ends the group."""
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:
            try:
                for engine in self._engines:
                    await nursery.start(engine.run)
                task_status.started()
            except EngineError as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def models(self) -> tuple[ModelInfo, ...]:
        """Every name once, as its first engine has it."""
        named: dict[str, ModelInfo] = {}
        for engine in self._engines:
            for info in engine.models():
                named.setdefault(info.name, info)
        return tuple(named.values())

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """As in `Engine`: what the first engine that offers the model promises."""
        return self._first(model).estimate(model, input_tokens)

    def free_places(self, model: str) -> int:
        """As in `Engine`, of the first engine that offers the model."""
        return self._first(model).free_places(model)

    def queue_room(self, model: str) -> int:
        """As in `Engine`, of the first engine that offers the model."""
        return self._first(model).queue_room(model)

    def health(self) -> tuple[ModelHealth, ...]:
        """As in `Engine`, of all engines in order; a name may come twice."""
        return tuple(one for engine in self._engines for one in engine.health())

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`; an engine that fails before its first token hands the job on."""
        engines = self._offering(spec.model) or self._engines
        if len(engines) == 1:
            await engines[0].run_job(spec, emit)
            return
        begin_ns, limit_ns = now_ns(), spec.ttft_ns_max
        for engine in engines:
            if limit_ns:
                left_ns = max(1, begin_ns + limit_ns - now_ns())
                spec = replace(spec, ttft_ns_max=left_ns)
            note = "" if engine is engines[0] else f"fallback {_digest(engine, spec.model)}"
            relay = _Relay(after_waiting(emit, begin_ns), note)
            try:
                await engine.run_job(spec, relay)
                return
            except EngineError as error:
                final = relay.has_shown or error.code not in FALLBACK_CODES
                if final or engine is engines[-1]:
                    raise
                log.warning(
                    "engine.fallback", model=spec.model, code=error.code, reason=error.detail
                )

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """As in `Engine`, by the first engine that offers the model: no other one stands in, as
        its vectors would mean something else."""
        return await self._first(spec.model).embed(spec)

    def _offering(self, model: str) -> tuple[RunnableEngine, ...]:
        return tuple(
            engine
            for engine in self._engines
            if any(info.name == model for info in engine.models())
        )

    def _first(self, model: str) -> RunnableEngine:
        for engine in self._offering(model):
            return engine
        raise EngineError("engine.unknown_model", model)


class _Relay:
    """Passes events on; Started waits for what follows it, so that it comes once.

    `note` is put before the settings that go into the receipt.
    """

    def __init__(self, emit: Callable[[EngineEvent], None], note: str) -> None:
        self._emit = emit
        self._note = note
        self._started: Started | None = None
        self.has_shown = False

    def __call__(self, event: EngineEvent) -> None:
        if isinstance(event, Started):
            self._started = event
            return
        if self._started is not None:
            self.has_shown = True
            self._emit(self._started)
            self._started = None
        if isinstance(event, Finished) and self._note:
            settings = f"{self._note}{event.settings}"[: limits.BUILD_NAME_CHARS_MAX]
            event = replace(event, settings=settings)
        self._emit(event)


def _digest(engine: Engine, model: str) -> str:
    """The start of the digest of what stood in: the bid named another one's."""
    found = [info.digest.hex()[:16] for info in engine.models() if info.name == model]
    return f"sha256={found[0]} " if found else ""
