"""The requester's book of standing offers: what may be awarded without an auction.

Bounded, newest per provider and model; what has expired is never shown. Pure but for the time
it is given. Rule: router/README.md, "Standing offers".
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, zip_longest

from protocol import limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.messages import Bid, Request, StandingOffer
from protocol.quantization import known
from protocol.units import NS_PER_S
from router.auction import ScoredBid
from router.quoting import bid_of

# Offers this close to the best score, in 1/1000, are as good: a hash chooses among them, so that
# not all requesters run to the same provider.
_AS_GOOD_MILLI = 50
# A model that was heard of so lately is sold, though nobody may have a free place now.
_LATELY_NS = 600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as the book knows it: how many sell it, and the range of prices and contexts, and in
    what quantisations, as they say."""

    model: str
    providers: int
    context_tokens: int
    input_price_ucr: int
    output_price_ucr: int
    quantizations: tuple[str, ...]


class OfferBook:
    """Fresh offers by model and provider, in the order in which they came."""

    def __init__(self) -> None:
        self._models: dict[str, dict[bytes, Signed]] = {}
        self._count = 0
        self._heard_ns: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def take(self, signed: Signed, now_ns: int) -> None:
        """Keep an offer that admission let through. RemoteError, not an offence:
        `envelope.stale` for an expired or older one, `admission.full`."""
        offer: StandingOffer = signed.message
        latest_ns = signed.sent_at_ns + limits.OFFER_LIFETIME_NS
        if not now_ns < offer.expires_at_ns <= latest_ns:
            raise RemoteError("envelope.stale", "not an offer's lifetime", penalize=False)
        known = self._models.get(offer.model, {}).get(signed.sender)
        if known is not None and known.sent_at_ns > signed.sent_at_ns:
            raise RemoteError("envelope.stale", "an older offer", penalize=False)
        if known is None and self._count >= limits.OFFERS_KEPT_MAX:
            self.expire(now_ns)
            if self._count >= limits.OFFERS_KEPT_MAX:
                raise RemoteError("admission.full", "offers", penalize=False)
        self.drop(signed.sender, offer.model)
        self._models.setdefault(offer.model, {})[signed.sender] = signed
        self._count += 1
        self.heard(offer.model, now_ns)

    def heard(self, model: str, now_ns: int) -> None:
        """Somebody offers a model, or bid on it; those of the longest unheard are forgotten."""
        self._heard_ns.pop(model, None)
        self._heard_ns[model] = now_ns
        if len(self._heard_ns) > limits.PRICED_MODELS_KEPT:
            del self._heard_ns[next(iter(self._heard_ns))]

    def is_unknown(self, model: str, now_ns: int) -> bool:
        """Whether models were heard of lately, and this one was not."""
        lately = {name for name, at_ns in self._heard_ns.items() if now_ns - at_ns <= _LATELY_NS}
        return bool(lately) and model not in lately and model not in self._models

    def drop(self, provider: bytes, model: str) -> None:
        """Not shown again until it is said anew: the provider did not keep it."""
        sellers = self._models.get(model, {})
        if sellers.pop(provider, None) is not None:
            self._count -= 1
            if not sellers:
                del self._models[model]

    def has_other(
        self, model: str, only: tuple[bytes, ...], excluded: list[bytes], now_ns: int
    ) -> bool:
        """Whether a model is on offer now by somebody not `excluded`, and of `only` if any."""
        return any(
            signed.message.expires_at_ns > now_ns
            and provider not in excluded
            and (not only or provider in only)
            for provider, signed in self._models.get(model, {}).items()
        )

    def context_tokens(self, provider: bytes, model: str) -> int:
        """The context that a provider offered of a model; 0 when it is not known."""
        signed = self._models.get(model, {}).get(provider)
        return signed.message.context_tokens if signed is not None else 0

    def sellers(self, model: str, now_ns: int) -> int:
        """How many others offer a model. The oldest offers come first: what ended goes."""
        offers = self._models.get(model, {})
        while offers and next(iter(offers.values())).message.expires_at_ns <= now_ns:
            self.drop(next(iter(offers)), model)
        return len(offers)

    def expire(self, now_ns: int) -> None:
        """Forget what has ended."""
        for model, sellers in list(self._models.items()):
            for provider, signed in list(sellers.items()):
                if signed.message.expires_at_ns <= now_ns:
                    self.drop(provider, model)

    def candidates(
        self, request: Signed, own: bytes, weigh: Callable[[Signed, Bid], tuple[ScoredBid, str]]
    ) -> list[ScoredBid]:
        """Offers that fit the request, best first; those that are as good, by a hash."""
        ask: Request = request.message
        fitting = []
        for provider, signed in self._models.get(ask.model, {}).items():
            offer: StandingOffer = signed.message
            if provider == own or ask.output_tokens_max >= offer.context_tokens:
                continue
            scored, code = weigh(signed, bid_of(offer, request))
            if not code and not scored.suspended:
                fitting.append(scored)
        fitting.sort(key=lambda scored: scored.order)
        if not fitting:
            return []
        best = fitting[0]
        limit = best.score + best.score * _AS_GOOD_MILLI // 1_000
        near = [one for one in fitting if one.place == best.place and one.score <= limit]
        return sorted(near, key=lambda scored: scored.tie) + fitting[len(near) :]

    def fresh(self, now_ns: int, most: int) -> list[bytes]:
        """Enveloped offers that last for a while yet, at most so many: of each model the first
        seller, then of each the second, and so on."""
        wanted_ns = now_ns + limits.OFFER_INTERVAL_NS
        models = [
            [
                signed.data
                for signed in sellers.values()
                if signed.message.expires_at_ns > wanted_ns
            ]
            for sellers in self._models.values()
        ]
        rounds = zip_longest(*models)
        return [data for told in islice(rounds, most) for data in told if data][:most]

    def listed(self, now_ns: int) -> list[Listed]:
        """Every model on fresh offer, by name, at its lowest prices."""
        listed = []
        for model in sorted(self._models):
            offers = [
                signed.message
                for signed in self._models[model].values()
                if signed.message.expires_at_ns > now_ns
            ]
            if offers:
                listed.append(
                    Listed(
                        model,
                        len(offers),
                        max(offer.context_tokens for offer in offers),
                        min(offer.input_price_ucr for offer in offers),
                        min(offer.output_price_ucr for offer in offers),
                        tuple(sorted({known(offer.quantization) for offer in offers})),
                    )
                )
        return listed
