"""A model's file and what is known of it: facts, self-test, speed, time to load.

Reads the file and the notes, and keeps the notes. Must not know workers.
Rule: engine/README.md.
"""

from dataclasses import replace
from functools import partial

import trio

from engine.catalogue import ModelFile, ModelSource, bad_model, fingerprint, read_model
from engine.frames import Speed
from engine.lora import AdapterFile, AdapterSource, read_adapter
from engine.notes import ModelNotes, Trial, failed_trial, passed_trial
from engine.settings import LlamaSettings
from engine.speed import load_ns
from protocol import limits
from protocol.errors import EngineError


class KnownModel:
    """One source; `read` it first. `speed` is the last one measured."""

    def __init__(self, source: ModelSource, settings: LlamaSettings, notes: ModelNotes) -> None:
        self.source = source
        self.settings = settings
        self.speed = Speed(0, ())
        self.is_proven = False
        self._notes = notes
        self._file: ModelFile | None = None
        self._wanted: list[AdapterSource] = []
        self.adapters: tuple[AdapterFile, ...] = ()
        self._measured_load_ns = 0

    @property
    def file(self) -> ModelFile:
        """The file as it was read."""
        assert self._file is not None
        return self._file

    @property
    def name(self) -> str:
        """What requests ask for."""
        return self.file.info.name

    @property
    def context_tokens(self) -> int:
        """The context of one place, as the worker is told."""
        return self.settings.context_of(self.file.info.context_tokens)

    @property
    def load_ns(self) -> int:
        """How long loading takes: as measured, or by the file's size."""
        return load_ns(self._measured_load_ns, self.file.info.size_bytes)

    async def read(self) -> None:
        """Read the file, unless it is the one that was read. EngineError `engine.bad_model`.

        It is proven when a self-test under the same conditions has passed, perhaps in an
        earlier run.
        """
        await self._read_adapters()
        path = self.source.path
        if self._file is not None and self._file.fingerprint == fingerprint(path):
            return
        read = partial(read_model, name=self.source.name, digest=self._notes.digest)
        file = await trio.to_thread.run_sync(read, path)
        self._file = replace(file, adapter_bytes=self._adapter_bytes)
        trial = self._notes.trial(self._file.fingerprint)
        if trial is not None and trial.passed and trial.conditions == self.settings.conditions():
            self.is_proven = True
            self.speed = Speed(trial.prefill_ns, trial.step_ns)
            self._measured_load_ns = trial.load_ns

    async def add_adapter(self, source: AdapterSource) -> None:
        """Load this one beside the model, which was read. EngineError `engine.bad_model`."""
        if any(other.name == source.name for other in self._wanted):
            raise bad_model(source.path, f"two adapters are named {source.offered}")
        if len(self._wanted) == limits.ENGINE_ADAPTERS_MAX:
            raise bad_model(source.path, f"over {limits.ENGINE_ADAPTERS_MAX} adapters of a model")
        self._wanted.append(source)
        await self._read_adapters()

    async def _read_adapters(self) -> None:
        """Those that were not read, or have changed since."""
        known = {(file.source, file.fingerprint): file for file in self.adapters}
        found = []
        for source in self._wanted:
            file = known.get((source, fingerprint(source.path)))
            if file is None:
                read = partial(read_adapter, source, self._notes.digest)
                file = await trio.to_thread.run_sync(read)
            found.append(file)
        self.adapters = tuple(found)
        if self._file is not None:
            self._file = replace(self._file, adapter_bytes=self._adapter_bytes)

    @property
    def _adapter_bytes(self) -> int:
        return sum(file.fingerprint[2] for file in self.adapters)

    async def note_passed(self, speed: Speed, measured_load_ns: int) -> None:
        """It was loaded, and with that tested."""
        self.is_proven = True
        self._measured_load_ns = measured_load_ns
        await self.note_speed(speed)

    async def note_speed(self, speed: Speed) -> None:
        """It works, this fast."""
        self.speed = speed
        conditions, load_ns = self.settings.conditions(), self._measured_load_ns
        await self._note(passed_trial(conditions, load_ns, speed.prefill_ns, speed.step_ns))

    async def note_failed(self, error: EngineError) -> None:
        """It could not be loaded; a file that can't even be read is not worth a note."""
        if self._file is not None:
            why = f"{error.code} {error.detail}"
            await self._note(failed_trial(self.settings.conditions(), why))

    async def _note(self, trial: Trial) -> None:
        record = partial(self._notes.record, self.file.fingerprint, self.file.info.digest, trial)
        await trio.to_thread.run_sync(record)
