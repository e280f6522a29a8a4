"""Places for jobs, whoever pays for them: awarded lanes and cheques stand in the same queue."""

from typing import Protocol

from protocol import limits
from protocol.errors import RemoteError
from router.actions import ModelOffer
from router.quoting import check_room


class Runner(Protocol):
    """What has jobs at the engine."""

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        ...

    def running_of(self, model: str, payer: bytes | None = None) -> int:
        """Jobs of one model that have not ended: all, or those of one payer."""
        ...


class Rooms:
    """The engine's places over all that takes them."""

    def __init__(self, *runners: Runner) -> None:
        self._runners = runners

    @property
    def running(self) -> int:
        """Jobs that have not ended, whoever pays."""
        return sum(runner.running for runner in self._runners)

    def _running_of(self, model: str, payer: bytes | None = None) -> int:
        return sum(runner.running_of(model, payer) for runner in self._runners)

    def free(self, offer: ModelOffer) -> int:
        """Jobs of this model that would start at once."""
        free = offer.places - self._running_of(offer.name)
        return min(free, limits.JOBS_RUNNING_MAX - self.running)

    def check(self, offer: ModelOffer, payer: bytes) -> None:
        """RemoteError `provider.busy`, no offence, when a job of this payer could neither start
        nor wait."""
        running = self.running
        if running >= limits.JOBS_RUNNING_MAX:
            raise RemoteError("provider.busy", f"{running} jobs", penalize=False)
        of_model = self._running_of(offer.name)
        check_room(offer, running=of_model, own=self._running_of(offer.name, payer))
