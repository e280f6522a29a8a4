"""Judging what is offered for one request: the request's own rules, then the requester's.

Bids and standing offers go the same way. Sans-IO. Rule: router/README.md, "Choosing".
"""

from dataclasses import replace

from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.messages import Bid, Request
from protocol.quantization import known, matches
from protocol.units import format_credits
from router.auction import SCORE_UNIT, ScoredBid, check_bid, score
from router.breaker import Breakers
from router.choosing import WEIGHTS_SUM
from router.context import Context
from router.counting import ENOUGH_BYTES, PROVIDERS_WANTED
from router.explaining import Considered
from router.job import Job
from router.market_prices import MarketPrices
from router.offers import OfferBook
from router.quoting import input_tokens_least
from router.reputation import UNIT, Standing, usual

# One request in so many ranks newcomers as if they were known to be good, or nobody would ever
# get to know them where reputation counts.
NEWCOMERS_EVERY = 8
# And sellers that have shown little text as so much better, while too few have shown enough for
# their counts to be compared: who always buys from one never learns what its tokens are worth.
CURIOUS_MILLI = 200


class Selection:
    """What this requester makes of bids and offers."""

    def __init__(self, context: Context, breakers: Breakers, offers: OfferBook) -> None:
        self._context = context
        self._offers = offers
        self._breakers = breakers
        self._prices = MarketPrices()

    def begin(self, job: Job) -> None:
        """Look up what the market asks, before the first bid of this request says otherwise."""
        ask: Request = job.request.message
        sizes = (ask.input_tokens_max, ask.output_tokens_max)
        job.median_ucr = self._prices.median_ucr(ask.model, *sizes, self._context.now_ns)
        least_ucr = self._prices.least_ucr(ask.model, *sizes, self._context.now_ns)
        sellers = self._context.ledger.reputation.sellers(ask.model)
        job.usual = usual(sellers)
        if job.id[0] % NEWCOMERS_EVERY == 0:
            shown = sum(one.made.text_bytes >= ENOUGH_BYTES for one in sellers)
            job.curious = shown < PROVIDERS_WANTED
        job.input_tokens_least = input_tokens_least(job.ask.prompt)
        # Who would ask more than the cap stays silent: this says why nobody answers.
        job.over_cap_ucr = least_ucr if least_ucr > ask.price_max_ucr else 0
        if job.explanation is not None:
            job.explanation.median_ucr = job.median_ucr

    def weigh(
        self, job: Job, signed: Signed, bid: Bid, *, from_offer: bool = False
    ) -> tuple[ScoredBid, str]:
        """A bid with its score, and why it can't be taken, or ""."""
        now_ns, provider = self._context.now_ns, signed.sender
        standing = self._context.ledger.reputation.standing(provider, job.ask.model)
        counts = standing.counts(job.usual)
        scored = self._ranked(job, score(job.request, signed, bid, counts), standing)
        code = detail = ""
        try:
            check_bid(job.request, scored, now_ns)
            self._check(job, scored, standing)
        except RemoteError as error:
            code, detail = error.code, error.detail
            job.refusals.setdefault(code, detail)
            if code == "request.price_too_low":
                job.over_cap_ucr = min(
                    job.over_cap_ucr or scored.cost_max_ucr, scored.cost_max_ucr
                )
        prices = (bid.input_price_ucr, bid.output_price_ucr)
        self._prices.saw(job.ask.model, provider, *prices, now_ns)
        self._offers.heard(job.ask.model, now_ns)
        if job.explanation is not None:
            job.explanation.add(
                Considered(
                    provider=provider,
                    from_offer=from_offer,
                    input_price_ucr=bid.input_price_ucr,
                    output_price_ucr=bid.output_price_ucr,
                    ttft_ns=bid.ttft_ns,
                    tokens_per_s_milli=bid.tokens_per_s_milli,
                    cost_max_ucr=scored.cost_max_ucr,
                    effective_ucr=scored.effective_ucr,
                    counts=scored.counts,
                    latency_ns=scored.latency_ns,
                    score=scored.score,
                    reputation=standing.score(now_ns),
                    suspended=scored.suspended,
                    at_ns=job.elapsed_ns(now_ns),
                    code=code,
                    detail=detail,
                    quantization=bid.quantization,
                )
            )
        return scored, code

    def _ranked(self, job: Job, scored: ScoredBid, standing: Standing) -> ScoredBid:
        now_ns = self._context.now_ns
        reputation = standing.score(now_ns)
        if standing.is_newcomer and job.id[0] % NEWCOMERS_EVERY == 0:
            reputation = UNIT
        weight = job.ask.choice.reputation_weight
        points = scored.score * (WEIGHTS_SUM - weight) // WEIGHTS_SUM
        points += weight * (UNIT - reputation) * SCORE_UNIT // UNIT
        if job.curious and standing.made.text_bytes < ENOUGH_BYTES and not standing.bad:
            points -= points * CURIOUS_MILLI // 1_000
        suspended = self._breakers.suspended(scored.signed.sender, now_ns)
        suspended = suspended or standing.is_ejected(now_ns)
        suspended = suspended or scored.signed.sender in job.progress.broke_off
        place = job.ask.choice.place(scored.signed.sender)
        return replace(
            scored, score=points, reputation=reputation, suspended=suspended, place=place
        )

    def _check(self, job: Job, scored: ScoredBid, standing: Standing) -> None:
        """RemoteError, no offence: `bid.low_reputation`, `bid.off_market`, `bid.short_context`,
        `bid.other_quantization`, `bid.over_price`."""
        # Bids state no context; the offer of the same provider does.
        context_tokens = self._offers.context_tokens(scored.signed.sender, job.ask.model)
        if 0 < context_tokens <= job.input_tokens_least:
            detail = f"{context_tokens} tokens, the prompt has {job.input_tokens_least} at least"
            raise RemoteError("bid.short_context", detail, penalize=False)
        choice, now_ns = job.ask.choice, self._context.now_ns
        told = scored.bid.quantization
        if choice.quantizations and not matches(told, choice.quantizations):
            detail = f"{known(told)}, wanted {' or '.join(choice.quantizations)}"
            raise RemoteError("bid.other_quantization", detail, penalize=False)
        over = choice.over_price(scored.bid.input_price_ucr, scored.bid.output_price_ucr)
        if over:
            raise RemoteError("bid.over_price", over, penalize=False)
        if scored.signed.sender in job.progress.failed:
            raise RemoteError("bid.unacceptable", "it failed this request", penalize=False)
        if scored.signed.sender in job.progress.lied:
            raise RemoteError("bid.low_reputation", "it lied in this answer", penalize=False)
        named = scored.signed.sender in job.ask.filters.providers_only
        points = standing.score(now_ns)
        if standing.lied and standing.is_ejected(now_ns) and not named:
            raise RemoteError("bid.low_reputation", f"{points}, ejected", penalize=False)
        if points < choice.reputation_min:
            detail = f"{points}, at least {choice.reputation_min} wanted"
            raise RemoteError("bid.low_reputation", detail, penalize=False)
        if standing.completed < choice.completed_min:
            detail = f"{standing.completed} jobs, at least {choice.completed_min} wanted"
            raise RemoteError("bid.low_reputation", detail, penalize=False)
        most_ucr = job.median_ucr * choice.market_factor_milli // 1_000
        if job.median_ucr and choice.market_factor_milli and scored.effective_ucr > most_ucr:
            asked, usual = format_credits(scored.effective_ucr), format_credits(job.median_ucr)
            detail = f"{asked} credits, the median is {usual}"
            raise RemoteError("bid.off_market", detail, penalize=False)
