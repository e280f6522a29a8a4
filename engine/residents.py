"""Which models are loaded: those that jobs ask for, within the memory that the operator gives.

Must not know llama.cpp, the market or the network. Rule: engine/README.md, "Models and memory".
"""

from collections.abc import Sequence

import structlog
import trio

from engine.memory import make_room
from engine.served import ServedModel
from engine.settings import LlamaSettings
from engine.stage import Stage
from protocol.errors import EngineError

log = structlog.get_logger("engine")


class Residents:
    """Decides over `models`, a list that its owner may change."""

    def __init__(self, models: Sequence[ServedModel], settings: LlamaSettings) -> None:
        self._models = models
        self._settings = settings
        # Loads happen one after another: they share a disk, and each decides who must go.
        self._loading = trio.Lock()

    def room_for(self, model: ServedModel, *, planned: bool = False) -> list[int] | None:
        """Which models (by index) must go for this one; None when it has to wait.

        With `planned`, models that jobs wait for count as if they were there.
        """
        occupants = []
        for key, other in enumerate(self._models):
            occupant = other.occupant(key, planned=planned)
            if other is not model and occupant is not None:
                occupants.append(occupant)
        return make_room(model.needed_bytes, self._settings.memory_bytes(), occupants)

    async def bring_up(self, model: ServedModel) -> None:
        """Until a model serves, with room made for it.

        EngineError: `engine.no_room` when it never fits, `engine.overloaded` when the others
        that have the room are at work, or why it can't be loaded.
        """
        async with self._loading:
            if model.life.loaded is not None:
                return
            if model.life.is_leaving:
                # Whoever wanted its room was cancelled in between.
                await model.life.wait_cold()
            if model.life.is_recovering:
                raise EngineError("engine.crashed", "the worker is being restarted")
            if model.life.stage is Stage.COLD:
                self._check_fits(model)
                leaving = self.room_for(model)
                if leaving is None:
                    raise EngineError(
                        "engine.overloaded", "no memory until other models' jobs end"
                    )
                others = [self._models[key] for key in leaving]
                for other in others:
                    other.life.unload_nowait()
                    log.info("engine.unloaded", model=other.name, room_for=model.name)
                for other in others:
                    await other.life.wait_cold()
            await model.life.load()

    def _check_fits(self, model: ServedModel) -> None:
        budget = self._settings.memory_mib
        needed_mib = -(-model.needed_bytes // 2**20)
        if budget and needed_mib > budget:
            raise EngineError(
                "engine.no_room", f"{model.name} needs about {needed_mib} MiB of {budget}"
            )

    def is_offered(self, model: ServedModel) -> bool:
        """Whether a job that arrives now would be served, and in time."""
        if model.info is None:
            return False
        if model.life.loaded is not None or model.life.stage is Stage.LOADING:
            return True
        return model.loads_in_time and self.room_for(model, planned=True) is not None

    def load_ns(self, model: ServedModel) -> int:
        """How long until a job of this model could start, for want of the model."""
        load_ns = model.load_left_ns
        if load_ns:
            others = (other for other in self._models if other is not model)
            load_ns += sum(other.load_left_ns for other in others if other.is_waited_for)
        return load_ns
