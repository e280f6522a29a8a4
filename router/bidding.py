"""Collecting sealed bids until the window ends, or until waiting longer is not worth it.

Sans-IO; ranks nothing itself. Rule: router/README.md, "Life of a job"; protocol/README.md, "Bids".
"""

from collections.abc import Callable
from typing import Final

from protocol import crypto, limits
from protocol.envelope import open_envelope, sign_envelope
from protocol.errors import RemoteError
from protocol.job import JobState
from protocol.messages import Bid, MoreBids, SealedBid
from protocol.units import NS_PER_MS
from router import events
from router.actions import Publish
from router.auction import ScoredBid, measure, rank
from router.context import Context
from router.job import Job
from router.selection import Selection
from router.timers import TimerKey

# Early close: with bids enough, and no better one for this long, waiting is not worth it.
EARLY_CLOSE_GAP_NS: Final = 30 * NS_PER_MS
# CLEARING_RANK sellers should match what others told, and half of them are enough. With fewer at
# half of the window it is no longer true, or never was.
GOOD_BIDS_MIN: Final = limits.CLEARING_RANK // 2


class Bidding:
    """The open windows of this node's requests; `close` is called when one should end."""

    TIMERS: Final = ("early", "more")

    def __init__(
        self,
        context: Context,
        selection: Selection,
        close: Callable[[Job], None],
        dial: Callable[[ScoredBid], None],
    ) -> None:
        self._context = context
        self._selection = selection
        self._close = close
        self._dial = dial

    def begin(self, job: Job) -> None:
        """Publish a request; its window is open."""
        context, window_ns = self._context, job.ask.bid_window_ns
        context.act(Publish(job.request.data))
        context.note("request.published", request_id=job.id, model=job.ask.model)
        context.timers.set(TimerKey("window", job.id), context.now_ns + window_ns)
        context.timers.set(TimerKey("more", job.id), context.now_ns + window_ns // 2)
        bar = context.clearings.bar(job.request, context.now_ns)
        job.bar_points = None if bar is None else bar.points

    def ended(self, job: Job) -> None:
        """The window is closed."""
        for kind in ("window", "early", "more"):
            self._context.timers.cancel(TimerKey(kind, job.id))

    def handle_timer(self, kind: str, job: Job) -> None:
        """A timer of one of the kinds in TIMERS."""
        if kind == "early":
            self._early_close(job)
        elif job.state is JobState.BIDDING:
            self._ask_again(job)

    def _ask_again(self, job: Job) -> None:
        """Half of the window is over: where sellers withhold bids by what others told, and few of
        those that came are as good as that, or none came at all, have them all."""
        context = self._context
        if job.ask.filters.providers_only or (job.bidders and job.bar_points is None):
            return  # nobody withholds
        if job.good_bids >= (_enough(job) or GOOD_BIDS_MIN) and job.all_first_bid:
            return
        # Those that come now end the window, not those that were too few.
        job.bar_points, job.good_bids, job.best_at_ns = None, 0, context.now_ns
        again = sign_envelope(context.signer, context.network, MoreBids(job.id), context.now_ns)
        context.act(Publish(again.data))
        if job.explanation is not None:
            job.explanation.asked_again = True
        context.note("request.asked_again", request_id=job.id, bids=len(job.bids))

    def take(self, job: Job, peer: bytes, sealed: SealedBid) -> None:
        """A sealed bid from `peer`. RemoteError with the `bid.` codes and the envelope's."""
        if job.state is not JobState.BIDDING:
            raise RemoteError("bid.late", penalize=False)
        if len(job.bidders) >= limits.BIDS_PER_REQUEST_MAX:
            raise RemoteError("bid.too_many", penalize=False)
        context = self._context
        signed = open_envelope(
            crypto.unseal(job.ephemeral_seed, sealed.sealed),
            context.network,
            context.now_ns,
            allowed=(Bid,),
            verify=context.verify,
        )
        bid: Bid = signed.message
        if signed.sender != peer or bid.request_id != job.id or peer == context.public_key:
            raise RemoteError("bid.unacceptable", "not the bidder's own bid for this request")
        if peer in job.bidders:
            raise RemoteError("envelope.replayed", "a second bid", penalize=False)
        scored, code = self._selection.weigh(job, signed, bid)
        job.bidders[peer] = code
        seen = bid_seen(scored, job.elapsed_ns(context.now_ns), code)
        context.deliver(job.ask.ask_id, seen)
        if not code:
            self._keep_bid(job, scored)

    def _keep_bid(self, job: Job, scored: ScoredBid) -> None:
        now_ns, enough = self._context.now_ns, _enough(job)
        job.bids.append(scored)
        points = measure(job.request, scored.bid, scored.counts)[2]
        # Those that failed before, being many and quick, would close the window on everybody else.
        as_told = job.bar_points is None or points <= job.bar_points
        job.good_bids += as_told and not scored.suspended
        if job.best is None or scored.order < job.best.order:
            job.best, job.best_at_ns = scored, now_ns
            if enough:
                early = TimerKey("early", job.id)
                self._context.timers.set(early, now_ns + EARLY_CLOSE_GAP_NS)
        self._prepare(job, enough)
        waited = now_ns - job.best_at_ns >= EARLY_CLOSE_GAP_NS
        only = job.ask.filters.providers_only
        all_bid = bool(only) and all(provider in job.bidders for provider in only)
        if all_bid or (enough and waited and job.good_bids >= enough):
            self._close(job)

    def _prepare(self, job: Job, enough: int) -> None:
        """One more good bid, or none, and the window ends: a stream to who leads takes several
        round trips, so it is opened now; to a few at most, should better ones come."""
        race, best = job.ask.choice.race, job.best
        if not enough or best is None or job.good_bids < max(enough - 1, race):
            return
        for lead in rank(job.bids)[:race] if race > 1 else [best]:
            provider = lead.signed.sender
            room = len(job.dialled) < limits.SESSIONS_WARM_MAX
            if room and not lead.suspended and provider not in job.dialled:
                job.dialled.append(provider)
                self._dial(lead)

    def _early_close(self, job: Job) -> None:
        """No better bid for a while: close, if there are bids enough to choose from; else the
        one that makes them enough does."""
        if job.state is JobState.BIDDING and job.good_bids >= _enough(job) > 0:
            self._close(job)


def _enough(job: Job) -> int:
    """How many good bids may end the window early; 0: none. Of those that should match what
    others told there are few, so a larger number means any bids. Whoever is to be tried first is
    waited for."""
    wanted = job.ask.early_close_bids if job.all_first_bid else 0
    return wanted if job.bar_points is None else min(wanted, GOOD_BIDS_MIN)


def bid_seen(scored: ScoredBid, at_ns: int, code: str) -> events.BidSeen:
    """A bid as its asker is told."""
    return events.BidSeen(
        provider=scored.signed.sender,
        input_price_ucr=scored.bid.input_price_ucr,
        output_price_ucr=scored.bid.output_price_ucr,
        ttft_ns=scored.bid.ttft_ns,
        tokens_per_s_milli=scored.bid.tokens_per_s_milli,
        cost_max_ucr=scored.cost_max_ucr,
        score=scored.score,
        at_ns=at_ns,
        code=code,
        quantization=scored.bid.quantization,
    )
