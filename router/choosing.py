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
from protocol.units import format_credits

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
    provider has to state one of; empty for any. Providers in `order` rank before all others, the
    first of them first. A price of 1,000,000 tokens may be `input_price_max_ucr` and
    `output_price_max_ucr`; None for any. `strategy` is for the log, which has the name.
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
    order: tuple[bytes, ...] = ()
    input_price_max_ucr: int | None = None
    output_price_max_ucr: int | None = None
    strategy: StrategyName = StrategyName.WEIGHTED

    @property
    def awards_max(self) -> int:
        """How many awards its offers, or one auction, may lead to: the first ones, the retries."""
        return self.race + (limits.AWARDS_PER_REQUEST_MAX - 1 if self.fallbacks else 0)

    def place(self, provider: bytes) -> int:
        """The provider's place in `order`, from 0; all others have the one after the last."""
        return self.order.index(provider) if provider in self.order else len(self.order)

    def over_price(self, input_price_ucr: int, output_price_ucr: int) -> str:
        """Which of the prices is over its cap, and by how much; "" for none."""
        sides = (
            ("input", input_price_ucr, self.input_price_max_ucr),
            ("output", output_price_ucr, self.output_price_max_ucr),
        )
        for side, price_ucr, most_ucr in sides:
            if most_ucr is not None and price_ucr > most_ucr:
                asked, most = format_credits(price_ucr), format_credits(most_ucr)
                return f"{asked} credits per 1,000,000 {side} tokens, at most {most} wanted"
        return ""


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
