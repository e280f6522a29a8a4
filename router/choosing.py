"""What a requester wants beyond what its request says: its strategy by name, its own filters.

None of it goes over the wire: providers see the price and latency weights alone. Pure.
Rule: router/README.md, "Choosing".
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol import limits
from protocol.errors import LocalError
from protocol.fields import Strategy

WEIGHTS_SUM: Final = 1_000


class StrategyName(Enum):
    """How the best bid is found."""

    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    REPUTABLE = "reputable"
    WEIGHTED = "weighted"
    RACE = "race"


@dataclass(frozen=True, slots=True)
class Choice:
    """The requester's own part of ranking and filters. Scores are 0 to 1000.

    `reputation_weight` is in 1/1000 of the whole; price and latency share the rest by the
    request's Strategy. `market_factor_milli` refuses what costs more than so many thousandths of
    the recent median, 0 for off. `quote` asks for bids and awards none. `race` awards run at
    once until one brings text. A second one starts when the first is later than
    `hedge_factor_milli` thousandths of its promise (0: never), `hedge_floor_ns` at least.
    `elsewhere` lets another provider go on where one broke off, `fallbacks` be tried where one
    failed before its first text. `quantizations`, of protocol.quantization, are those that a
    provider has to state one of; empty for any. `strategy` is for the log, which has the name.
    """

    reputation_weight: int = 0
    reputation_min: int = 0
    completed_min: int = 0
    market_factor_milli: int = 0
    quote: bool = False
    race: int = 1
    hedge_factor_milli: int = 0
    hedge_floor_ns: int = limits.HEDGE_FLOOR_NS
    elsewhere: bool = True
    fallbacks: bool = True
    quantizations: tuple[str, ...] = ()
    strategy: StrategyName = StrategyName.WEIGHTED

    @property
    def awards_max(self) -> int:
        """How many awards its offers, or one auction, may lead to: the first ones, the retries."""
        return self.race + (limits.AWARDS_PER_REQUEST_MAX - 1 if self.fallbacks else 0)


@dataclass(frozen=True, slots=True)
class RequesterSettings:
    """What holds for all requests of a node: ucr that a UTC day may cost (0: no cap), how many
    requests can be explained afterwards, and whether others are told what auctions came to."""

    day_max_ucr: int = 0
    explanations: int = limits.EXPLANATIONS_KEPT
    tell_clearing: bool = False


def weights(name: str, price_weight: int, reputation_weight: int) -> tuple[Strategy, int]:
    """The request's Strategy, and the weight of reputation. LocalError `request.invalid`.

    The weights given count for `weighted` and `race` alone, latency having what is left of 1000.
    """
    match StrategyName(name):
        case StrategyName.CHEAPEST:
            return Strategy(WEIGHTS_SUM, 0), 0
        case StrategyName.FASTEST:
            return Strategy(0, WEIGHTS_SUM), 0
        case StrategyName.REPUTABLE:
            return Strategy(WEIGHTS_SUM // 2, WEIGHTS_SUM // 2), WEIGHTS_SUM
    rest = WEIGHTS_SUM - reputation_weight
    if price_weight > rest:
        raise LocalError("request.invalid", "the weights of price and reputation are over 1000")
    price = price_weight * WEIGHTS_SUM // rest if rest else WEIGHTS_SUM // 2
    return Strategy(price, WEIGHTS_SUM - price), reputation_weight
