"""The requester core: publish, collect sealed bids, rank, award, check, pay, next bid on failure.

Sans-IO. Knows nothing of engines or libp2p. Rule: the design's "Life of a job".
"""

from dataclasses import dataclass, field

from protocol import crypto, limits, signing
from protocol.channel import ChannelEvent, ChannelState
from protocol.envelope import Signed, open_envelope, sign_envelope
from protocol.errors import LocalError, RemoteError
from protocol.job import JOB_TRANSITIONS, JobEvent, JobState
from protocol.machine import apply
from protocol.messages import Award, Bid, Request, SealedBid
from protocol.records import LaneOpened
from protocol.transcript import prompt_commitment, transcript_start
from protocol.units import NS_PER_MS
from router import events
from router.actions import Ask, OpenSession, Publish, SessionKey
from router.attempt import Attempt
from router.auction import ScoredBid, check_bid, rank, score_bid
from router.context import Context
from router.delivery import Delivery
from router.payer import Payer, headroom_ucr, step
from router.quoting import input_tokens_bucket, input_tokens_estimate
from router.timers import TimerKey

# Early close: with this many bids, and no better one for this long, waiting is not worth it.
EARLY_CLOSE_BIDS = 3
EARLY_CLOSE_GAP_NS = 30 * NS_PER_MS


@dataclass(slots=True)
class Job:
    """One request of ours, from publication to its end."""

    ask: Ask
    request: Signed
    ephemeral_seed: bytes
    prompt_key: bytes
    state: JobState = JobState.BIDDING
    bids: list[ScoredBid] = field(default_factory=list)
    bidders: dict[bytes, str] = field(default_factory=dict)  # provider -> "" or why not
    best: ScoredBid | None = None
    queue: list[ScoredBid] = field(default_factory=list)
    candidate: ScoredBid | None = None
    attempt: Attempt | None = None
    attempts: int = 0
    paid_ucr: int = 0
    last_code: str = ""

    @property
    def id(self) -> bytes:
        """The request's id."""
        return self.request.digest

    def step(self, event: JobEvent) -> None:
        """Move by the table."""
        self.state = apply(JOB_TRANSITIONS, self.state, event, "session.protocol")


