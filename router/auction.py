"""Which bid wins: scores in integers by the weights that the request committed to.

Scores are normalised by the request's own price cap and time budget, so a bid's score does
not depend on who else bids; ties fall to the cheaper, the faster, then by hash. Pure.
Rule: protocol/README.md, "Ranking".
"""

from dataclasses import dataclass
from itertools import takewhile

from protocol import crypto, limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.messages import Bid, Clearing, Request
from protocol.units import cost_ucr, format_credits
from router.counting import AS_OTHERS, MILLI, Counts

SCORE_UNIT = 1_000_000
NS_MILLI_TOKENS = 10**12  # tokens_per_s_milli counts tokens in 1,000 s = 10^12 ns


@dataclass(frozen=True, slots=True)
class ScoredBid:
    """A verified bid with what it would cost and take at worst; a lower score is better.

    `effective_ucr` is what it would cost if it counted tokens as others do: the price by the text.
    """

    signed: Signed
    bid: Bid
    cost_max_ucr: int
    latency_ns: int
    score: int
    tie: bytes
    effective_ucr: int
    counts: Counts = AS_OTHERS
    reputation: int = 0
    suspended: bool = False
    place: int = 0  # in the order that its requester wants providers tried in

    @property
    def order(self) -> tuple[bool, int, int, int, int, int, bytes]:
        """What bids are sorted by: where rounding makes scores equal, cheaper, then faster."""
        costs = (self.effective_ucr, self.latency_ns, -self.reputation)
        return self.suspended, self.place, self.score, *costs, self.tie


def expected_latency_ns(bid: Bid | Clearing, output_tokens: int) -> int:
    """Promised time to the last of `output_tokens`, in ns."""
    return bid.ttft_ns + output_tokens * NS_MILLI_TOKENS // bid.tokens_per_s_milli


def patience_ns(bid: Bid) -> int:
    """How long a requester waits for the first chunk: it is held to the bid's promise."""
    late_ns = limits.FIRST_CHUNK_LATENESS * bid.ttft_ns
    return min(limits.CHUNK_TIMEOUT_NS, max(limits.FIRST_CHUNK_TIMEOUT_NS, late_ns))


def score_bid(request: Signed, signed: Signed) -> ScoredBid:
    """Score a bid against its request (both verified)."""
    return score(request, signed, signed.message)


def score(request: Signed, signed: Signed, bid: Bid, counts: Counts = AS_OTHERS) -> ScoredBid:
    """Score `bid`, which is what `signed` says or follows from it, against its request, of a
    provider that counts tokens as `counts` says."""
    ask: Request = request.message
    effective, latency, points = measure(request, bid, counts)
    cost = effective
    if counts is not AS_OTHERS:
        sizes = (ask.input_tokens_max, ask.output_tokens_max)
        cost = cost_ucr(*sizes, bid.input_price_ucr, bid.output_price_ucr)
        latency = expected_latency_ns(bid, ask.output_tokens_max)
    tie = crypto.digest(request.digest, signed.sender)
    return ScoredBid(signed, bid, cost, latency, points, tie, effective, counts)


def measure(
    request: Signed, bid: Bid | Clearing, counts: Counts = AS_OTHERS
) -> tuple[int, int, int]:
    """What `bid` would cost (ucr) and take (ns) at worst on a request, and its points: fewer
    are better. Who counts more tokens for the same text costs and takes so much more."""
    ask: Request = request.message
    read = ask.input_tokens_max * counts.input_milli // MILLI
    made = ask.output_tokens_max * counts.output_milli // MILLI
    cost = cost_ucr(read, made, bid.input_price_ucr, bid.output_price_ucr)
    latency = expected_latency_ns(bid, made)
    budget_ns = max(1, ask.deadline_ns - request.sent_at_ns)
    price_part = ask.strategy.price_weight * cost * SCORE_UNIT // max(1, ask.price_max_ucr)
    latency_part = ask.strategy.latency_weight * latency * SCORE_UNIT // budget_ns
    return cost, latency, price_part + latency_part


def told_points(request: Signed, told: Clearing) -> int:
    """The points that a told bid would have on a request; reading takes it in proportion."""
    ask: Request = request.message
    late_ns = told.ttft_ns * ask.input_tokens_max // told.input_tokens_max - told.ttft_ns
    budget_ns = max(1, ask.deadline_ns - request.sent_at_ns)
    return (
        measure(request, told)[2] + ask.strategy.latency_weight * late_ns * SCORE_UNIT // budget_ns
    )


def check_bid(request: Signed, scored: ScoredBid, now_ns: int) -> None:
    """RemoteError when the bid can't be taken: `request.price_too_low`, `bid.unacceptable`,
    `bid.too_slow`.

    None of these is an offence.
    """
    ask: Request = request.message
    bid, provider = scored.bid, scored.signed.sender
    filters = ask.filters
    if filters.providers_only and provider not in filters.providers_only:
        raise RemoteError("bid.unacceptable", "provider not asked for", penalize=False)
    if provider in filters.providers_ignored:
        raise RemoteError("bid.unacceptable", "provider ignored", penalize=False)
    if filters.model_digest and bid.model_digest != filters.model_digest:
        raise RemoteError("bid.unacceptable", "another model file", penalize=False)
    if bid.expires_at_ns <= now_ns:
        raise RemoteError("bid.unacceptable", "expired", penalize=False)
    if scored.cost_max_ucr > ask.price_max_ucr:
        asked = f"{format_credits(scored.cost_max_ucr)} credits"
        raise RemoteError("request.price_too_low", asked, penalize=False)
    if now_ns + scored.latency_ns > ask.deadline_ns:
        raise RemoteError("bid.too_slow", penalize=False)


def rank(bids: list[ScoredBid]) -> list[ScoredBid]:
    """Best first; equal bids in the order of a hash that no bidder can choose."""
    return sorted(bids, key=lambda scored: scored.order)


def in_turn(offers: list[ScoredBid]) -> list[ScoredBid]:
    """The ranked offers whose turn it is: up to where a provider is missing that is to be tried
    before the next. It may still bid."""
    return [offer for _, offer in takewhile(lambda one: one[1].place <= one[0], enumerate(offers))]
