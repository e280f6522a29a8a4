"""What a provider charges, by its policy: fixed, cost-plus, load-based, undercutting.

A seller sees what a real one sees: its own costs, load, bids and awards, never others' bids.
"""

from hashlib import blake2b
from typing import Final

from protocol.units import NS_PER_S
from router.actions import ModelOffer
from simnet.market.inference import Machine
from simnet.scenario.market import Model, Providers

TOKENS_PER_PRICE: Final = 1_000_000
SECONDS_PER_HOUR: Final = 3_600
# An offer is made anew when a promise or price moved by this part.
STIR: Final = 20


class Seller:
    """One provider's prices and promises. `spread_permille` is its own place in the spread."""

    __slots__ = (
        "_digests",
        "_lost",
        "_offers",
        "factor_permille",
        "group",
        "machine",
        "models",
        "spread_permille",
    )

    def __init__(
        self,
        group: Providers,
        machine: Machine,
        models: tuple[Model, ...],
        spread_permille: int,
    ) -> None:
        self.group = group
        self.machine = machine
        self.models = models
        self._digests = tuple(
            blake2b(model.name.encode(), digest_size=32).digest() for model in models
        )
        self.spread_permille = spread_permille
        self.factor_permille = group.price_permille
        self._lost = 0  # bids in a row that nobody took
        self._offers: tuple[ModelOffer, ...] = ()

    # --- prices ----------------------------------------------------------------------------

    def cost_ucr(self, model: Model, *, output: bool) -> int:
        """What 1,000,000 tokens cost the owner when the machine is full."""
        machine, gpu = self.machine, self.machine.gpu
        if output:
            token_ns = machine.decode_ns(model, gpu.places) // gpu.places
        else:
            token_ns = machine.prefill_ns(model)
        per_hour = gpu.cost_ucr_per_hour
        return per_hour * token_ns * TOKENS_PER_PRICE // (SECONDS_PER_HOUR * NS_PER_S)

    def price_ucr(self, model: Model, *, output: bool) -> int:
        """The price of 1,000,000 tokens now."""
        group = self.group
        usual = model.output_price_ucr if output else model.input_price_ucr
        price = usual * self.factor_permille * self.spread_permille // 1_000_000
        if group.pricing == "cost-plus":
            price = self.cost_ucr(model, output=output) * (1_000 + group.margin_permille) // 1_000
        elif group.pricing == "load-based":
            load = self.machine.running * 1_000 // self.machine.gpu.places
            price += price * group.load_permille * load // 1_000_000
        elif group.pricing == "undercutting":
            price = max(price, self.cost_ucr(model, output=output))
        return max(1, price)

    def offer(self, model: Model, digest: bytes) -> ModelOffer:
        """What it promises for a model now."""
        machine = self.machine
        decode_ns = machine.decode_ns(model, machine.running + 1)
        return ModelOffer(
            name=model.name,
            digest=digest,
            context_tokens=model.context_tokens,
            input_price_ucr=self.price_ucr(model, output=False),
            output_price_ucr=self.price_ucr(model, output=True),
            ttft_ns=machine.gpu.overhead_ms * 1_000_000 + machine.queue_ns(),
            ttft_ns_per_input_token=machine.prefill_ns(model),
            tokens_per_s_milli=max(1, 1_000 * NS_PER_S // max(1, decode_ns)),
            places=machine.gpu.places,
        )

    def offers(self) -> tuple[ModelOffer, ...] | None:
        """What it promises now; None when that is what it promised before, or nearly."""
        offers = tuple(map(self.offer, self.models, self._digests))
        same = len(offers) == len(self._offers) and all(map(_near, offers, self._offers))
        if same:
            return None
        self._offers = offers
        return offers

    def forget_offers(self) -> None:
        """The node has started anew and knows nothing."""
        self._offers = ()

    # --- what it learns --------------------------------------------------------------------

    def bid(self, request_id: bytes) -> bool:
        """Whether it bids on a request; a bid is lost until it is won.

        With `bid_permille` a hash of request and bidder chooses, which neither can bend.
        """
        group = self.group
        lot = blake2b(request_id, key=self.machine.peer.signer.public_key, digest_size=8).digest()
        if int.from_bytes(lot, "big") % 1_000 >= group.bid_permille:
            return False
        self._lost += 1
        if group.pricing == "undercutting" and self._lost >= group.undercut_bids:
            self._lost = 0
            self.factor_permille -= self.factor_permille * group.undercut_permille // 1_000
            self.factor_permille = max(1, self.factor_permille)
        return True

    def won(self) -> None:
        """A bid was taken: half a step dearer."""
        self._lost = 0
        if self.group.pricing == "undercutting":
            step = self.factor_permille * self.group.undercut_permille // 2_000
            self.factor_permille += max(1, step)


def _near(one: ModelOffer, other: ModelOffer) -> bool:
    pairs = (
        (one.input_price_ucr, other.input_price_ucr),
        (one.output_price_ucr, other.output_price_ucr),
        (one.ttft_ns, other.ttft_ns),
        (one.tokens_per_s_milli, other.tokens_per_s_milli),
    )
    return all(abs(new - old) * STIR <= old for new, old in pairs)
