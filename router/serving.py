"""Serving awarded lanes: engine text into signed chunks, within the credit window, to receipt.

Sans-IO. A chunk is sent only when its price is durably reserved; a lane whose payer lags
pauses and says what it needs. Rule: protocol/README.md, "Chunks" and "Receipts".
"""

from protocol import limits, signing, transcript
from protocol.channel import Channel, ChannelEvent, ChannelState
from protocol.errors import RemoteError
from protocol.fields import LaneClaim, TokenLogprob
from protocol.lane import Lane, LaneEvent, LaneState
from protocol.messages import Accept, Award, Cancel, Chunk, JobFailed, Resume
from protocol.records import LaneClosed, ReceiptSigned
from router.actions import CancelJob, JobFinished, SessionKey
from router.chunking import Chunking
from router.context import Context
from router.payee import Payee
from router.provider_job import PlacedBid, ProviderJob, split_piece
from router.quoting import input_tokens_allowed
from router.receipts import sign
from router.resending import Resending
from router.timers import TimerKey


class Serving:
    """The lanes that this node serves now."""

    def __init__(self, context: Context, payee: Payee) -> None:
        self._context = context
        self._payee = payee
        self._resending = Resending()
        self._chunking = Chunking(context, payee, self._resending)
        self._jobs: dict[bytes, ProviderJob] = {}
        self._wanted: dict[tuple[bytes, bytes, int], int] = {}

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    def running_of(self, model: str, payer: bytes | None = None) -> int:
        """Jobs of one model that have not ended: all, or those of one payer."""
        jobs = (job for job in self._jobs.values() if payer in (None, job.session.peer))
        return sum(job.placed.model == model for job in jobs)

    def start(
        self,
        job_id: bytes,
        session: SessionKey,
        award: Award,
        placed: PlacedBid,
        channel: Channel,
    ) -> None:
        """A lane was taken and its records are on their way to disk: say so, await text."""
        context = self._context
        commitment = placed.request.message.prompt_commitment
        job = ProviderJob(
            job_id=job_id,
            placed=placed,
            session=session,
            channel=channel,
            lane=channel.lanes[award.lane],
            parameters=award.parameters,
            commitment=commitment,
            transcript=transcript.transcript_start(
                context.network, award.request_id, award.bid_id, commitment
            ),
            started_at_ns=context.now_ns,
            input_tokens_most=input_tokens_allowed(award.prompt, placed.request.message),
        )
        job.lane.step(LaneEvent.ACCEPT)
        self._jobs[job_id] = job
        # A payer that pays in crumbs must not hold a place for ever.
        deadline_ns = placed.request.message.deadline_ns
        context.timers.set(TimerKey("overdue", job_id), deadline_ns)
        signed = signing.accept_bytes(
            context.network, channel.cid, channel.deposit_ucr, award.lane, award.bid_id
        )
        context.send(session, Accept(channel.cid, award.lane, context.signer.sign(signed)))
        context.note(
            "award.won", request_id=award.request_id, peer_id=session.peer, lane=award.lane
        )

    # --- the engine's side -----------------------------------------------------------------

    def job_started(self, job_id: bytes, input_tokens: int) -> None:
        """The prompt's real length is known; more than may be billed for it ends the job."""
        if job := self._jobs.get(job_id):
            if input_tokens > job.input_tokens_most:
                self._end(job, "award.prompt_too_large")
            else:
                job.input_tokens = input_tokens
                self._pump(job)

    def job_tokens(
        self,
        job_id: bytes,
        pieces: tuple[tuple[str, int], ...],
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> None:
        """More text from the engine."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.logprobs.extend(logprobs)
            for text, count in pieces:
                job.pieces.extend(split_piece(text, count))
            self._pump(job)

    def job_finished(self, finished: JobFinished) -> None:
        """The engine is done; what waits for payment is still sent as it is paid."""
        job = self._jobs.get(finished.job_id)
        if job is not None:
            job.finished = finished
            self._pump(job)

    def job_broke(self, job_id: bytes, code: str) -> None:
        """The engine failed; what was sent stays due."""
        if job := self._jobs.get(job_id):
            self._end(job, code)

    def _pump(self, job: ProviderJob) -> None:
        """Send what may be sent; behind the last of it, the receipt."""
        if self._chunking.pump(job) and job.finished is not None:
            self._finish(job)
        elif job.away and job.waiting_bytes > limits.RESEND_LANE_BYTES_MAX:
            self._drop(job)

    # --- payment ---------------------------------------------------------------------------

    def voucher_taken(self, channel: Channel) -> None:
        """A better voucher is held: lanes that waited for it go on."""
        if channel.voucher is not None:
            self._resending.received(channel.voucher)
        for job in list(self._jobs.values()):
            if job.channel is channel:
                self._chunking.paid(job)
                self._pump(job)

    def handle_timer(self, key: TimerKey) -> None:
        """A payer did not pay, come back or counter-sign in time, or the deadline is past."""
        if key.kind == "unacknowledged":
            self._give_up_receipt(key.subject, key.lane)
        elif job := self._jobs.get(key.subject):
            if key.kind == "away":
                self._drop(job)
            else:
                self._end(job, "channel.unpaid" if key.kind == "unpaid" else "request.deadline")

    # --- the end ---------------------------------------------------------------------------

    def _finish(self, job: ProviderJob) -> None:
        context = self._context
        receipt = job.receipt(context.public_key)
        identity, signature = sign(context, receipt)
        context.append(ReceiptSigned(receipt, signature))
        self._send_result(job.session, job.lane)
        context.note("receipt.signed", request_id=job.lane.request_id, receipt_id=identity)
        self._forget(job)

    def _send_result(self, session: SessionKey, lane: Lane) -> None:
        """Send the receipt of a lane that is done, from its record, and await the answer."""
        context, result = self._context, lane.result
        assert result is not None
        context.send(session, result)
        timer = TimerKey("unacknowledged", result.receipt.cid, lane.lane)
        context.timers.set(timer, context.now_ns + limits.ACKNOWLEDGE_TIMEOUT_NS)

    def acknowledged(self, cid: bytes, number: int) -> None:
        """The receipt of a lane is counter-signed."""
        self._context.timers.cancel(TimerKey("unacknowledged", cid, number))
        self._resending.forget(cid, number)

    def _give_up_receipt(self, cid: bytes, number: int) -> None:
        """No counter-signature came: the lane is closed at its price without one."""
        context, channel = self._context, self._context.ledger.channel(cid)
        lane = channel.lanes.get(number) if channel else None
        # Without a stream the payer may still bring it when it is back.
        if channel is None or lane is None or channel.state is not ChannelState.READY:
            return
        code = "receipt.unacknowledged"
        context.append(LaneClosed(cid, number, lane.chunks, lane.due_ucr, code, context.now_ns))
        context.note("receipt.unacknowledged", request_id=lane.request_id, peer_id=channel.peer)
        self._resending.forget(cid, number)

    def take_cancel(self, session: SessionKey, cancel: Cancel) -> None:
        """The payer wants no more; what was sent stays due."""
        for job in list(self._jobs.values()):
            same_lane = (job.channel.cid, job.lane.lane) == (cancel.cid, cancel.lane)
            if same_lane and job.session == session:
                self._end(job, "engine.cancelled")

    def _end(self, job: ProviderJob, code: str) -> None:
        """Stop a lane without a receipt."""
        context, lane = self._context, job.lane
        context.act(CancelJob(job.job_id))
        context.append(
            LaneClosed(job.channel.cid, lane.lane, lane.chunks, lane.due_ucr, code, context.now_ns)
        )
        if not job.away:
            context.send(job.session, JobFailed(job.channel.cid, lane.lane, code))
        context.note("job.failed", request_id=lane.request_id, code=code, due_ucr=lane.due_ucr)
        self._resending.forget(job.channel.cid, lane.lane)
        self._forget(job)

    def _forget(self, job: ProviderJob) -> None:
        for kind in ("unpaid", "overdue", "away"):
            self._context.timers.cancel(TimerKey(kind, job.job_id))
        self._jobs.pop(job.job_id, None)

    # --- a stream breaks, and comes back ----------------------------------------------------

    def session_closed(self, payer: bytes, *, may_resume: bool) -> None:
        """The payer's stream is gone: its jobs wait for it a while, or stop."""
        context = self._context
        self._wanted = {key: at for key, at in self._wanted.items() if key[0] != payer}
        for job in list(self._jobs.values()):
            if job.session.peer != payer or job.away:
                continue
            if may_resume:
                job.away = True
                timer = TimerKey("away", job.job_id)
                context.timers.set(timer, context.now_ns + limits.RESUME_GRACE_NS)
            else:
                self._drop(job)

    def _drop(self, job: ProviderJob) -> None:
        """Stop a job whose payer is gone; its lane is settled when it comes back."""
        self._context.act(CancelJob(job.job_id))
        self._resending.forget(job.channel.cid, job.lane.lane)
        self._forget(job)

    def stop(self, channel: Channel) -> None:
        """The channel ends: nothing more is sent on it."""
        for job in list(self._jobs.values()):
            if job.channel is channel:
                self._drop(job)
        for number in channel.lanes:
            self._resending.forget(channel.cid, number)

    def want(self, session: SessionKey, message: Resume) -> None:
        """The payer wants a broken lane to go on. RemoteError `channel.unknown`,
        `channel.wrong_state`."""
        channel = self._payee.find(session, message.cid)
        channel.check(ChannelEvent.REESTABLISH)
        if message.lane in channel.lanes:
            self._wanted[session.peer, message.cid, message.lane] = message.sequence

    def take_wanted(self, channel: Channel, claimed: dict[int, LaneClaim]) -> list[int]:
        """The broken lanes that go on, by what the payer wants and claims; all others stop.

        A lane that is done and that the payer does not name waits for its receipt's answer.
        RemoteError `channel.bad_lanes`.
        """
        go_on = []
        for number, lane in channel.lanes.items():
            claim = claimed.get(number)
            wanted = self._wanted.pop((channel.payer, channel.cid, number), None)
            if claim is None:
                if lane.result is not None and lane.resumes < limits.RESUMES_PER_LANE_MAX:
                    go_on.append(number)
                continue
            if wanted is not None and wanted != claim.chunks + 1:
                raise RemoteError("channel.bad_lanes", "wants another chunk than it lacks")
            if wanted is not None and self._unsent(channel, lane, claim) is not None:
                go_on.append(number)
        for job in list(self._jobs.values()):
            if job.channel is channel and job.lane.lane not in go_on:
                self._drop(job)
        return go_on

    def _unsent(self, channel: Channel, lane: Lane, claim: LaneClaim) -> list[Chunk] | None:
        """The chunks that the payer lacks; None when the lane can't go on."""
        job = self._job_of(channel, lane)
        if lane.resumes >= limits.RESUMES_PER_LANE_MAX or not (job or lane.result):
            return None
        return self._resending.after(channel.cid, lane.lane, claim.chunks, lane.chunks)

    def _job_of(self, channel: Channel, lane: Lane) -> ProviderJob | None:
        for job in self._jobs.values():
            if job.channel is channel and job.lane is lane:
                return job
        return None

    def go_on(self, session: SessionKey, channel: Channel, claims: list[LaneClaim]) -> None:
        """The channel is re-established: send again what was lost, then what waits."""
        for claim in claims:
            lane = channel.lanes[claim.lane]
            for chunk in self._unsent(channel, lane, claim) or ():
                self._context.send(session, chunk)
            self._context.note("job.resumed", request_id=lane.request_id, chunks=claim.chunks)
            lane.resumes += 1
            job = self._job_of(channel, lane)
            if job is None:
                self._send_result(session, lane)
                continue
            job.away, job.session = False, session
            self._context.timers.cancel(TimerKey("away", job.job_id))
            if lane.state is LaneState.PAUSED:
                self._chunking.ask_voucher(job)
            self._pump(job)
