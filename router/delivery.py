"""The paying end of running lanes: chunks in, vouchers out, receipt, cancel, end.

An attempt whose answer is no longer wanted stays here until the provider says that its lane
ended: what was in flight is still checked and paid, so that both sides agree on the total.
"""

from typing import TYPE_CHECKING

from protocol import signing
from protocol.channel import Channel, ChannelEvent, ChannelState, LaneState
from protocol.errors import CODES, RemoteError
from protocol.job import JobEvent, JobState
from protocol.messages import (
    Accept,
    Cancel,
    Chunk,
    JobFailed,
    NeedVoucher,
    ReceiptAck,
    Refuse,
    Result,
    Voucher,
)
from protocol.records import LaneClosed, ReceiptAcknowledged
from router import events
from router.actions import SessionKey
from router.attempt import Attempt
from router.context import Context
from router.job import Job
from router.payer import Payer, headroom_ucr
from router.timers import TimerKey

if TYPE_CHECKING:
    from router.requester import Requester


class Delivery:
    """Lanes that this node pays for, by channel and number."""

    def __init__(self, context: Context, payer: Payer, requester: "Requester") -> None:
        self._context = context
        self._payer = payer
        self._requester = requester
        self._attempts: dict[tuple[bytes, int], Attempt] = {}

    def add(self, attempt: Attempt) -> None:
        """Watch a lane that was just awarded."""
        self._attempts[attempt.channel.cid, attempt.lane.lane] = attempt

    def committed_ucr(self, channel: Channel) -> int:
        """What the lanes that run on `channel` may still cost."""
        return sum(
            max(0, attempt.scored.cost_max_ucr - attempt.lane.due_ucr)
            for attempt in self._attempts.values()
            if attempt.channel is channel
        )

    def _find(self, session: SessionKey, cid: bytes, lane: int) -> Attempt:
        attempt = self._attempts.get((cid, lane))
        if attempt is None or attempt.session != session:
            # A lane that ended a moment ago may still have frames in flight.
            raise RemoteError("chunk.unknown_lane", penalize=False)
        return attempt

    def _job(self, attempt: Attempt) -> Job | None:
        job = self._requester.job(attempt.request)
        return job if job is not None and job.attempt is attempt else None

    # --- the lane runs ---------------------------------------------------------------------

    def take_accept(self, session: SessionKey, message: Accept) -> None:
        """The provider starts."""
        context = self._context
        attempt = self._find(session, message.cid, message.lane)
        with self._fault(attempt):
            attempt.take_accept(context.network, message, context.verify)
            opened = attempt.channel.state is ChannelState.OPENING
            if opened:
                attempt.channel.step(ChannelEvent.ACCEPT)
        if self._job(attempt) is not None:
            context.timers.cancel(TimerKey("accept", attempt.request))
            self._watch(attempt)
        if opened:
            self._requester.awarding.dispatch(session.peer)

    def take_chunk(self, session: SessionKey, chunk: Chunk) -> None:
        """Check, deliver, pay."""
        context = self._context
        attempt = self._find(session, chunk.cid, chunk.lane)
        with self._fault(attempt):
            attempt.channel.step(ChannelEvent.CHUNK)
            attempt.take_chunk(context.network, chunk, context.verify)
        job = self._job(attempt)
        if job is None:
            return
        job.step(JobEvent.CHUNK)
        text = events.Text(
            chunk.text,
            chunk.output_tokens,
            chunk.due_ucr,
            job.elapsed_ns(context.now_ns),
            chunk.logprobs,
        )
        context.deliver(job.ask.ask_id, text)
        self._watch(attempt)
        self._pay(job, attempt)

    def _pay(self, job: Job, attempt: Attempt) -> None:
        """Keep the vouchers between half a chunk and a chunk ahead of what is due."""
        channel = attempt.channel
        left = attempt.parameters.output_tokens_max - attempt.output_tokens
        headroom = headroom_ucr(attempt.scored, 0, left)
        if channel.total_ucr - channel.due_ucr > headroom // 2:
            return
        target = channel.due_ucr + headroom
        self._send_voucher(job, attempt, target)

    def _send_voucher(self, job: Job, attempt: Attempt, target_ucr: int) -> None:
        channel = attempt.channel
        voucher = self._payer.issue(channel, target_ucr, job.ask.advance_max_ucr)
        if voucher is not None:
            self._context.send(attempt.session, voucher)
            self.tell_paid(job, voucher)

    def tell_paid(self, job: Job, voucher: Voucher) -> None:
        """Report a voucher to its asker and the log."""
        at_ns = job.elapsed_ns(self._context.now_ns)
        paid = events.Paid(voucher.cid, voucher.total_ucr, at_ns)
        self._context.deliver(job.ask.ask_id, paid)
        self._context.note("voucher.sent", request_id=job.id, total_ucr=voucher.total_ucr)

    def take_need(self, session: SessionKey, message: NeedVoucher) -> None:
        """The provider is paused until the total reaches what it names."""
        attempt = self._find(session, message.cid, message.lane)
        job = self._job(attempt)
        if job is None or message.total_ucr <= attempt.channel.total_ucr:
            return  # already paid: the voucher is on its way
        channel = attempt.channel
        advance = message.total_ucr - channel.due_ucr
        if message.total_ucr > channel.deposit_ucr:
            detail = f"{message.total_ucr} of {channel.deposit_ucr} ucr"
            self._requester.fail(job, "channel.over_deposit", detail)
            return
        if advance > job.ask.advance_max_ucr:
            detail = f"{advance} ucr wanted, {job.ask.advance_max_ucr} allowed"
            self._requester.fail(job, "channel.advance_limit", detail)
            return
        self._send_voucher(job, attempt, message.total_ucr)

    # --- the lane ends ---------------------------------------------------------------------

    def take_result(self, session: SessionKey, result: Result) -> None:
        """Check the receipt, counter-sign it, pay the rest."""
        context = self._context
        attempt = self._find(session, result.receipt.cid, result.receipt.lane)
        with self._fault(attempt):
            identity = attempt.check_result(context.network, result, context.verify)
        job = self._job(attempt)
        ack = context.signer.sign(signing.receipt_ack_bytes(context.network, identity))
        context.append(ReceiptAcknowledged(result.receipt, result.signature, ack))
        self._drop(attempt)
        self._payer.settle(session, attempt.channel)
        context.send(session, ReceiptAck(attempt.channel.cid, attempt.lane.lane, identity, ack))
        context.note("receipt.acknowledged", request_id=attempt.request, receipt_id=identity)
        if job is None:
            return
        job.step(JobEvent.RESULT)
        done = events.Done(result.receipt, identity, job.elapsed_ns(self._context.now_ns))
        context.deliver(job.ask.ask_id, done)
        self._requester.forget(job)

    def take_failed(self, session: SessionKey, message: JobFailed) -> None:
        """The provider ended the lane without a result."""
        attempt = self._find(session, message.cid, message.lane)
        with self._fault(attempt):
            if attempt.lane.state is LaneState.OFFERED:
                raise RemoteError("session.protocol", "failed before accepting")
        code = message.code if message.code in CODES else "provider.refused"
        job = self._job(attempt)
        self._close_lane(attempt, code)
        self._payer.settle(session, attempt.channel)
        if job is None:
            return
        if job.state is JobState.AWARDED:
            self._requester.awarding.next_bid(job, code)
        else:
            self._requester.fail(job, code, "the provider ended the job")

    def take_refuse(self, session: SessionKey, message: Refuse) -> None:
        """An award, re-establish or close was not taken."""
        code = message.code if message.code in CODES else "provider.refused"
        for attempt in list(self._attempts.values()):
            if attempt.request == message.subject and attempt.session == session:
                self._refused(attempt, code)
                return
        self._payer.take_refuse(session, message.subject, code)
        self._requester.awarding.dispatch(session.peer)

    def _refused(self, attempt: Attempt, code: str) -> None:
        if attempt.lane.state is not LaneState.OFFERED:
            raise RemoteError("session.protocol", "refused after accepting")
        job, channel = self._job(attempt), attempt.channel
        self._close_lane(attempt, code)
        if channel.state is ChannelState.OPENING and not channel.lanes:
            self._payer.refused(channel)
        elif channel.state is ChannelState.READY:
            self._payer.repeat(attempt.session, channel)
        if job is not None:
            self._requester.awarding.next_bid(job, code)
        self._requester.awarding.dispatch(attempt.provider)

    def abandon(self, attempt: Attempt) -> None:
        """The answer is no longer wanted: ask the provider to stop."""
        if not attempt.live:
            return
        attempt.live = False
        self._context.timers.cancel(TimerKey("stall", attempt.request))
        if (attempt.channel.cid, attempt.lane.lane) in self._attempts:
            self._context.send(attempt.session, Cancel(attempt.channel.cid, attempt.lane.lane))

    def session_closed(self, provider: bytes) -> None:
        """The stream is gone; its lanes stay open on the channel until it is re-established."""
        for key, attempt in list(self._attempts.items()):
            if attempt.provider == provider:
                attempt.live = False
                del self._attempts[key]
        self._payer.lost(provider)

    def _close_lane(self, attempt: Attempt, code: str) -> None:
        self._context.append(
            LaneClosed(
                attempt.channel.cid,
                attempt.lane.lane,
                attempt.lane.chunks,
                attempt.lane.due_ucr,
                code,
                self._context.now_ns,
            )
        )
        self._drop(attempt)

    def _drop(self, attempt: Attempt) -> None:
        if attempt.live:  # else the timer is that of the request's next attempt
            self._context.timers.cancel(TimerKey("stall", attempt.request))
        self._attempts.pop((attempt.channel.cid, attempt.lane.lane), None)

    def _watch(self, attempt: Attempt) -> None:
        if attempt.live:
            stall = TimerKey("stall", attempt.request)
            self._context.timers.set(stall, self._context.now_ns + attempt.patience_ns())

    def _fault(self, attempt: Attempt) -> "_Fault":
        return _Fault(self, attempt)

    def fault(self, attempt: Attempt, error: RemoteError) -> None:
        """The provider cheated or broke: freeze the channel, stop the lane, tell the asker."""
        self._close_lane(attempt, error.code)
        if attempt.channel.allows(ChannelEvent.FAULT):
            self._payer.freeze(attempt.channel, error.code)
        self._context.send(attempt.session, Cancel(attempt.channel.cid, attempt.lane.lane))
        job = self._job(attempt)
        if job is None:
            return
        attempt.live = False
        if job.state is JobState.AWARDED:
            self._requester.awarding.next_bid(job, error.code)
        else:
            self._requester.fail(job, error.code, error.detail)


class _Fault:
    """Runs a check; a RemoteError in it becomes a fault of the lane, then goes on up."""

    def __init__(self, delivery: Delivery, attempt: Attempt) -> None:
        self._delivery = delivery
        self._attempt = attempt

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RemoteError):
            self._delivery.fault(self._attempt, error)
