"""The paying end of running lanes: chunks in, vouchers out, receipt, cancel, end.

An attempt whose answer is no longer wanted stays here until the provider says that its lane
ended: what was in flight is still checked and paid, so that both sides agree on the total.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protocol.channel import Channel, ChannelEvent, ChannelState
from protocol.errors import CODES, LocalError, RemoteError
from protocol.fields import Outcome
from protocol.job import JobEvent, JobState
from protocol.lane import LaneState
from protocol.messages import (
    Accept,
    Cancel,
    Chunk,
    JobFailed,
    NeedVoucher,
    Refuse,
    Result,
    TopUpAck,
)
from protocol.records import AuditOpened, LaneClosed, ReceiptAcknowledged
from router import events
from router.actions import SessionKey
from router.attempt import Attempt, Attempts, said_outcome
from router.audits import watch_audit
from router.context import Context
from router.job import Job
from router.payer import Payer
from router.paying import Paying
from router.receipts import countersign, countersigned
from router.timers import TimerKey
from router.top_ups import TopUps

if TYPE_CHECKING:
    from router.requester import Requester


class Delivery:
    """Lanes that this node pays for, by channel and number."""

    def __init__(
        self, context: Context, payer: Payer, top_ups: TopUps, requester: "Requester"
    ) -> None:
        self._context = context
        self._payer = payer
        self._requester = requester
        self._top_ups = top_ups
        self.paying = Paying(context, payer, top_ups)
        self.attempts = Attempts()

    def job_of(self, attempt: Attempt) -> Job | None:
        """The request that still wants the lane's answer."""
        for run in self._requester.runs(attempt.request):
            if run.attempt is attempt:
                return run
        return None

    # --- the lane runs ---------------------------------------------------------------------

    def take_accept(self, session: SessionKey, message: Accept) -> None:
        """The provider starts."""
        context = self._context
        attempt = self.attempts.find(session, message.cid, message.lane)
        with self._fault(attempt):
            attempt.take_accept(context.network, message, context.verify)
            opened = attempt.channel.state is ChannelState.OPENING
            if opened:
                attempt.channel.step(ChannelEvent.ACCEPT)
        if self.job_of(attempt) is not None:
            context.timers.cancel(TimerKey("accept", attempt.request, attempt.slot))
            self.watch(attempt)
        if opened:
            self._requester.awarding.dispatch(session.peer)

    def take_chunk(self, session: SessionKey, chunk: Chunk) -> None:
        """Check, deliver, pay."""
        context = self._context
        attempt = self.attempts.find(session, chunk.cid, chunk.lane)
        with self._fault(attempt):
            attempt.channel.step(ChannelEvent.CHUNK)
            attempt.take_chunk(context.network, chunk, context.verify)
            attempt.pace.saw(chunk.output_tokens, context.now_ns)
        job = self.job_of(attempt)
        if job is None:
            return
        if job.waits:
            self._requester.racing.won(job)
        job.step(JobEvent.CHUNK)
        job.progress.read(chunk.text)
        text = events.Text(
            chunk.text,
            job.progress.output_tokens + chunk.output_tokens,
            job.progress.paid_ucr,
            job.elapsed_ns(context.now_ns),
            chunk.logprobs,
            attempt.provider,
        )
        context.deliver(job.ask.ask_id, text)
        self.watch(attempt)
        self.paying.ahead(job, attempt)

    def take_need(self, session: SessionKey, message: NeedVoucher) -> None:
        """The provider is paused until the total reaches what it names."""
        attempt = self.attempts.find(session, message.cid, message.lane)
        attempt.needed_ucr = message.total_ucr
        self._pay_needed(attempt)

    def _pay_needed(self, attempt: Attempt) -> None:
        job = self.job_of(attempt)
        if job is None:
            return
        try:
            self.paying.needed(job, attempt)
        except LocalError as error:
            if len(job.contest.runs) > 1:
                self._requester.awarding.give_up(job, error.code)
            else:
                self._requester.fail(job, error.code, error.detail, error.short_ucr)

    def take_top_up_ack(self, session: SessionKey, message: TopUpAck) -> None:
        """The payee counts on a larger deposit."""
        channel = self._top_ups.take_ack(session, message)
        if channel is not None:
            self.topped_up(channel)

    def topped_up(self, channel: Channel) -> None:
        """The payee took a larger deposit, or refused: lanes that waited for it go on, or end."""
        for attempt in self.attempts.of(channel):
            if attempt.needed_ucr:
                self._pay_needed(attempt)
        self._requester.awarding.dispatch(channel.payee)

    # --- the lane ends ---------------------------------------------------------------------

    def take_result(self, session: SessionKey, result: Result) -> None:
        """Check the receipt, counter-sign it, pay the rest."""
        context = self._context
        if again := countersigned(context, session, result):
            context.send(session, again)  # the provider missed it
            return
        attempt = self.attempts.find(session, result.receipt.cid, result.receipt.lane)
        with self._fault(attempt):
            identity = attempt.check_result(context.network, result, context.verify)
        job = self.job_of(attempt)
        ack = countersign(context, result, identity)
        lane, held = attempt.lane, job.ask if job is not None else None
        if held is not None and held.audit_ns:
            until_ns = context.now_ns + held.audit_ns
            opened = AuditOpened(attempt.channel.cid, lane.lane, lane.held_ucr, until_ns)
            context.append(opened)
        else:
            lane.held_ucr = 0
        context.append(ReceiptAcknowledged(result.receipt, result.signature, ack.signature))
        self.drop(attempt)
        self._payer.settle(session, attempt.channel)
        context.send(session, ack)
        if lane.audit_until_ns:
            watch_audit(context, attempt.channel, lane)
        attempt.receipt_id = identity
        context.note("receipt.acknowledged", request_id=attempt.request, receipt_id=identity)
        if job is None:
            return
        job.step(JobEvent.RESULT)
        at_ns, others = job.elapsed_ns(context.now_ns), job.progress.others(attempt)
        done = events.Done(result.receipt, identity, at_ns, others=others)
        context.deliver(job.ask.ask_id, done)
        self._requester.judging.delivered(job, attempt, identity)
        self._requester.forget(job)

    def take_failed(self, session: SessionKey, message: JobFailed) -> None:
        """The provider ended the lane without a result."""
        attempt = self.attempts.find(session, message.cid, message.lane)
        with self._fault(attempt):
            if attempt.lane.state is LaneState.OFFERED:
                raise RemoteError("session.protocol", "failed before accepting")
        code = message.code if message.code in CODES else "provider.refused"
        attempt.said = said_outcome(code, attempt.lane.chunks)
        job = self.job_of(attempt)
        self.close_lane(attempt, code)
        self._payer.settle(session, attempt.channel)
        if job is None:
            return
        if job.state is JobState.AWARDED:
            self._requester.awarding.next_bid(job, code)
        else:
            self._requester.continuing.broke_off(job, code, "the provider ended the job")

    def take_refuse(self, session: SessionKey, message: Refuse) -> None:
        """An award, re-establish or close was not taken."""
        code = message.code if message.code in CODES else "provider.refused"
        for attempt in self.attempts.with_provider(session.peer):
            if attempt.request == message.subject:
                self._refused(attempt, code)
                return
        channel = self._payer.take_refuse(session, message.subject, code)
        if channel.state is ChannelState.READY:
            self._top_ups.refused(channel.cid, code)
            self.topped_up(channel)
        self._requester.breaks.resumed(channel, [])
        self._requester.awarding.dispatch(session.peer)

    def _refused(self, attempt: Attempt, code: str) -> None:
        if attempt.lane.state is not LaneState.OFFERED:
            raise RemoteError("session.protocol", "refused after accepting")
        job, channel = self.job_of(attempt), attempt.channel
        attempt.said = Outcome.REFUSED
        self.close_lane(attempt, code)
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
        self._context.timers.cancel(_stall(attempt))
        if attempt.away and not attempt.asked:
            self.drop(attempt)
        elif attempt in self.attempts and not attempt.away:
            self.cancel(attempt)

    def cancel(self, attempt: Attempt) -> None:
        """Ask the provider to stop."""
        self._context.send(attempt.session, Cancel(attempt.channel.cid, attempt.lane.lane))

    def close_lane(self, attempt: Attempt, code: str) -> None:
        """Log the end of a lane that has no receipt."""
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
        self.drop(attempt)

    def drop(self, attempt: Attempt) -> None:
        """A lane is no longer ours to watch."""
        if attempt.live:  # else the timer is that of the request's next attempt
            self._context.timers.cancel(_stall(attempt))
        self.attempts.remove(attempt)

    def watch(self, attempt: Attempt) -> None:
        """Wait for the lane's next chunk from now on."""
        if attempt.live:
            at_ns = self._context.now_ns + attempt.patience_ns()
            self._context.timers.set(_stall(attempt), at_ns)

    @contextmanager
    def _fault(self, attempt: Attempt) -> Iterator[None]:
        """Runs a check; a RemoteError in it becomes a fault of the lane, then goes on up."""
        try:
            yield
        except RemoteError as error:
            self.fault(attempt, error)
            raise

    def fault(self, attempt: Attempt, error: RemoteError) -> None:
        """The provider cheated or broke: freeze the channel, stop the lane, tell the asker."""
        self.close_lane(attempt, error.code)
        if attempt.channel.allows(ChannelEvent.FAULT):
            self._payer.freeze(attempt.channel, error.code)
        self._context.send(attempt.session, Cancel(attempt.channel.cid, attempt.lane.lane))
        job = self.job_of(attempt)
        if job is None:
            return
        attempt.live = False
        if job.state is JobState.AWARDED:
            self._requester.awarding.next_bid(job, error.code)
        else:
            self._requester.continuing.broke_off(job, error.code, error.detail)


def _stall(attempt: Attempt) -> TimerKey:
    return TimerKey("stall", attempt.request, attempt.slot)
