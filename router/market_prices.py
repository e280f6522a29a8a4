"""Which prices were asked lately, so that one far over them is seen for what it is. Pure."""

from typing import Final

from protocol import limits
from protocol.units import NS_PER_S, cost_ucr

RECENT_NS: Final = 600 * NS_PER_S
# A median of fewer sellers says nothing.
SELLERS_MIN: Final = 4


class MarketPrices:
    """The last prices of each seller of each model, as bids and offers said them."""

    def __init__(self) -> None:
        self._models: dict[str, dict[bytes, tuple[int, int, int]]] = {}

    def saw(
        self, model: str, seller: bytes, input_price_ucr: int, output_price_ucr: int, now_ns: int
    ) -> None:
        """A bid or an offer at these prices; those of the longest unseen are forgotten."""
        sellers = self._models.pop(model, {})
        self._models[model] = sellers
        sellers.pop(seller, None)
        sellers[seller] = (input_price_ucr, output_price_ucr, now_ns)
        if len(sellers) > limits.SELLERS_KEPT:
            del sellers[next(iter(sellers))]
        if len(self._models) > limits.PRICED_MODELS_KEPT:
            del self._models[next(iter(self._models))]

    def median_ucr(self, model: str, input_tokens: int, output_tokens: int, now_ns: int) -> int:
        """The lower median of what such a job would have cost lately; 0 when too few sell it."""
        costs = self._costs(model, input_tokens, output_tokens, now_ns)
        return costs[(len(costs) - 1) // 2] if len(costs) >= SELLERS_MIN else 0

    def least_ucr(self, model: str, input_tokens: int, output_tokens: int, now_ns: int) -> int:
        """The least that such a job would have cost lately; 0 when nobody sold it."""
        return next(iter(self._costs(model, input_tokens, output_tokens, now_ns)), 0)

    def _costs(self, model: str, input_tokens: int, output_tokens: int, now_ns: int) -> list[int]:
        return sorted(
            cost_ucr(input_tokens, output_tokens, input_price, output_price)
            for input_price, output_price, at_ns in self._models.get(model, {}).values()
            if now_ns - at_ns <= RECENT_NS
        )
