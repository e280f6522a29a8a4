"""A circuit breaker a provider: who failed several times in a row waits, then gets one job.

Kept in memory: after a restart everybody is tried again. A suspended provider is not refused,
it comes last, so an only seller stays reachable. Pure. Rule: router/README.md, "Choosing".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol import limits
from protocol.fields import Outcome
from protocol.machine import apply
from protocol.units import NS_PER_S

FAILURES_IN_A_ROW: Final = 3
PAUSE_NS: Final = 30 * NS_PER_S
# Doubled at each failed probe, up to this.
PAUSE_NS_MAX: Final = 600 * NS_PER_S


class BreakerState(Enum):
    """OPEN keeps jobs away; HALF_OPEN would take one; PROBING has it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    PROBING = "probing"


class BreakerEvent(Enum):
    """What can happen to a provider's breaker."""

    TRIP = "trip"
    COOL = "cool"
    AWARD = "award"
    PASS = "pass"
    NOTHING = "nothing"


_S, _E = BreakerState, BreakerEvent

# COOL is looked for in OPEN alone; the rest may come of jobs that were awarded at any time.
BREAKER_TRANSITIONS: Final[dict[tuple[BreakerState, BreakerEvent], BreakerState]] = {
    **{(state, _E.TRIP): _S.OPEN for state in BreakerState},
    **{(state, _E.PASS): _S.CLOSED for state in BreakerState},
    (_S.OPEN, _E.COOL): _S.HALF_OPEN,
    (_S.CLOSED, _E.AWARD): _S.CLOSED,
    (_S.OPEN, _E.AWARD): _S.OPEN,
    (_S.HALF_OPEN, _E.AWARD): _S.PROBING,
    (_S.PROBING, _E.AWARD): _S.PROBING,
    (_S.CLOSED, _E.NOTHING): _S.CLOSED,
    (_S.OPEN, _E.NOTHING): _S.OPEN,
    (_S.HALF_OPEN, _E.NOTHING): _S.HALF_OPEN,
    (_S.PROBING, _E.NOTHING): _S.HALF_OPEN,
}

_FAILURES: Final = (Outcome.FAILED, Outcome.LIED, Outcome.UNREACHED)


@dataclass(slots=True)
class Breaker:
    """One provider that failed last."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    pause_ns: int = PAUSE_NS
    until_ns: int = 0

    def step(self, event: BreakerEvent) -> None:
        """Move by the table."""
        self.state = apply(BREAKER_TRANSITIONS, self.state, event, "session.protocol")

    def failed(self, now_ns: int) -> None:
        """Count a failure; open after several in a row, or when the probe failed."""
        self.failures += 1
        probed = self.state is not BreakerState.CLOSED
        if probed or self.failures >= FAILURES_IN_A_ROW:
            self.until_ns = now_ns + self.pause_ns
            self.pause_ns = min(PAUSE_NS_MAX, 2 * self.pause_ns)
            self.step(BreakerEvent.TRIP)


class Breakers:
    """Of the providers whose last job failed, at most BREAKERS_KEPT."""

    def __init__(self) -> None:
        self._by_provider: dict[bytes, Breaker] = {}

    def __len__(self) -> int:
        return len(self._by_provider)

    def suspended(self, provider: bytes, now_ns: int) -> bool:
        """Whether a provider should get no job now, if another can be had."""
        breaker = self._by_provider.get(provider)
        if breaker is None:
            return False
        if breaker.state is BreakerState.OPEN and now_ns >= breaker.until_ns:
            breaker.step(BreakerEvent.COOL)
        return breaker.state in (BreakerState.OPEN, BreakerState.PROBING)

    def awarded(self, provider: bytes) -> None:
        """A job goes there."""
        if breaker := self._by_provider.get(provider):
            breaker.step(BreakerEvent.AWARD)

    def ended(self, provider: bytes, outcome: Outcome, now_ns: int) -> None:
        """A job there ended so."""
        breaker = self._by_provider.get(provider)
        if outcome is Outcome.DELIVERED:
            self._by_provider.pop(provider, None)
        elif outcome in _FAILURES:
            if breaker is None:
                breaker = self._by_provider[provider] = Breaker()
                if len(self._by_provider) > limits.BREAKERS_KEPT:
                    del self._by_provider[next(iter(self._by_provider))]
            breaker.failed(now_ns)
        elif breaker is not None:
            breaker.step(BreakerEvent.NOTHING)
