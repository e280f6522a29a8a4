"""The provider core: quote, bid, accept the award, run, chunk, pause when unpaid, receipt.

Sans-IO. The engine is a source of inputs and a taker of StartJob and CancelJob. Rule: the
design's "Life of a job".
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from protocol import crypto, limits, signing, transcript
from protocol.channel import (
    LANE_TRANSITIONS,
    Channel,
    ChannelEvent,
    ChannelState,
    Lane,
    LaneEvent,
    LaneState,
)
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.fields import GenerationParameters, GenerationProfile
from protocol.machine import apply
from protocol.messages import (
    Accept,
    Award,
    Bid,
    Cancel,
    Chunk,
    JobFailed,
    NeedVoucher,
    Receipt,
    ReceiptAck,
    Refuse,
    Request,
    Result,
    SealedBid,
)
from protocol.records import (
    LaneClosed,
    LaneOpened,
    ReceiptCountersigned,
    ReceiptSigned,
    VoucherAccepted,
)
from protocol.wire import encode
from router.actions import (
    CancelJob,
    JobFinished,
    ModelOffer,
    Publish,
    SendBid,
    SessionKey,
    StartJob,
)
from router.anchor import Anchor
from router.context import Context
from router.payee import Payee
from router.payer import step
from router.quoting import quote
from router.timers import TimerKey


@dataclass(frozen=True, slots=True)
class PlacedBid:
    """A promise that an award may collect on until it expires."""

    request: Signed
    signed: Signed
    model: str


@dataclass(slots=True)
class ProviderJob:
    """A lane that we serve: what the engine made, and how much of it was sent."""

    job_id: bytes
    placed: PlacedBid
    session: SessionKey
    channel: Channel
    lane: Lane
    parameters: GenerationParameters
    commitment: bytes
    transcript: bytes
    started_at_ns: int
    input_tokens: int | None = None
    output_tokens: int = 0
    pieces: deque[tuple[str, int]] = field(default_factory=deque)
    finished: JobFinished | None = None

    def step(self, event: LaneEvent) -> None:
        """Move the lane by its table."""
        state = self.lane.state
        self.lane.state = apply(LANE_TRANSITIONS, state, event, "channel.wrong_state")


class Provider:
    """All that this node sells."""

    def __init__(self, context: Context, anchor: Anchor) -> None:
        self._context = context
        self.payee = Payee(context, anchor)
        self.offers: dict[str, ModelOffer] = {}
        self._bids: OrderedDict[bytes, PlacedBid] = OrderedDict()
        self._jobs: dict[bytes, ProviderJob] = {}
        self.draining = False

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._jobs)

    # --- bidding ---------------------------------------------------------------------------

    def take_request(self, request: Signed) -> None:
        """Bid on a request, or stay silent (RemoteError, no offence, says why)."""
        context = self._context
        ask: Request = request.message
        offer = self.offers.get(ask.model)
        if offer is None:
            raise RemoteError("engine.unknown_model", ask.model, penalize=False)
        if self.draining:
            raise RemoteError("provider.draining", penalize=False)
        if self._free_places(offer) <= 0:
            raise RemoteError("provider.busy", penalize=False)
        self._expire_bids()
        if len(self._bids) >= limits.BIDS_OUTSTANDING_MAX:
            raise RemoteError("provider.busy", "bids outstanding", penalize=False)
        bid = quote(
            offer,
            request,
            context.public_key,
            deposit_max_ucr=self.payee.deposit_max_ucr(request.sender),
            payee_salt=context.entropy(16),
            addresses=context.addresses,
            now_ns=context.now_ns,
        )
        signed = sign_envelope(context.signer, context.network, bid, context.now_ns)
        sealed = crypto.seal(ask.ephemeral_key, signed.data, context.entropy(32))
        self._bids[signed.digest] = PlacedBid(request, signed, ask.model)
        data = encode(SealedBid(request.digest, sealed))
        context.act(SendBid(request.sender, ask.addresses, request.digest, data))
        context.note("bid.sent", request_id=request.digest, peer_id=request.sender)

    def bid_undelivered(self, sealed: SealedBid) -> None:
        """The requester can't be reached from here: gossip carries the sealed bid instead."""
        context = self._context
        signed = sign_envelope(context.signer, context.network, sealed, context.now_ns)
        context.act(Publish(signed.data))

    def _free_places(self, offer: ModelOffer) -> int:
        """Jobs of this model that would start at once."""
        busy = sum(job.placed.model == offer.name for job in self._jobs.values())
        return min(offer.places - busy, limits.JOBS_RUNNING_MAX - len(self._jobs))

    def _expire_bids(self) -> None:
        while self._bids:
            bid_id, placed = next(iter(self._bids.items()))
            if placed.signed.message.expires_at_ns > self._context.now_ns:
                return
            del self._bids[bid_id]

    # --- the award -------------------------------------------------------------------------

    def take_award(self, session: SessionKey, award: Award) -> None:
        """Start the job, or refuse it with a code; a dishonest award is also an offence."""
        try:
            self._accept(session, award)
        except RemoteError as error:
            self._context.send(session, Refuse(award.request_id, error.code))
            self._context.note(
                "award.refused", request_id=award.request_id, peer_id=session.peer, code=error.code
            )
            if error.penalize:
                raise

    def _check_award(self, session: SessionKey, award: Award) -> PlacedBid:
        context = self._context
        placed = self._bids.get(award.bid_id)
        if placed is None or placed.request.digest != award.request_id:
            raise RemoteError("award.unknown_bid", penalize=False)
        bid: Bid = placed.signed.message
        ask: Request = placed.request.message
        if placed.request.sender != session.peer:
            raise RemoteError("award.unknown_bid", "another requester's bid")
        if bid.expires_at_ns <= context.now_ns:
            raise RemoteError("award.unknown_bid", "expired", penalize=False)
        if self.draining:
            raise RemoteError("provider.draining", penalize=False)
        offer = self.offers.get(placed.model)
        if offer is None or self._free_places(offer) <= 0:
            raise RemoteError("provider.busy", penalize=False)
        commitment = transcript.prompt_commitment(award.prompt, award.prompt_key)
        if commitment != ask.prompt_commitment:
            raise RemoteError("award.wrong_prompt")
        asked = award.parameters.output_tokens_max
        same_type = award.prompt.inference_type == ask.inference_type
        if asked > ask.output_tokens_max or not same_type:
            raise RemoteError("award.wrong_parameters")
        signed = signing.award_bytes(
            context.network,
            award.request_id,
            award.bid_id,
            award.cid,
            award.lane,
            commitment,
            award.parameters,
        )
        if not context.verify(session.peer, signed, award.signature):
            raise RemoteError("award.bad_signature")
        return placed

    def _accept(self, session: SessionKey, award: Award) -> None:
        """Every check first, then every change: a refusal leaves nothing behind."""
        context = self._context
        placed = self._check_award(session, award)
        bid: Bid = placed.signed.message
        voucher = award.voucher
        if voucher is not None and voucher.cid != award.cid:
            raise RemoteError("channel.unknown", "the voucher's")
        if award.open is not None:
            opening = self.payee.check_open(session.peer, award, bid)
            deposit, best = opening.deposit_ucr, 0
            if award.lane != 1:
                raise RemoteError("channel.bad_lanes", "the first lane is 1")
        else:
            channel = self.payee.find(session, award.cid)
            if channel.state is not ChannelState.READY:
                raise RemoteError("channel.wrong_state", channel.state.value, penalize=False)
            if award.lane != channel.lane_last + 1:
                raise RemoteError("channel.bad_lanes", "not the next lane", penalize=False)
            if len(channel.lanes) >= limits.LANES_PER_CHANNEL_MAX - 1:
                raise RemoteError("channel.too_many", penalize=False)
            deposit, best = channel.deposit_ucr, channel.total_ucr
        if voucher is not None:
            self.payee.check_voucher(session.peer, voucher, deposit, best)
        del self._bids[award.bid_id]
        job_id = crypto.digest(award.cid, award.lane.to_bytes(8, "big"))
        # The engine starts while the records go to disk: nothing is sent before they are there.
        context.act(StartJob(job_id, placed.model, award.prompt, award.parameters))
        if award.open is not None:
            context.append(opening)
            step(context.ledger.channels[award.cid], ChannelEvent.ACCEPT)
        channel = context.ledger.channels[award.cid]
        context.append(
            LaneOpened(
                cid=award.cid,
                lane=award.lane,
                request_id=award.request_id,
                bid_id=award.bid_id,
                model=placed.model,
                input_price_ucr=bid.input_price_ucr,
                output_price_ucr=bid.output_price_ucr,
                opened_at_ns=context.now_ns,
                bid=placed.signed.data,
            )
        )
        if voucher is not None:
            context.append(VoucherAccepted(voucher))
        self._start(job_id, session, award, placed, channel)

    def _start(
        self,
        job_id: bytes,
        session: SessionKey,
        award: Award,
        placed: PlacedBid,
        channel: Channel,
    ) -> None:
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

    def job_tokens(self, job_id: bytes, pieces: tuple[tuple[str, int], ...]) -> None:
        """More text from the engine."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.pieces.extend(pieces)
            self._pump(job)

    def job_finished(self, finished: JobFinished) -> None:
        """The engine is done; what waits for payment is still sent as it is paid."""
        job = self._jobs.get(finished.job_id)
        if job is not None:
            job.finished = finished
            self._pump(job)

    def job_broke(self, job_id: bytes, code: str) -> None:
        """The engine failed; what was sent stays due."""
        job = self._jobs.get(job_id)
        if job is not None:
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
            if not self.payee.reserve(job.channel, job.lane, price, ahead):
                break
            count, taken, due = count + tokens, taken + 1, price
        if job.pieces and not taken:
            return None, 0
        if not job.pieces and not self.payee.reserve(job.channel, job.lane, due, 0):
            return None, 0
        text = "".join(job.pieces.popleft()[0] for _ in range(taken))
        return text, count

    def _send_chunk(self, job: ProviderJob, text: str, count: int) -> None:
        context, lane = self._context, job.lane
        assert job.input_tokens is not None
        if lane.state is LaneState.PAUSED:  # another lane's end made room in the window
            self._resume(job)
        job.step(LaneEvent.CHUNK)
        job.output_tokens += count
        lane.chunks += 1
        lane.due_ucr = lane.price_ucr(job.input_tokens, job.output_tokens)
        job.transcript = transcript.transcript_next(
            job.transcript, lane.chunks, text, job.input_tokens, job.output_tokens, lane.due_ucr
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
        total = max(1, others + wanted - channel.terms.window_ucr)
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

    def unpaid(self, job_id: bytes) -> None:
        """A paused lane was not paid in time."""
        job = self._jobs.get(job_id)
        if job is not None:
            self._end(job, "channel.unpaid")

    # --- the end ---------------------------------------------------------------------------

    def _finish(self, job: ProviderJob) -> None:
        context, finished = self._context, job.finished
        assert finished is not None
        assert job.input_tokens is not None
        bid: Bid = job.placed.signed.message
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
                finished.engine, bid.model_digest, job.parameters, finished.settings
            ),
        )
        identity = signing.receipt_id(receipt)
        signature = context.signer.sign(signing.receipt_bytes(context.network, identity))
        job.step(LaneEvent.RESULT)
        context.append(ReceiptSigned(receipt, signature))
        context.send(job.session, Result(receipt, signature))
        context.note("receipt.signed", request_id=job.lane.request_id, receipt_id=identity)
        self._forget(job)

    def take_receipt_ack(self, session: SessionKey, ack: ReceiptAck) -> None:
        """The payer's counter-signature. RemoteError `channel.unknown`,
        `receipt.bad_signature`."""
        context = self._context
        channel = self.payee.find(session, ack.cid)
        lane = channel.lanes.get(ack.lane)
        if lane is None or lane.state is not LaneState.DONE:
            raise RemoteError("channel.unknown", f"lane {ack.lane}", penalize=False)
        signed = signing.receipt_ack_bytes(context.network, ack.receipt_id)
        if not context.verify(channel.payer, signed, ack.signature):
            raise RemoteError("receipt.bad_signature", "counter-signature")
        context.append(ReceiptCountersigned(ack.cid, ack.lane, ack.receipt_id, ack.signature))
        context.note("receipt.countersigned", receipt_id=ack.receipt_id, peer_id=session.peer)

    def take_cancel(self, session: SessionKey, cancel: Cancel) -> None:
        """The payer wants no more; what was sent stays due."""
        for job in list(self._jobs.values()):
            same_lane = (job.channel.cid, job.lane.lane) == (cancel.cid, cancel.lane)
            if same_lane and job.session == session:
                self._end(job, "engine.cancelled")

    def session_closed(self, payer: bytes) -> None:
        """The payer's stream is gone: its jobs stop, its lanes wait to be re-established."""
        for job in list(self._jobs.values()):
            if job.session.peer == payer:
                self._context.act(CancelJob(job.job_id))
                self._forget(job)
        self.payee.lost(payer)

    def drain(self) -> None:
        """Take no new work."""
        self.draining = True

    def _end(self, job: ProviderJob, code: str) -> None:
        """Stop a lane without a receipt."""
        context, lane = self._context, job.lane
        context.act(CancelJob(job.job_id))
        job.step(LaneEvent.ABORT)
        context.append(
            LaneClosed(job.channel.cid, lane.lane, lane.chunks, lane.due_ucr, code, context.now_ns)
        )
        context.send(job.session, JobFailed(job.channel.cid, lane.lane, code))
        context.note("job.failed", request_id=lane.request_id, code=code, due_ucr=lane.due_ucr)
        self._forget(job)

    def _forget(self, job: ProviderJob) -> None:
        self._context.timers.cancel(TimerKey("unpaid", job.job_id))
        self._jobs.pop(job.job_id, None)
