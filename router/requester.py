"""The requester core: publish, collect sealed bids, rank, award, check, pay, next bid on failure.

Sans-IO. Knows nothing of engines or libp2p. Rule: router/README.md, "Life of a job".
"""

from functools import partial

from protocol import crypto, limits, wire
from protocol.envelope import Signed, sign_envelope
from protocol.errors import LocalError, RemoteError
from protocol.job import JobEvent, JobState
from protocol.messages import Request, SealedBid, StandingOffer
from protocol.records import RequestKeyed
from protocol.transcript import prompt_commitment
from router import events
from router.actions import Ask, Publish
from router.anchor import Anchor
from router.auction import ScoredBid, rank
from router.awarding import Awarding
from router.bidding import Bidding, bid_seen
from router.breaks import Breaks
from router.choosing import RequesterSettings
from router.context import Context
from router.delivery import Delivery
from router.explaining import Explanations
from router.job import Job
from router.judging import Judging
from router.offers import OfferBook
from router.payer import Payer
from router.quoting import input_tokens_bucket
from router.reestablish import PayerReestablish
from router.selection import Selection
from router.timers import TimerKey
from router.top_ups import TopUps


class Requester:
    """All requests of this node."""

    def __init__(
        self, context: Context, anchor: Anchor, settings: RequesterSettings | None = None
    ) -> None:
        self._context = context
        self._settings = settings or RequesterSettings(explanations=0)
        self.explanations = Explanations(self._settings.explanations)
        self._jobs: dict[bytes, Job] = {}
        self._by_ask: dict[int, bytes] = {}
        self.offers = OfferBook()
        self.payer = Payer(context, anchor)
        self.top_ups = TopUps(
            context,
            self.payer,
            anchor,
            lambda peer, addresses: self.awarding.connect(peer, addresses),
            lambda peer: self.awarding.is_up(peer),
        )
        self.delivery = Delivery(context, self.payer, self.top_ups, self)
        self.breaks = Breaks(context, self.payer, self.delivery, self)
        self.reestablish = PayerReestablish(context, self.payer, self.top_ups, self.breaks)
        self.judging = Judging(context)
        self._selection = Selection(context, self.judging.breakers)
        self.bidding = Bidding(context, self._selection, self.close_window)
        self.awarding = Awarding(
            context,
            self.payer,
            self.top_ups,
            self.reestablish,
            self.delivery,
            self.breaks,
            lambda: list(self._jobs.values()),
            self.fail,
            self._auction,
            self.offers,
            self.judging,
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
        if len(self._jobs) >= limits.REQUESTS_OPEN_MAX:
            context.deliver(ask.ask_id, events.Failed("request.too_many", "", 0, 0))
            return
        if short := self._over_the_day(ask):
            context.deliver(ask.ask_id, events.Failed("request.day_limit", short, 0, 0))
            return
        ephemeral_seed, prompt_key = context.entropy(32), context.entropy(32)
        try:
            # The award carries both, and has no way back once it is decided.
            parts = (ask.prompt, ask.parameters)
            award_bytes = sum(len(wire.encode_fields(part)) for part in parts)
            if award_bytes > limits.PROMPT_BYTES_MAX:
                detail = f"prompt and parameters of {award_bytes} bytes"
                raise LocalError("wire.unencodable", detail)
            request = sign_envelope(
                context.signer,
                context.network,
                Request(
                    model=ask.model,
                    inference_type=ask.prompt.inference_type,
                    input_tokens_max=input_tokens_bucket(ask.prompt),
                    output_tokens_max=ask.parameters.output_tokens_max,
                    price_max_ucr=ask.price_max_ucr,
                    deadline_ns=context.now_ns + ask.timeout_ns,
                    bid_window_ns=ask.bid_window_ns,
                    strategy=ask.strategy,
                    filters=ask.filters,
                    redundancy=1,
                    ephemeral_key=crypto.box_public_key(ephemeral_seed),
                    addresses=context.addresses,
                    prompt_commitment=prompt_commitment(ask.prompt, prompt_key),
                ),
                context.now_ns,
            )
        except LocalError as error:
            failed = events.Failed("request.invalid", error.detail, 0, 0)
            context.deliver(ask.ask_id, failed)
            return
        job = Job(ask, request, ephemeral_seed, prompt_key)
        self._jobs[job.id] = job
        self._by_ask[ask.ask_id] = job.id
        if ask.key is not None:
            context.append(RequestKeyed(*ask.key, job.id, context.now_ns))
        job.explanation = self.explanations.begin(job.id, ask, context.now_ns)
        context.deliver(ask.ask_id, events.Published(job.id))
        self._selection.begin(job)
        context.timers.set(TimerKey("deadline", job.id), context.now_ns + ask.timeout_ns)
        if ask.use_offers:
            weigh = partial(self._selection.weigh, job, from_offer=True)
            offers = self.offers.candidates(request, context.public_key, weigh)
            job.queue = offers[: limits.OFFERS_TRIED_MAX]
        if not job.queue:
            self._auction(job)
            return
        if ask.choice.quote:
            self._quoted(job, offers)
            return
        job.direct = True
        job.step(JobEvent.WINNER)
        self.awarding.keep_warm(offers[: limits.SESSIONS_WARM_MAX])
        self.awarding.next(job)

    def _over_the_day(self, ask: Ask) -> str:
        """What a request at its worst would put this UTC day over its cap by, said; or ""."""
        most_ucr = self._settings.day_max_ucr
        if not most_ucr or ask.choice.quote:
            return ""
        spent_ucr = self._context.ledger.reputation.spent_ucr(self._context.now_ns)
        spent_ucr += sum(job.ask.price_max_ucr for job in self._jobs.values())
        over_ucr = spent_ucr + ask.price_max_ucr - most_ucr
        return f"{over_ucr} ucr over {most_ucr}, at the request's cap" if over_ucr > 0 else ""

    def _quoted(self, job: Job, scored: list[ScoredBid]) -> None:
        """End a request that only wanted to know."""
        at_ns = job.elapsed_ns(self._context.now_ns)
        bids = tuple(bid_seen(one, at_ns, "") for one in scored[: limits.BIDS_QUOTED_MAX])
        self._context.deliver(job.ask.ask_id, events.Quoted(bids, at_ns))
        self.judging.ended(job)
        self.forget(job)

    def _auction(self, job: Job) -> None:
        """Publish the request and collect bids; also when standing offers came to nothing."""
        context = self._context
        if job.direct:
            job.direct, job.attempts, job.last_code = False, 0, ""
            job.step(JobEvent.AUCTION)
        context.act(Publish(job.request.data))
        context.note("request.published", request_id=job.id, model=job.ask.model)
        context.timers.set(TimerKey("window", job.id), context.now_ns + job.ask.bid_window_ns)

    def cancel(self, ask_id: int) -> None:
        """The asker no longer wants the answer; what arrived is paid."""
        job = self._jobs.get(self._by_ask.get(ask_id, b""))
        if job is not None:
            self.fail(job, "request.cancelled", "")

    @property
    def open_jobs(self) -> int:
        """Requests that have not ended."""
        return len(self._jobs)

    def job(self, request_id: bytes) -> Job | None:
        """An open request by id."""
        return self._jobs.get(request_id)

    # --- offers and bids -------------------------------------------------------------------

    def take_gossip(self, signed: Signed) -> None:
        """A sealed bid that came by gossip, or a standing offer. RemoteError: as `take_bid`,
        `OfferBook.take`."""
        if isinstance(signed.message, SealedBid):
            self.take_bid(signed.sender, signed.message)
        elif isinstance(signed.message, StandingOffer):
            self.offers.take(signed, self._context.now_ns)

    def take_bid(self, peer: bytes, sealed: SealedBid) -> None:
        """A sealed bid from `peer`. RemoteError: as `Bidding.take`, `bid.unknown_request`."""
        job = self._jobs.get(sealed.request_id)
        if job is None:
            raise RemoteError("bid.unknown_request", penalize=False)
        self.bidding.take(job, peer, sealed)

    def close_window(self, job: Job) -> None:
        """Rank what came and award the best."""
        if job.state is not JobState.BIDDING:
            return
        for kind in ("window", "early"):
            self._context.timers.cancel(TimerKey(kind, job.id))
        job.queue = rank(job.bids)
        if not job.queue:
            codes = [code for code in job.bidders.values() if code]
            if job.over_cap_ucr and set(codes) <= {"request.price_too_low"}:
                self.fail(job, "request.price_too_low", _short(job))
                return
            code = codes[0] if codes else "request.no_bids"
            nobody = f"nobody bid on model {job.ask.model!r}"
            self.fail(job, code, f"{len(codes)} bids, none acceptable" if codes else nobody)
            return
        if job.ask.choice.quote:
            self._quoted(job, job.queue)
            return
        job.step(JobEvent.WINNER)
        self.awarding.next(job)

    # --- the end ---------------------------------------------------------------------------

    def fail(self, job: Job, code: str, detail: str) -> None:
        """End a request without a receipt: stop its provider, pay what arrived."""
        paid = job.paid_ucr
        if job.attempt is not None:
            paid += job.attempt.lane.due_ucr
            self.delivery.abandon(job.attempt)
        failed = events.Failed(code, detail, paid, job.elapsed_ns(self._context.now_ns))
        self._context.deliver(job.ask.ask_id, failed)
        self.judging.failed(job, code)
        self.judging.ended(job, code, detail)
        job.step(JobEvent.FAIL)
        self._context.note("request.failed", request_id=job.id, code=code, paid_ucr=paid)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """Drop a request that ended, and its timers."""
        for kind in ("window", "early", "deadline", "accept", "stall", "resume"):
            self._context.timers.cancel(TimerKey(kind, job.id))
        self._jobs.pop(job.id, None)
        self._by_ask.pop(job.ask.ask_id, None)

    def handle_timer(self, key: TimerKey) -> None:
        """A timer of one of the kinds that `forget` names, or to dial a provider again."""
        if key.kind == "redial":
            self.awarding.redial(key.subject)
            return
        job = self._jobs.get(key.subject)
        if job is None:
            return
        if key.kind == "window":
            self.close_window(job)
        elif key.kind == "early":
            self.bidding.early_close(job)
        elif key.kind == "resume":
            self.fail(job, "provider.vanished", "mid-stream; what arrived is paid")
        elif key.kind == "deadline":
            self.fail(job, "request.deadline", "")
        elif key.kind == "accept" and job.state is JobState.CONNECTING:
            self.awarding.give_up(job, "provider.unreachable")
        elif key.kind == "accept" and job.state is JobState.AWARDED:
            self.awarding.give_up(job, "award.timeout")
        elif key.kind == "stall" and job.state is JobState.AWARDED:
            self.awarding.give_up(job, "chunk.stalled")
        elif key.kind == "stall":
            self.fail(job, "chunk.stalled", "")


def _short(job: Job) -> str:
    """How much the cap lacks for the cheapest that was asked."""
    least_ucr, cap_ucr = job.over_cap_ucr, job.ask.price_max_ucr
    return f"up to {least_ucr} ucr are asked, {least_ucr - cap_ucr} over the cap of {cap_ucr}"
