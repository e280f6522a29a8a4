"""The engine that runs models with llama.cpp, each in its own worker process.

Must not know llama.cpp itself, the market or the network. Rule: engine/README.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import trio

from engine.catalogue import ModelSource
from engine.interface import EngineEvent, Estimate, JobSpec, ModelInfo
from engine.notes import ModelNotes
from engine.served import ServedModel
from engine.settings import LlamaSettings
from engine.task import TaskStatus
from protocol.errors import EngineError

log = structlog.get_logger("engine")


class LlamaEngine:
    """Serves the GGUF files of `sources`, all with the same settings. Start `run` first.

    A bare path is a required source. `notes` remember what is slow to find out.
    """

    def __init__(
        self,
        sources: Sequence[Path | ModelSource],
        settings: LlamaSettings | None = None,
        notes: ModelNotes | None = None,
    ) -> None:
        settings = settings or LlamaSettings()
        notes = notes or ModelNotes()
        self._models = [
            ServedModel(
                source if isinstance(source, ModelSource) else ModelSource(source), settings, notes
            )
            for source in sources
        ]

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load every model and keep its worker alive until cancelled; started once all serve.

        A worker that dies later is restarted. A file that can't be served is one warning and
        left out, or, when it is required, an EngineError before this has started:
        `engine.bad_model`, or `engine.timeout` for one that takes too long to load.
        """
        await self._read()
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:
            for model in list(self._models):
                failure = await nursery.start(model.run)
                if failure is None:
                    continue
                if model.source.required:
                    nursery.cancel_scope.cancel()
                    break
                self._skip(model, failure)
                failure = None
            else:
                task_status.started()
        if failure is not None:
            raise failure

    async def _read(self) -> None:
        """Read every file; the first of a name is served, required ones before the others."""
        self._models.sort(key=lambda model: not model.source.required)
        named: dict[str, ServedModel] = {}
        for model in list(self._models):
            try:
                await model.read()
                first = named.setdefault(model.name, model)
                if first is not model and _same_file(first, model):
                    self._models.remove(model)
                elif first is not model:
                    raise EngineError(
                        "engine.bad_model",
                        f"two files offer a model named {model.name}: {first.source.path}"
                        f" and {model.source.path}",
                    )
            except EngineError as error:
                if model.source.required:
                    raise
                self._skip(model, error)

    def _skip(self, model: ServedModel, error: EngineError) -> None:
        self._models.remove(model)
        log.warning("engine.skipped", code=error.code, reason=error.detail)

    def models(self) -> tuple[ModelInfo, ...]:
        """The models whose worker is up."""
        return tuple(model.info for model in self._models if model.info is not None)

    async def wait_serving(self, model: str) -> None:
        """Until the model's worker is up: after a crash, until it was restarted."""
        await self._find(model).wait_serving()

    def worker_pid(self, model: str) -> int | None:
        """The process that runs a model, for people who look; None while it is down."""
        return self._find(model).worker_pid

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """As in `Engine`: from the speed of the last steps and the jobs before this one."""
        return self._find(model).estimate(input_tokens)

    def free_places(self, model: str) -> int:
        """As in `Engine`; 0 while the worker is down."""
        return self._find(model).free_places

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`. `emit` is called in the caller's task."""
        await self._find(spec.model).run_job(spec, emit)

    def _find(self, name: str) -> ServedModel:
        for model in self._models:
            if model.name == name:
                return model
        raise EngineError("engine.unknown_model", name)


def _same_file(first: ServedModel, second: ServedModel) -> bool:
    """Whether a file that nobody insists on is the one that is already served."""
    if first.file is None or second.file is None or second.source.required:
        return False
    return first.file.fingerprint == second.file.fingerprint
