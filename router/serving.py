"""Serving awarded lanes: engine text into signed chunks, within the credit window, to receipt.

Sans-IO. A chunk is sent only when its price is durably reserved; a lane whose payer lags
pauses and says what it needs. Rule: protocol/README.md, "Chunks" and "Receipts".
"""

from protocol import limits, signing, transcript
from protocol.channel import Channel, ChannelEvent, LaneEvent, LaneState
from protocol.fields import GenerationProfile, TokenLogprob
from protocol.messages import (
    Accept,
    Award,
    Cancel,
    Chunk,
    JobFailed,
    NeedVoucher,
    Receipt,
    Result,
)
from protocol.records import LaneClosed, ReceiptSigned
from router.actions import CancelJob, JobFinished, SessionKey
from router.context import Context
from router.payee import Payee
from router.provider_job import PlacedBid, ProviderJob, split_piece
from router.timers import TimerKey


class Serving:
    """The lanes that this node serves now."""

    def __init__(self, context: Context, payee: Payee) -> None:
        self._context = context
        self._payee = payee
        self._jobs: dict[bytes, ProviderJob] = {}

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    def running_of(self, model: str) -> int:
        """Jobs of one model that have not ended."""
        return sum(job.placed.model == model for job in self._jobs.values())

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
        )
        job.step(LaneEvent.ACCEPT)
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
        """The prompt's real length is known; more than the request announced ends the job."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        if input_tokens > job.placed.request.message.input_tokens_max:
            self._end(job, "award.prompt_too_large")
            return
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

    # --- chunks ----------------------------------------------------------------------------

    def _pump(self, job: ProviderJob) -> None:
        """Send what the credit window allows; pause and ask for a voucher at its edge."""
        if job.input_tokens is None:
            return
        while job.pieces or (job.finished and not job.lane.chunks):
            text, count = self._next_chunk(job)
            if text is None:
                self._pause(job)
                return
            self._send_chunk(job, text, count)
        if job.finished is not None:
            self._finish(job)

    def _next_chunk(self, job: ProviderJob) -> tuple[str | None, int]:
        """The most text that may go in one chunk now, taken off the queue; None for nothing."""
        assert job.input_tokens is not None
        count = taken = 0
        due = job.lane.price_ucr(job.input_tokens, job.output_tokens)
        ahead = job.lane.price_ucr(0, limits.CHUNK_TOKENS_MAX)
        for _, tokens in job.pieces:
            if taken and count + tokens > limits.CHUNK_TOKENS_MAX:
                break
            price = job.lane.price_ucr(job.input_tokens, job.output_tokens + count + tokens)
            if not self._payee.reserve(job.channel, job.lane, price, ahead):
                break
            count, taken, due = count + tokens, taken + 1, price
        if job.pieces and not taken:
            return None, 0
        if not job.pieces and not self._payee.reserve(job.channel, job.lane, due, 0):
            return None, 0
        text = "".join(job.pieces.popleft()[0] for _ in range(taken))
        return text, count

    def _send_chunk(self, job: ProviderJob, text: str, count: int) -> None:
        context, lane = self._context, job.lane
        assert job.input_tokens is not None
        if lane.state is LaneState.PAUSED:  # another lane's end made room in the window
            self._resume(job)
        job.channel.step(ChannelEvent.CHUNK)
        job.step(LaneEvent.CHUNK)
        job.output_tokens += count
        lane.chunks += 1
        lane.due_ucr = lane.price_ucr(job.input_tokens, job.output_tokens)
        logprobs = job.take_logprobs(count)
        job.transcript = transcript.transcript_next(
            job.transcript,
            lane.chunks,
            text,
            job.input_tokens,
            job.output_tokens,
            lane.due_ucr,
            logprobs,
        )
        signed = signing.chunk_bytes(
            context.network, job.channel.cid, lane.lane, lane.chunks, job.transcript
        )
        context.send(
            job.session,
            Chunk(
                cid=job.channel.cid,
                lane=lane.lane,
                sequence=lane.chunks,
                text=text,
                input_tokens=job.input_tokens,
                output_tokens=job.output_tokens,
                due_ucr=lane.due_ucr,
                transcript=job.transcript,
                signature=context.signer.sign(signed),
                logprobs=logprobs,
            ),
        )

    def _pause(self, job: ProviderJob) -> None:
        """Ask for a voucher that pays for the next chunk, once a pause."""
        assert job.input_tokens is not None
        channel, lane = job.channel, job.lane
        tokens = sum(count for _, count in job.pieces) or 1
        tokens = min(tokens, limits.CHUNK_TOKENS_MAX)
        wanted = lane.price_ucr(job.input_tokens, job.output_tokens + tokens)
        others = channel.reserved_ucr - max(lane.due_ucr, lane.reserved_ucr)
        total = max(1, others + wanted - self._context.ledger.window_ucr(channel))
        if total <= channel.total_ucr:
            total = channel.total_ucr + 1
        timer = TimerKey("unpaid", job.job_id)
        if lane.state is not LaneState.PAUSED:
            self._context.timers.set(timer, self._context.now_ns + limits.UNPAID_TIMEOUT_NS)
            self._context.send(job.session, NeedVoucher(channel.cid, lane.lane, total))
            self._context.note("job.paused", request_id=lane.request_id, total_ucr=total)
        job.step(LaneEvent.WINDOW_FULL)

    def voucher_taken(self, channel: Channel) -> None:
        """A better voucher is held: lanes that waited for it go on."""
        for job in list(self._jobs.values()):
            if job.channel is channel:
                self._resume(job)
                self._pump(job)

    def _resume(self, job: ProviderJob) -> None:
        job.step(LaneEvent.VOUCHER)
        self._context.timers.cancel(TimerKey("unpaid", job.job_id))

    def handle_timer(self, key: TimerKey) -> None:
        """A paused lane was not paid in time, or the request's deadline is past."""
        if job := self._jobs.get(key.subject):
            self._end(job, "channel.unpaid" if key.kind == "unpaid" else "request.deadline")

    # --- the end ---------------------------------------------------------------------------

    def _finish(self, job: ProviderJob) -> None:
        context, finished = self._context, job.finished
        assert finished is not None
        assert job.input_tokens is not None
        receipt = Receipt(
            request_id=job.lane.request_id,
            bid_id=job.lane.bid_id,
            cid=job.channel.cid,
            lane=job.lane.lane,
            payer=job.channel.payer,
            payee=context.public_key,
            prompt_commitment=job.commitment,
            transcript=job.transcript,
            input_tokens=job.input_tokens,
            output_tokens=job.output_tokens,
            chunks=job.lane.chunks,
            price_ucr=job.lane.due_ucr,
            started_at_ns=job.started_at_ns,
            ttft_ns=finished.ttft_ns,
            duration_ns=finished.duration_ns,
            finish_reason=finished.reason,
            profile=GenerationProfile(
                finished.engine,
                job.placed.bid.model_digest,
                signing.parameters_digest(job.parameters),
                finished.settings,
            ),
        )
        identity = signing.receipt_id(receipt)
        signature = context.signer.sign(signing.receipt_bytes(context.network, identity))
        context.append(ReceiptSigned(receipt, signature))
        context.send(job.session, Result(receipt, signature))
        context.note("receipt.signed", request_id=job.lane.request_id, receipt_id=identity)
        self._forget(job)

    def take_cancel(self, session: SessionKey, cancel: Cancel) -> None:
        """The payer wants no more; what was sent stays due."""
        for job in list(self._jobs.values()):
            same_lane = (job.channel.cid, job.lane.lane) == (cancel.cid, cancel.lane)
            if same_lane and job.session == session:
                self._end(job, "engine.cancelled")

    def session_closed(self, payer: bytes) -> None:
        """The payer's stream is gone: its jobs stop."""
        for job in list(self._jobs.values()):
            if job.session.peer == payer:
                self._context.act(CancelJob(job.job_id))
                self._forget(job)

    def _end(self, job: ProviderJob, code: str) -> None:
        """Stop a lane without a receipt."""
        context, lane = self._context, job.lane
        context.act(CancelJob(job.job_id))
        context.append(
            LaneClosed(job.channel.cid, lane.lane, lane.chunks, lane.due_ucr, code, context.now_ns)
        )
        context.send(job.session, JobFailed(job.channel.cid, lane.lane, code))
        context.note("job.failed", request_id=lane.request_id, code=code, due_ucr=lane.due_ucr)
        self._forget(job)

    def _forget(self, job: ProviderJob) -> None:
        for kind in ("unpaid", "overdue"):
            self._context.timers.cancel(TimerKey(kind, job.job_id))
        self._jobs.pop(job.job_id, None)
