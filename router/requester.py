"""The requester core: publish, collect sealed bids, rank, award, check, pay, next bid on failure.

Sans-IO. Knows nothing of engines or libp2p. Rule: router/README.md, "Life of a job".
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from protocol import limits
from protocol.errors import CODES, LocalError, RemoteError
from protocol.job import JobEvent, JobState
from protocol.messages import SealedBid
from router import events
from router.actions import Ask
from router.anchor import Anchor
from router.auction import ScoredBid, in_turn, rank
from router.awarding import Awarding
from router.bidding import Bidding, bid_seen
from router.breaks import Breaks
from router.choosing import RequesterSettings
from router.context import Context
from router.continuing import Continuing
from router.delivery import Delivery
from router.explaining import Explanation, Explanations
from router.fallback import Fallback
from router.job import Contest, Job
from router.judging import Judging
from router.payer import Payer
from router.progress import Progress
from router.publishing import Published, check_day, published
from router.racing import KINDS, Racing
from router.reestablish import PayerReestablish
from router.selection import Selection
from router.telling import Telling
from router.timers import TimerKey
from router.top_ups import TopUps

# Codes that say all there is to say, also where an answer was begun.
_OUR_OWN: Final = ("request.cancelled", "request.deadline")


class Requester:
    """All requests of this node."""

    def __init__(
        self, context: Context, anchor: Anchor, settings: RequesterSettings | None = None
    ) -> None:
        self._context = context
        self._settings = settings or RequesterSettings(explanations=0)
        self.explanations = Explanations(self._settings.explanations)
        self._contests: dict[bytes, Contest] = {}
        self._by_ask: dict[int, bytes] = {}
        self.offers = context.offers
        self.payer = Payer(context, anchor)
        self.top_ups = TopUps(
            context,
            self.payer,
            anchor,
            lambda peer, addresses: self.awarding.connect(peer, addresses),
            lambda peer: self.awarding.is_up(peer),
        )
        self.delivery = Delivery(context, self.payer, self.top_ups, self)
        self.racing = Racing(context, self)
        self.continuing = Continuing(context, self)
        self.breaks = Breaks(context, self.payer, self.delivery, self)
        self.reestablish = PayerReestablish(context, self.payer, self.top_ups, self.breaks)
        self.judging = Judging(context)
        self._selection = Selection(context, self.judging.breakers, self.offers)
        self.bidding = Bidding(
            context,
            self._selection,
            self.close_window,
            lambda scored: self.awarding.keep_warm([scored]),
        )
        self.telling = Telling(context, tells=self._settings.tell_clearing)
        self.awarding = Awarding(
            context,
            self.payer,
            self.top_ups,
            self.reestablish,
            self.delivery,
            self.breaks,
            lambda: [run for contest in self._contests.values() for run in contest.runs],
            self.fail,
            Fallback(context, self),
            self.offers,
            self.judging,
            self.racing,
            self.continuing,
        )

    def funded(self, cid: bytes) -> None:
        """The anchor holds what was ordered for a channel: awards and top-ups waited for it."""
        channel = self._context.ledger.channel(cid)
        if channel is not None:
            self.top_ups.funded(cid)
            self.awarding.dispatch(channel.peer)

    def unfunded(self, cid: bytes, code: str) -> None:
        """The anchor does not hold it: the job goes elsewhere, the top-up is off."""
        self.top_ups.refused(cid, code)
        self.awarding.unfunded(cid, code)

    # --- publishing ------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        """Publish a request for `ask`; failures are delivered as events."""
        context = self._context
        if len(self._contests) >= limits.REQUESTS_OPEN_MAX:
            context.deliver(ask.ask_id, events.Failed("request.too_many", "", 0, 0))
            return
        running_ucr = sum(one.runs[0].ask.price_max_ucr for one in self._contests.values())
        try:
            check_day(context, ask, self._settings.day_max_ucr, running_ucr)
            request = published(context, ask)
        except LocalError as error:
            code = error.code if error.short_ucr else "request.invalid"
            failed = events.Failed(code, error.detail, 0, 0, error.short_ucr)
            context.deliver(ask.ask_id, failed)
            return
        context.deliver(ask.ask_id, events.Published(request.signed.digest))
        explanation = self.explanations.begin(request.signed.digest, ask, context.now_ns)
        self.begin(ask, request, Progress(ask, request.signed.sent_at_ns), explanation)

    def begin(
        self,
        ask: Ask,
        request: Published,
        progress: Progress,
        explanation: Explanation | None,
        contest: Contest | None = None,
    ) -> None:
        """Award a request to a standing offer, or publish it; of an ask, or of the rest of one,
        or after a `contest` that came to nothing."""
        context = self._context
        job = Job(ask, *request, progress, contest or Contest(), explanation=explanation)
        job.enter()
        self._contests[job.id] = job.contest
        self._by_ask[ask.ask_id] = job.id
        self._selection.begin(job)
        context.timers.set(TimerKey("deadline", job.id), context.now_ns + ask.timeout_ns)
        offers: list[ScoredBid] = []
        if ask.use_offers:
            weigh = partial(self._selection.weigh, job, from_offer=True)
            offers = self.offers.candidates(request.signed, context.public_key, weigh)
            offers = in_turn(offers)
            job.queue = offers[: max(limits.OFFERS_TRIED_MAX, ask.choice.race)]
        if len(job.queue) < ask.choice.race:
            job.queue = []
            self.bidding.begin(job)
            return
        if ask.choice.quote:
            self._quoted(job, offers)
            return
        job.direct = True
        job.step(JobEvent.WINNER)
        self.awarding.keep_warm(offers[: limits.SESSIONS_WARM_MAX])
        self.racing.start(job)

    def _quoted(self, job: Job, scored: list[ScoredBid]) -> None:
        """End a request that only wanted to know."""
        at_ns = job.elapsed_ns(self._context.now_ns)
        bids = tuple(bid_seen(one, at_ns, "") for one in scored[: limits.BIDS_QUOTED_MAX])
        self._context.deliver(job.ask.ask_id, events.Quoted(bids, at_ns))
        self.judging.ended(job)
        self.forget(job)

    def cancel(self, ask_id: int) -> None:
        """The asker no longer wants the answer; what arrived is paid."""
        job = self.job(self._by_ask.get(ask_id, b""))
        if job is not None:
            self.fail(job, "request.cancelled", "")

    @property
    def open_jobs(self) -> int:
        """Requests that have not ended."""
        return len(self._contests)

    def job(self, request_id: bytes) -> Job | None:
        """An open request by id; the first of its awards, where several run."""
        return next(self.runs(request_id), None)

    def runs(self, request_id: bytes) -> Iterator[Job]:
        """The awards of an open request that run beside each other."""
        contest = self._contests.get(request_id)
        return iter(contest.runs if contest else ())

    # --- offers and bids -------------------------------------------------------------------

    def take_bid(self, peer: bytes, sealed: SealedBid) -> None:
        """A sealed bid from `peer`. RemoteError: as `Bidding.take`, `bid.unknown_request`."""
        job = self.job(sealed.request_id)
        self.telling.heard(sealed.request_id, peer)
        if job is None:
            raise RemoteError("bid.unknown_request", penalize=False)
        self.bidding.take(job, peer, sealed)

    def close_window(self, job: Job) -> None:
        """Rank what came and award the best."""
        if job.state is not JobState.BIDDING:
            return
        self.bidding.ended(job)
        self.telling.watch(job)
        job.queue = rank(job.bids)
        if not job.queue:
            codes = [code for code in job.bidders.values() if code]
            if job.over_cap_ucr and set(codes) <= {"request.price_too_low"}:
                self.fail(job, "request.price_too_low", job.lacks(), job.short_ucr)
                return
            if not codes:
                unknown = self.offers.is_unknown(job.ask.model, self._context.now_ns)
                code = "request.unknown_model" if unknown else "request.no_bids"
                told = f"nobody bid on model {job.ask.model!r}"
                if job.offers_code in CODES:
                    code, told = job.offers_code, f"offers failed, then {told}"
                self.fail(job, code, told)
                return
            why = job.refusals.get(codes[0], "")
            detail = f"of {len(codes)} {'bids' if len(codes) > 1 else 'bid'} none is acceptable"
            self.fail(job, codes[0], f"{detail}: {why}" if why else detail)
            return
        if job.ask.choice.quote:
            self._quoted(job, job.queue)
            return
        job.step(JobEvent.WINNER)
        self.racing.start(job)

    # --- the end ---------------------------------------------------------------------------

    def fail(self, job: Job, code: str, detail: str, short_ucr: int = 0) -> None:
        """End a request without a receipt, for want of `short_ucr` if that is why: stop its
        providers, pay what arrived."""
        progress, runs = job.progress, list(job.contest.runs)
        for run in runs:
            if run.attempt is not None:
                self.delivery.abandon(run.attempt)
        told, why = code, detail
        if job.state is not JobState.STREAMING and code not in _OUR_OWN:
            told, why = progress.reason(code, detail)
        paid, at_ns = progress.paid_ucr, job.elapsed_ns(self._context.now_ns)
        failed = events.Failed(told, why, paid, at_ns, short_ucr if told == code else 0)
        self._context.deliver(job.ask.ask_id, failed)
        for run in runs:
            self.judging.failed(run, code)
        self.judging.ended(job, told, why)
        for run in runs:
            self.awarding.drop_opening(run)
            run.step(JobEvent.FAIL)
        self._context.note("request.failed", request_id=job.id, code=told, paid_ucr=paid)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """Drop a request that ended, and its timers."""
        self.bidding.ended(job)
        for kind in ("deadline", "hedge"):
            self._context.timers.cancel(TimerKey(kind, job.id))
        for kind in KINDS:
            for slot in range(job.contest.slots):
                self._context.timers.cancel(TimerKey(kind, job.id, slot))
        self._contests.pop(job.id, None)
        self._by_ask.pop(job.ask.ask_id, None)

    def handle_timer(self, key: TimerKey) -> None:
        """A timer of one of the kinds that `forget` names, or to dial a provider again."""
        if key.kind in ("redial", "clearing"):
            (self.awarding.redial if key.kind == "redial" else self.telling.tell)(key.subject)
            return
        runs = list(self.runs(key.subject))
        if key.kind in KINDS:
            runs = [run for run in runs if run.slot == key.lane]
        if not runs:
            return
        job = runs[0]
        if key.kind == "window":
            self.close_window(job)
        elif key.kind in Bidding.TIMERS:
            self.bidding.handle_timer(key.kind, job)
        elif key.kind == "hedge":
            self.racing.late(job)
        elif key.kind == "resume":
            self.breaks.waited(job)
        elif key.kind == "deadline":
            self.fail(job, "request.deadline", "")
        elif key.kind == "accept" and job.state is JobState.CONNECTING:
            self.awarding.give_up(job, "provider.unreachable")
        elif key.kind == "accept" and job.state is JobState.AWARDED:
            self.awarding.give_up(job, "award.timeout")
        elif key.kind == "stall" and job.state is JobState.AWARDED:
            self.awarding.give_up(job, "chunk.stalled")
        elif key.kind == "stall":
            self.continuing.broke_off(job, "chunk.stalled", "")