class Requester:
    """All requests of this node."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.payer = Payer(context)
        self.delivery = Delivery(context, self.payer, self)
        self._jobs: dict[bytes, Job] = {}
        self._by_ask: dict[int, bytes] = {}
        self._sessions: dict[bytes, bool] = {}  # provider -> whether the stream is up

    # --- publishing ------------------------------------------------------------------------

    def ask(self, ask: Ask) -> None:
        """Publish a request for `ask`; failures are delivered as events."""
        context = self._context
        if len(self._jobs) >= limits.REQUESTS_OPEN_MAX:
            context.deliver(ask.ask_id, events.Failed("request.too_many", "", 0, 0))
            return
        ephemeral_seed, prompt_key = context.entropy(32), context.entropy(32)
        try:
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
        context.act(Publish(request.data))
        context.deliver(ask.ask_id, events.Published(job.id))
        context.note("request.published", request_id=job.id, model=ask.model)
        context.timers.set(TimerKey("window", job.id), context.now_ns + ask.bid_window_ns)
        context.timers.set(TimerKey("deadline", job.id), context.now_ns + ask.timeout_ns)

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

    def elapsed_ns(self, job: Job) -> int:
        """Time since the request was published."""
        return self._context.now_ns - job.request.sent_at_ns

    # --- bids ------------------------------------------------------------------------------

    def take_bid(self, peer: bytes, sealed: SealedBid) -> None:
        """A sealed bid from `peer`. RemoteError with the `bid.` codes and the envelope's."""
        job = self._jobs.get(sealed.request_id)
        if job is None:
            raise RemoteError("bid.unknown_request", penalize=False)
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
        scored = score_bid(job.request, signed)
        code = ""
        try:
            check_bid(job.request, scored, context.now_ns)
        except RemoteError as error:
            code = error.code
        job.bidders[peer] = code
        self._tell_bid(job, scored, code)
        if not code:
            self._keep_bid(job, scored)

    def _tell_bid(self, job: Job, scored: ScoredBid, code: str) -> None:
        bid = scored.bid
        seen = events.BidSeen(
            provider=scored.signed.sender,
            input_price_ucr=bid.input_price_ucr,
            output_price_ucr=bid.output_price_ucr,
            ttft_ns=bid.ttft_ns,
            tokens_per_s_milli=bid.tokens_per_s_milli,
            cost_max_ucr=scored.cost_max_ucr,
            score=scored.score,
            at_ns=self.elapsed_ns(job),
            code=code,
        )
        self._context.deliver(job.ask.ask_id, seen)

    def _keep_bid(self, job: Job, scored: ScoredBid) -> None:
        job.bids.append(scored)
        if job.best is None or (scored.score, scored.tie) < (job.best.score, job.best.tie):
            job.best = scored
            early = TimerKey("early", job.id)
            self._context.timers.set(early, self._context.now_ns + EARLY_CLOSE_GAP_NS)
        only = job.ask.filters.providers_only
        if only and len(job.bidders) >= len(only):
            self.close_window(job)

    def early_close(self, job: Job) -> None:
        """No better bid for a while: close, if there are bids enough to choose from."""
        if job.state is not JobState.BIDDING:
            return
        if len(job.bids) >= EARLY_CLOSE_BIDS:
            self.close_window(job)
        else:
            early = TimerKey("early", job.id)
            self._context.timers.set(early, self._context.now_ns + EARLY_CLOSE_GAP_NS)

    def close_window(self, job: Job) -> None:
        """Rank what came and award the best."""
        if job.state is not JobState.BIDDING:
            return
        self._context.timers.cancel(TimerKey("window", job.id))
        self._context.timers.cancel(TimerKey("early", job.id))
        job.queue = rank(job.bids)
        if not job.queue:
            codes = [code for code in job.bidders.values() if code]
            code = codes[0] if codes else "request.no_bids"
            self.fail(job, code, f"{len(job.bidders)} bids, none acceptable")
            return
        job.step(JobEvent.WINNER)
        self._award_next(job)

    # --- awarding --------------------------------------------------------------------------

    def next_bid(self, job: Job, code: str) -> None:
        """The attempt failed before its first chunk: try the next bid, or give up."""
        context = self._context
        provider = job.candidate.signed.sender if job.candidate else b""
        job.last_code = code
        job.candidate = job.attempt = None
        job.step(JobEvent.NEXT_BID)
        retrying = events.Retrying(provider, code, self.elapsed_ns(job))
        context.deliver(job.ask.ask_id, retrying)
        context.note("award.failed", request_id=job.id, peer_id=provider, code=code)
        self._award_next(job)

    def _award_next(self, job: Job) -> None:
        context = self._context
        while job.queue and job.attempts < limits.AWARDS_PER_REQUEST_MAX:
            scored = job.queue.pop(0)
            if scored.bid.expires_at_ns <= context.now_ns:
                job.last_code = "award.unknown_bid"
                continue
            job.candidate = scored
            job.attempts += 1
            provider = scored.signed.sender
            context.timers.set(
                TimerKey("accept", job.id), context.now_ns + limits.ACCEPT_TIMEOUT_NS
            )
            if self._sessions.get(provider):
                self._award(job, scored)
            else:
                self.connect(provider, scored.bid.addresses)
            return
        code = job.last_code if job.attempts <= 1 else "request.all_failed"
        self.fail(job, code or "request.all_failed", f"last reason: {job.last_code}")

    def connect(self, provider: bytes, addresses: tuple[str, ...]) -> None:
        """Open the job stream to a provider, unless it is up or on its way."""
        if provider not in self._sessions:
            self._sessions[provider] = False
            session = SessionKey(provider, outbound=True)
            self._context.act(OpenSession(session, addresses))

    def session_opened(self, provider: bytes) -> None:
        """A stream that we asked for is up: re-establish what is detached, award what waits."""
        self._sessions[provider] = True
        session = SessionKey(provider, outbound=True)
        for channel in self.payer.detached(provider):
            self.payer.reestablish(session, channel)
        self.dispatch(provider)

    def session_closed(self, provider: bytes, code: str) -> None:
        """The stream is gone: waiting jobs try elsewhere, running ones end."""
        self._sessions.pop(provider, None)
        self.delivery.session_closed(provider)
        for job in list(self._jobs.values()):
            if job.candidate is None or job.candidate.signed.sender != provider:
                continue
            if job.state is JobState.STREAMING:
                self.fail(job, "provider.vanished", "mid-stream; what arrived is paid")
            elif job.state in (JobState.CONNECTING, JobState.AWARDED):
                vanished = "provider.vanished"
                self.next_bid(job, code if job.state is JobState.CONNECTING else vanished)

    def dispatch(self, provider: bytes) -> None:
        """Send the awards that waited for this provider's stream or channel."""
        for job in list(self._jobs.values()):
            scored = job.candidate
            waiting = job.state is JobState.CONNECTING and scored is not None
            if waiting and scored is not None and scored.signed.sender == provider:
                self._award(job, scored)

    def _award(self, job: Job, scored: ScoredBid) -> None:
        context, ask, request = self._context, job.ask, job.request.message
        channel = self.payer.find(scored, request.deadline_ns, ask.advance_max_ucr)
        if channel is not None and channel.state is ChannelState.DETACHED:
            return  # `dispatch` comes again when the re-establish is through
        opening = None
        try:
            if channel is None:
                channel, opening = self.payer.open(scored, ask.deposit_ucr)
            step(channel, ChannelEvent.LANE_OPEN)
        except RemoteError as error:
            self.next_bid(job, error.code)
            return
        number = channel.lane_last + 1
        context.append(
            LaneOpened(
                cid=channel.cid,
                lane=number,
                request_id=job.id,
                bid_id=scored.signed.digest,
                model=ask.model,
                input_price_ucr=scored.bid.input_price_ucr,
                output_price_ucr=scored.bid.output_price_ucr,
                opened_at_ns=context.now_ns,
                bid=scored.signed.data,
            )
        )
        start = headroom_ucr(scored, input_tokens_estimate(ask.prompt), request.output_tokens_max)
        voucher = self.payer.issue(channel, channel.due_ucr + start, ask.advance_max_ucr)
        commitment = request.prompt_commitment
        signed = signing.award_bytes(
            context.network,
            job.id,
            scored.signed.digest,
            channel.cid,
            number,
            commitment,
            ask.parameters,
        )
        session = SessionKey(scored.signed.sender, outbound=True)
        context.send(
            session,
            Award(
                request_id=job.id,
                bid_id=scored.signed.digest,
                cid=channel.cid,
                lane=number,
                prompt=ask.prompt,
                prompt_key=job.prompt_key,
                parameters=ask.parameters,
                open=opening,
                voucher=voucher,
                signature=context.signer.sign(signed),
            ),
        )
        job.step(JobEvent.CONNECTED)
        start_hash = transcript_start(context.network, job.id, scored.signed.digest, commitment)
        job.attempt = Attempt(
            request=job.id,
            ask=request,
            parameters=ask.parameters,
            commitment=commitment,
            scored=scored,
            session=session,
            channel=channel,
            lane=channel.lanes[number],
            transcript=start_hash,
        )
        self.delivery.add(job.attempt)
        self._tell_award(job, scored, opening is not None)
        if voucher is not None:
            self.delivery.tell_paid(job, voucher)

    def _tell_award(self, job: Job, scored: ScoredBid, opened: bool) -> None:
        context = self._context
        assert job.attempt is not None
        channel = job.attempt.channel
        provider = scored.signed.sender
        awarded = events.Awarded(
            provider, job.attempts, channel.cid, opened, channel.deposit_ucr, self.elapsed_ns(job)
        )
        context.deliver(job.ask.ask_id, awarded)
        context.note("award.sent", request_id=job.id, peer_id=provider, lane=job.attempt.lane.lane)

    # --- the end ---------------------------------------------------------------------------

    def fail(self, job: Job, code: str, detail: str) -> None:
        """End a request without a receipt: stop its provider, pay what arrived."""
        paid = job.paid_ucr
        if job.attempt is not None:
            paid += job.attempt.lane.due_ucr
            self.delivery.abandon(job.attempt)
        job.step(JobEvent.FAIL)
        failed = events.Failed(code, detail, paid, self.elapsed_ns(job))
        self._context.deliver(job.ask.ask_id, failed)
        self._context.note("request.failed", request_id=job.id, code=code, paid_ucr=paid)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """Drop a request that ended, and its timers."""
        for kind in ("window", "early", "deadline", "accept", "stall"):
            self._context.timers.cancel(TimerKey(kind, job.id))
        self._jobs.pop(job.id, None)
        self._by_ask.pop(job.ask.ask_id, None)

    def handle_timer(self, key: TimerKey) -> None:
        """A timer of one of the kinds that `forget` names."""
        job = self._jobs.get(key.subject)
        if job is None:
            return
        if key.kind == "window":
            self.close_window(job)
        elif key.kind == "early":
            self.early_close(job)
        elif key.kind == "deadline":
            self.fail(job, "request.deadline", "")
        elif key.kind == "accept" and job.state in (JobState.CONNECTING, JobState.AWARDED):
            self._give_up(job)
        elif key.kind == "stall":
            self.fail(job, "chunk.stalled", "")

    def _give_up(self, job: Job) -> None:
        """The provider didn't start in time; it may be slow, so its lane is cancelled."""
        code = "award.timeout" if job.state is JobState.AWARDED else "provider.unreachable"
        if job.attempt is not None:
            self.delivery.abandon(job.attempt)
        self.next_bid(job, code)
