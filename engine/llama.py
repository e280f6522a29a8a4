"""The engine that runs models with llama.cpp, each in its own worker process.

Must not know llama.cpp itself, the market or the network. Rule: engine/README.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from engine.interface import EngineEvent, Estimate, JobSpec, ModelInfo
from engine.served import ServedModel
from engine.settings import LlamaSettings
from engine.task import TaskStatus
from protocol.errors import EngineError


class LlamaEngine:
    """Serves the GGUF files at `paths`, all with the same settings. Start `run` first."""

    def __init__(self, paths: Sequence[Path], settings: LlamaSettings | None = None) -> None:
        settings = settings or LlamaSettings()
        self._models = [ServedModel(path, settings) for path in paths]

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load every model and keep its worker alive until cancelled; started once all serve.

        A worker that dies later is restarted. EngineError before it has started:
        `engine.bad_model` for a file that can't be served, `engine.timeout` for one that
        takes too long to load.
        """
        for model in self._models:
            await model.read()
        names = [model.name for model in self._models]
        for name in names:
            if names.count(name) > 1:
                raise EngineError("engine.bad_model", f"two files offer a model named {name}")
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:
            for model in self._models:
                failure = await nursery.start(model.run)
                if failure is not None:
                    nursery.cancel_scope.cancel()
                    break
            else:
                task_status.started()
        if failure is not None:
            raise failure

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
