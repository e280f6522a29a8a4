"""Awarding a request to the best bid that is left: stream, channel, lane, first voucher.

A failure before the first chunk leads to the next bid, at most AWARDS_PER_REQUEST_MAX in all.
Sans-IO. Rule: router/README.md, "Life of a job".
"""

from collections.abc import Callable, Iterable

from protocol import limits
from protocol.channel import ChannelEvent, ChannelState
from protocol.errors import RemoteError
from protocol.fields import AwardRole
from protocol.job import JobEvent, JobState
from protocol.messages import DirectRequest
from router import events
from router.actions import OpenSession, SessionKey
from router.attempt import Attempt
from router.auction import ScoredBid
from router.breaks import Breaks
from router.context import Context
from router.continuing import Continuing
from router.delivery import Delivery
from router.fallback import Fallback
from router.job import Job
from router.judging import Judging
from router.lanes import award_message, open_lane
from router.offers import OfferBook
from router.payer import Payer, headroom_ucr
from router.quoting import input_tokens_estimate
from router.racing import Racing
from router.reestablish import PayerReestablish
from router.timers import TimerKey
from router.top_ups import TopUps


class Awarding:
    """Awards of this node's requests, and the streams that carry them."""

    def __init__(
        self,
        context: Context,
        payer: Payer,
        top_ups: TopUps,
        reestablish: PayerReestablish,
        delivery: Delivery,
        breaks: Breaks,
        jobs: Callable[[], Iterable[Job]],
        fail: Callable[[Job, str, str], None],
        fallback: Fallback,
        offers: OfferBook,
        judging: Judging,
        racing: Racing,
        continuing: Continuing,
    ) -> None:
        self._context = context
        self._payer = payer
        self._top_ups = top_ups
        self._reestablish = reestablish
        self._delivery = delivery
        self._breaks = breaks
        self._jobs = jobs
        self._fail = fail
        self._fallback = fallback
        self._offers = offers
        self._judging = judging
        self._racing = racing
        self._continuing = continuing
        self._sessions: dict[bytes, bool] = {}  # provider -> whether the stream is up

    def next_bid(self, job: Job, code: str) -> None:
        """The attempt failed before its first chunk: try the next bid, or leave it to another
        award of the request, or give up."""
        context = self._context
        provider = job.candidate.signed.sender if job.candidate else b""
        job.last_code = code
        self._judging.failed(job, code)
        if job.direct:
            self._offers.drop(provider, job.ask.model)
        self.drop_opening(job)
        job.contest.failed.append(provider)
        job.candidate, job.attempt, job.role = None, None, AwardRole.RETRY
        job.step(JobEvent.NEXT_BID)
        retrying = events.Retrying(provider, code, job.elapsed_ns(self._context.now_ns))
        context.deliver(job.ask.ask_id, retrying)
        context.note("award.failed", request_id=job.id, peer_id=provider, code=code)
        self.next(job)

    def drop_opening(self, job: Job) -> None:
        """The award is off: a channel that was to be opened by it never will be, and its deposit
        is wanted back. Else it would stand in the way of the next job's."""
        scored = job.candidate
        if scored is None or job.attempt is not None:
            return
        for channel in self._payer.open_for(scored, 0):
            opening = channel.state is ChannelState.OPENING
            if opening and self._payer.unsent(channel, scored) is not None:
                self._payer.refused(channel)

    def next(self, job: Job) -> None:
        """Try the best bid that is left, or give up."""
        context = self._context
        while job.queue and job.contest.attempts < job.ask.choice.awards_max:
            scored = job.queue.pop(0)
            if scored.bid.expires_at_ns <= context.now_ns:
                job.last_code = job.last_code or "award.unknown_bid"
                continue
            if job.exposed_ucr() + scored.cost_max_ucr > job.progress.ask.price_max_ucr:
                # What was awarded before may still cost its share of the cap.
                job.last_code = job.last_code or "request.price_too_low"
                continue
            job.candidate = scored
            job.contest.attempts += 1
            provider = scored.signed.sender
            self._judging.awarded(job, provider)
            accept = TimerKey("accept", job.id, job.slot)
            context.timers.set(accept, context.now_ns + limits.ACCEPT_TIMEOUT_NS)
            self._racing.watch(job)
            if self._sessions.get(provider):
                self._award(job, scored)
            else:
                self.connect(provider, scored.bid.addresses)
            return
        if len(job.contest.runs) > 1:
            self._racing.out(job)
            return
        code = job.last_code if job.contest.attempts <= 1 else "request.all_failed"
        code, detail = code or "request.all_failed", f"last reason: {job.last_code}"
        if not self._fallback.take(job, code, detail):
            self._fail(job, code, detail)

    def keep_warm(self, offers: list[ScoredBid]) -> None:
        """Have streams to the sellers that are next in line: a cold dial costs more than an
        auction."""
        for scored in offers:
            self.connect(scored.signed.sender, scored.bid.addresses)

    def is_up(self, provider: bytes) -> bool:
        """Whether our stream to a peer is up."""
        return self._sessions.get(provider, False)

    def unfunded(self, cid: bytes, code: str) -> None:
        """The deposit of a channel that a job was to open can't be had."""
        bid_id = self._payer.opening_bid(cid)
        for job in list(self._jobs()):
            scored = job.candidate
            if job.state is JobState.CONNECTING and scored and scored.signed.digest == bid_id:
                self.next_bid(job, code)

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
        for channel in self._payer.detached(provider):
            self._reestablish.tell(session, channel)
        self.dispatch(provider)

    def session_closed(self, provider: bytes, code: str, *, may_resume: bool) -> None:
        """The stream is gone: waiting jobs try elsewhere, running ones wait for it or end."""
        was_up = self._sessions.pop(provider, False)
        self._breaks.session_closed(provider, may_resume=may_resume)
        for job in list(self._jobs()):
            if job.candidate is None or job.candidate.signed.sender != provider:
                continue
            if job.state is JobState.STREAMING and not (job.attempt and job.attempt.away):
                vanished = "mid-stream; what arrived is paid"
                self._continuing.broke_off(job, "provider.vanished", vanished)
            elif job.waits:
                vanished = "provider.vanished"
                self.next_bid(job, code if job.state is JobState.CONNECTING else vanished)
        if was_up:
            self.redial(provider)
        elif self._awaited(provider):
            again_ns = self._context.now_ns + limits.RESUME_RETRY_NS
            self._context.timers.set(TimerKey("redial", provider), again_ns)

    def redial(self, provider: bytes) -> None:
        """Reach a provider again, if a lane waits for its stream."""
        for scored in self._awaited(provider):
            self.connect(provider, scored.bid.addresses)

    def _awaited(self, provider: bytes) -> list[ScoredBid]:
        """The bids whose lanes wait for the provider's stream."""
        attempts = [job.attempt for job in self._jobs() if job.attempt is not None]
        return [a.scored for a in attempts if a.away and a.provider == provider]

    def dispatch(self, provider: bytes) -> None:
        """Send the awards that waited for this provider's stream or channel."""
        if not self.is_up(provider):
            return  # `session_opened` dispatches again, once the peer knows what is detached
        for job in list(self._jobs()):
            scored = job.candidate
            waiting = job.state is JobState.CONNECTING and scored is not None
            if waiting and scored is not None and scored.signed.sender == provider:
                self._award(job, scored)

    def _award(self, job: Job, scored: ScoredBid) -> None:
        """Lane and first voucher, logged; then the award, with a new channel's opening."""
        ask, request = job.ask, job.request.message
        committed_ucr, deadline_ns = self._delivery.attempts.committed_ucr, request.deadline_ns
        channel = self._payer.choose(scored, deadline_ns, committed_ucr)
        opening = None
        if channel is not None and channel.state is not ChannelState.READY:
            opening = self._payer.unsent(channel, scored)
            if opening is None:
                return  # `dispatch` comes again when it is accepted or re-established
        raising = self._top_ups.for_award
        if channel is None and raising(scored, deadline_ns, committed_ucr, ask.deposit_ucr):
            return  # likewise, when the payee has answered
        try:
            if channel is None:
                channel, opening = self._payer.open(scored, ask.deposit_ucr)
            if opening is not None and not self._payer.fund(channel):
                return  # `dispatch` comes again when the anchor holds the deposit
            channel.step(ChannelEvent.LANE_OPEN)
        except RemoteError as error:
            self.next_bid(job, error.code)
            return
        attempt = open_lane(self._context, job, scored, channel)
        start = headroom_ucr(scored, input_tokens_estimate(ask.prompt), request.output_tokens_max)
        voucher = self._payer.issue(
            channel, self._payer.payable_ucr(channel) + start, ask.advance_max_ucr
        )
        if job.direct:
            self._context.send(attempt.session, DirectRequest(job.request.data))
        award = award_message(self._context, job, attempt, opening, voucher)
        self._context.send(attempt.session, award)
        job.step(JobEvent.CONNECTED)
        job.attempt = attempt
        job.progress.attempts.append(attempt)
        self._delivery.attempts.add(attempt)
        self._tell_award(job, attempt, opening is not None)
        if voucher is not None:
            self._delivery.paying.tell(job, voucher)

    def _tell_award(self, job: Job, attempt: Attempt, opened: bool) -> None:
        context, channel = self._context, attempt.channel
        awarded = events.Awarded(
            provider=attempt.provider,
            attempt=job.contest.attempts,
            cid=channel.cid,
            opened_channel=opened,
            deposit_ucr=channel.deposit_ucr,
            at_ns=job.elapsed_ns(context.now_ns),
            role=job.role.name.lower(),
        )
        context.deliver(job.ask.ask_id, awarded)
        context.note(
            "award.sent", request_id=job.id, peer_id=attempt.provider, lane=attempt.lane.lane
        )

    def give_up(self, job: Job, code: str) -> None:
        """The provider didn't start in time; it may be slow, so its lane is cancelled."""
        if job.attempt is not None:
            self._delivery.abandon(job.attempt)
        self.next_bid(job, code)
