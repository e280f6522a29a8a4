"""A scenario's machine as an engine of the daemon: its jobs take as long as the model says."""

from collections.abc import Callable
from typing import Any

import trio

from engine.interface import (
    Embedding,
    EmbedSpec,
    EngineEvent,
    Estimate,
    Finished,
    JobSpec,
    ModelHealth,
    ModelInfo,
    Started,
    Tokens,
)
from protocol.errors import EngineError
from router import actions as act
from router.actions import StartJob
from simnet.market.inference import Machine


class MachineEngine:
    """One provider's. It names no models of its own: what is sold, and for how much, is for the
    scenario's pricing to say."""

    def __init__(self, machine: Machine, start: Callable[[StartJob], None]) -> None:
        self._machine, self._start = machine, start
        self._awarded: dict[bytes, StartJob] = {}
        self._running: dict[bytes, tuple[Callable[[EngineEvent], None], trio.Event]] = {}
        self._input_tokens: dict[bytes, int] = {}

    def awarded(self, action: StartJob) -> None:
        """The job that the daemon will ask for next."""
        self._awarded[action.job_id] = action

    def came(self, item: Any) -> None:
        """The machine has come further with a job."""
        emit, done = self._running[item.job_id]
        match item:
            case act.JobStarted():
                self._input_tokens[item.job_id] = item.input_tokens
                emit(Started(item.input_tokens))
            case act.JobTokens():
                text = "".join(text for text, _ in item.pieces)
                emit(Tokens(text, sum(count for _, count in item.pieces)))
            case act.JobFinished():
                emit(
                    Finished(
                        item.reason,
                        self._input_tokens[item.job_id],
                        item.output_tokens,
                        item.ttft_ns,
                        item.duration_ns,
                        item.engine,
                        item.settings,
                    )
                )
                done.set()

    # --- the interface ------------------------------------------------------------------------

    def models(self) -> tuple[ModelInfo, ...]:
        """None."""
        return ()

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """Nothing: the scenario's pricing makes the promises."""
        return Estimate(0, 0)

    def free_places(self, model: str) -> int:
        """Of the machine."""
        return max(0, self._machine.gpu.places - self._machine.running)

    def queue_room(self, model: str) -> int:
        """No job waits."""
        return 0

    def health(self) -> tuple[ModelHealth, ...]:
        """Nothing to say."""
        return ()

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`."""
        done = trio.Event()
        self._running[spec.job_id] = emit, done
        try:
            self._start(self._awarded.pop(spec.job_id))
            await done.wait()
        finally:
            self._machine.cancel(spec.job_id)
            del self._running[spec.job_id]
            self._input_tokens.pop(spec.job_id, None)

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """EngineError `engine.no_embeddings`."""
        raise EngineError("engine.no_embeddings", spec.model)
