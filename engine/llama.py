"""The engine that runs models with llama.cpp, each in its own worker process.

Must not know llama.cpp itself, the market or the network. Rule: engine/README.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import trio

from engine.catalogue import ModelSource
from engine.embed_job import EmbedJob
from engine.interface import (
    Embedding,
    EmbedSpec,
    EngineEvent,
    Estimate,
    JobSpec,
    ModelHealth,
    ModelInfo,
    RecheckReport,
)
from engine.job import Job, check_spec
from engine.life import DeviceLine
from engine.lora import AdapterSource
from engine.notes import ModelNotes
from engine.queue import Priority
from engine.residents import Residents
from engine.served import ServedModel
from engine.settings import LlamaSettings
from engine.task import TaskStatus
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import GenerationParameters, Prompt
from protocol.units import milliseconds

log = structlog.get_logger("engine")


class LlamaEngine:
    """Serves the GGUF files of `sources`, all with the same settings. Start `run` first.

    A bare path is a required source. `notes` remember what is slow to find out. A model with
    `adapters` is required, too.
    """

    def __init__(
        self,
        sources: Sequence[Path | ModelSource],
        settings: LlamaSettings | None = None,
        notes: ModelNotes | None = None,
        adapters: Sequence[AdapterSource] = (),
    ) -> None:
        self._adapters = tuple(adapters)
        self._settings = settings or LlamaSettings()
        notes = notes or ModelNotes()
        device_line = DeviceLine()
        self._models = [
            ServedModel(
                source if isinstance(source, ModelSource) else ModelSource(source),
                self._settings,
                notes,
                device_line,
            )
            for source in sources
        ]
        self._skipped: list[ModelHealth] = []
        self._is_draining = False
        self._residents = Residents(self._models, self._settings)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once every model is loaded or proven.

        Required models are loaded. Others are tested, unless they have passed before, and
        loaded when a job asks for them. A file that can't be served is one warning and left
        out, or, when it is required, an EngineError before this has started:
        `engine.bad_model`, `engine.no_room`, or `engine.timeout` when it takes too long to load.
        """
        await self._read()
        failure: EngineError | None = None
        async with trio.open_nursery() as nursery:
            for model in self._models:
                nursery.start_soon(model.life.run)
            try:
                await self._start_all()
                task_status.started()
            except EngineError as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read(self) -> None:
        """Read every file; the first of a name is served, required ones before the others."""
        self._models.sort(key=lambda model: not model.source.required)
        named: dict[str, ServedModel] = {}
        for model in list(self._models):
            try:
                await model.known.read()
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
                self._skip(model, error)
        for adapter in self._adapters:
            changed = [model for model in self._models if model.name == adapter.model]
            if not changed:
                detail = f"{adapter.path}: there is no model {adapter.model} for this adapter"
                raise EngineError("engine.bad_model", detail)
            changed[0].source = replace(changed[0].source, required=True)
            await changed[0].known.add_adapter(adapter)

    async def _start_all(self) -> None:
        for model in list(self._models):
            required = model.source.required
            if model.known.is_proven and not required:
                continue
            try:
                await self._residents.bring_up(model)
            except EngineError as error:
                self._skip(model, error)
                continue
            if not required:
                model.life.unload_nowait()
                await model.life.wait_cold()
                if not model.loads_in_time:
                    log.warning(
                        "engine.slow_to_load",
                        model=model.name,
                        load_ms=milliseconds(model.known.load_ns),
                        meaning="not offered: requesters would not wait; name it with --model",
                    )
        for model in self._models:
            # A test may have taken the room of one that was there.
            if (
                model.source.required
                and not model.life.loaded
                and self._residents.room_for(model) == []
            ):
                await self._residents.bring_up(model)

    def _skip(self, model: ServedModel, error: EngineError) -> None:
        if model.source.required:
            raise error
        self._models.remove(model)
        path = str(model.source.path)
        self._skipped.append(ModelHealth(model.source.name, path, "skipped", 0, 0, 0, str(error)))
        log.warning("engine.skipped", code=error.code, reason=error.detail)

    # --- the interface ---------------------------------------------------------------------

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that are loaded, and those that a job would have loaded in time."""
        if self._is_draining:
            return ()
        offered = (model for model in self._models if self._residents.is_offered(model))
        return tuple(info for model in offered for info in model.infos)

    async def wait_serving(self, model: str) -> None:
        """Until the model's worker is up: after a crash, until it was restarted."""
        await self._find(model).life.wait_serving()

    def worker_pid(self, model: str) -> int | None:
        """The process that runs a model, for people who look; None while it has none."""
        loaded = self._find(model).life.loaded
        return loaded.pid if loaded else None

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """As in `Engine`: from the speed of the last steps and the jobs before this one.

        For a model that is not loaded, the time to load it and those before it counts too.
        """
        found = self._find(model)
        promise, load_ns = found.estimate(input_tokens), self._residents.load_ns(found)
        return Estimate(
            promise.ttft_ns + load_ns, promise.tokens_per_s_milli, promise.wait_ns + load_ns
        )

    def free_places(self, model: str) -> int:
        """As in `Engine`; 0 while the model is not offered."""
        found = self._find(model)
        return found.free_places if self._residents.is_offered(found) else 0

    def queue_room(self, model: str) -> int:
        """As in `Engine`; 0 while the model is not offered."""
        found = self._find(model)
        return found.queue_room if self._residents.is_offered(found) else 0

    async def note_speed(self, model: str) -> None:
        """Remember the speed of the last steps for the next start."""
        found = self._find(model)
        if found.life.loaded is not None:
            await found.known.note_speed(found.life.loaded.speed)

    def health(self) -> tuple[ModelHealth, ...]:
        """As in `Engine`; reads the memory of the workers from the system."""
        return (*(model.health() for model in self._models), *self._skipped)

    async def drain(self) -> None:
        """Take no more jobs, and wait until those that were taken are over."""
        self._is_draining = True
        for model in self._models:
            await model.wait_unclaimed()

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`; loads the model first where it has to."""
        model = self._find_open(spec.model)
        check_spec(spec)
        job = Job(spec, adapter=model.adapter_of(spec.model) or 0)
        with model.claim(job, load_ns=self._residents.load_ns(model)):
            await self._wait_turn(model, job)
            await model.run_job(job, emit)

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """As in `Engine`: takes a place like a job, and more while they are free."""
        model = self._find_open(spec.model)
        job = EmbedJob(spec, model.adapter_of(spec.model) or 0)
        with model.claim(job, load_ns=self._residents.load_ns(model)):
            await self._wait_turn(model, job)
            return await job.result()

    async def _wait_turn(self, model: ServedModel, job: Job) -> None:
        with job.in_time():
            if model.life.loaded is None:
                await self._residents.bring_up(model)
            await job.wait_given()

    async def recheck(
        self,
        model: str,
        prompt: Prompt,
        parameters: GenerationParameters,
        token_ids: Sequence[int],
    ) -> RecheckReport:
        """As in `Rechecker`: takes a place like a job, for a fraction of its time."""
        found = self._find_open(model)
        spec = JobSpec(b"", model, prompt, parameters, priority=Priority.BATCH)
        check_spec(spec)
        job = Job(spec, tuple(token_ids), found.adapter_of(model) or 0)
        with found.claim(job):
            await self._wait_turn(found, job)
            return await found.recheck(job, token_ids)

    def _find_open(self, name: str) -> ServedModel:
        """The model for a new job."""
        found = self._find(name)
        if self._is_draining:
            raise EngineError("engine.draining")
        return found

    def _find(self, name: str) -> ServedModel:
        for model in self._models:
            if model.adapter_of(name) is not None:
                return model
        raise EngineError("engine.unknown_model", str(name)[: limits.MODEL_NAME_CHARS_MAX])


def _same_file(first: ServedModel, second: ServedModel) -> bool:
    """Whether a file that nobody insists on is the one that is already served."""
    same = first.known.file.fingerprint == second.known.file.fingerprint
    return same and not second.source.required
