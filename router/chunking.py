"""Engine text into signed chunks, as far as the credit window allows. Sans-IO.

A chunk is sent only when its price is durably reserved; a lane whose payer lags pauses and says
what it needs. Rule: protocol/README.md, "Chunks" and "Credit".
"""

from protocol import limits, signing, transcript
from protocol.channel import ChannelEvent
from protocol.lane import LaneEvent, LaneState
from protocol.messages import Chunk, NeedVoucher
from router.context import Context
from router.counting import output_tokens_most
from router.payee import Payee
from router.provider_job import ProviderJob
from router.resending import Resending
from router.timers import TimerKey


class Chunking:
    """Sends what the engine made, and keeps what may have to be sent again."""

    def __init__(self, context: Context, payee: Payee, resending: Resending) -> None:
        self._context = context
        self._payee = payee
        self._resending = resending

    def pump(self, job: ProviderJob) -> bool:
        """Send what may be sent now; whether nothing is left to send."""
        if job.input_tokens is None or job.away:
            return False
        while job.pieces or (job.finished and not job.lane.chunks):
            text, count = self._next_chunk(job)
            if text is None:
                self._pause(job)
                return False
            self._send_chunk(job, text, count)
        return True

    def _next_chunk(self, job: ProviderJob) -> tuple[str | None, int]:
        """The most text that may go in one chunk now, taken off the queue; None for nothing."""
        assert job.input_tokens is not None
        count = taken = characters = 0
        due = job.lane.price_ucr(job.input_tokens, job.output_tokens)
        ahead = job.lane.price_ucr(0, limits.CHUNK_TOKENS_MAX)
        for text, tokens in job.pieces:
            characters += len(text)
            too_long = characters > limits.CHUNK_TEXT_CHARS_MAX
            if taken and (count + tokens > limits.CHUNK_TOKENS_MAX or too_long):
                break
            price = job.lane.price_ucr(job.input_tokens, job.output_tokens + count + tokens)
            if not self._payee.reserve(job.channel, job.lane, price, ahead):
                break
            count, taken, due = count + tokens, taken + 1, price
        if job.pieces and not taken:
            return None, 0
        if not job.pieces and not self._payee.reserve(job.channel, job.lane, due, 0):
            return None, 0
        return "".join(job.pieces.popleft()[0] for _ in range(taken)), count

    def _send_chunk(self, job: ProviderJob, text: str, count: int) -> None:
        context, lane = self._context, job.lane
        assert job.input_tokens is not None
        if lane.state is LaneState.PAUSED:  # another lane's end made room in the window
            self.paid(job)
        job.channel.step(ChannelEvent.CHUNK)
        lane.step(LaneEvent.CHUNK)
        # Tokens of text that is never shown, as a remote service counts them, are not billed.
        job.text_bytes += len(text.encode())
        most = output_tokens_most(job.text_bytes, job.parameters.stop)
        count = max(0, min(count, most - job.output_tokens))
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
        chunk = Chunk(
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
        )
        self._resending.keep(chunk)
        context.send(job.session, chunk)

    def _pause(self, job: ProviderJob) -> None:
        """Ask for a voucher that pays for the next chunk, once a pause."""
        timer = TimerKey("unpaid", job.job_id)
        if job.lane.state is not LaneState.PAUSED:
            self._context.timers.set(timer, self._context.now_ns + limits.UNPAID_TIMEOUT_NS)
            self.ask_voucher(job)
        job.lane.step(LaneEvent.WINDOW_FULL)

    def ask_voucher(self, job: ProviderJob) -> None:
        """Say which total the lane needs to go on."""
        assert job.input_tokens is not None
        channel, lane = job.channel, job.lane
        tokens = sum(count for _, count in job.pieces) or 1
        tokens = min(tokens, limits.CHUNK_TOKENS_MAX)
        wanted = lane.price_ucr(job.input_tokens, job.output_tokens + tokens)
        others = channel.reserved_ucr - max(lane.due_ucr, lane.reserved_ucr)
        total = max(1, others + wanted - self._context.ledger.window_ucr(channel))
        total = max(total, channel.total_ucr + 1)
        self._context.send(job.session, NeedVoucher(channel.cid, lane.lane, total))
        self._context.note("job.paused", request_id=lane.request_id, total_ucr=total)

    def paid(self, job: ProviderJob) -> None:
        """There is room in the window again."""
        job.lane.step(LaneEvent.VOUCHER)
        self._context.timers.cancel(TimerKey("unpaid", job.job_id))
