"""The provider core: quote, bid, accept the award, run, chunk, pause when unpaid, receipt.

Sans-IO. The engine is a source of inputs and a taker of StartJob and CancelJob.
Rule: router/README.md, "Life of a job".
"""

from typing import Final

from protocol import crypto, limits, signing, transcript
from protocol.channel import ChannelEvent
from protocol.errors import RemoteError
from protocol.lane import LaneState
from protocol.messages import (
    Award,
    ReceiptAck,
    Refuse,
    Request,
)
from protocol.records import (
    LaneOpened,
    ReceiptCountersigned,
)
from router.actions import (
    ModelOffer,
    SessionKey,
    StartJob,
)
from router.anchor import Anchor
from router.auction import patience_ns
from router.cheques import Cheques, ChequeTerms
from router.context import Context
from router.payee import Payee
from router.placing import Placing
from router.provider_job import PlacedBid
from router.quoting import check_kind, check_patience, window_ucr
from router.rooms import Rooms
from router.self_selection import SelfSelection
from router.serving import Serving
from router.settling import PayeeReestablish
from router.standing import Standing
from router.timers import TimerKey


class Provider:
    """All that this node sells."""

    TIMERS: Final = ("unpaid", "overdue", "away", "unacknowledged", "offers", Cheques.TIMER)

    def __init__(
        self,
        context: Context,
        anchor: Anchor,
        cheques: ChequeTerms,
        bids_wanted: int,
        *,
        standing_offers: bool,
    ) -> None:
        self._context = context
        self.standing_offers = standing_offers
        self.payee = Payee(context, anchor)
        self.offers: dict[str, ModelOffer] = {}
        self._sold: set[str] = set()  # what was ever offered: bounded by the engine's models
        self.serving = Serving(context, self.payee)
        self.cheques = Cheques(context, cheques, self)
        self.rooms = Rooms(self.serving, self.cheques)
        self.reestablish = PayeeReestablish(context, self.payee, self.serving)
        self.draining = False
        self.standing = Standing(context, self.rooms.free, self.payee.deposit_max_ucr)
        self.self_selection = SelfSelection(context, bids_wanted)
        self.placing = Placing(context, self, self.self_selection)

    def window_ucr(self) -> int:
        """W of a channel for any job here: the price of the dearest chunk; 0: nothing is sold."""
        offers = () if self.draining else self.offers.values()
        return max(map(window_ucr, offers), default=0)

    @property
    def sells(self) -> bool:
        """Whether it offers something, or has since its start."""
        return bool(self._sold)

    def find_offer(self, model: str) -> ModelOffer:
        """What is sold of a model now. RemoteError, no offence: `engine.unknown_model`,
        `provider.busy` for one that is away for a while, `provider.draining`."""
        offer = self.offers.get(model)
        if offer is None and model in self._sold:
            raise RemoteError("provider.busy", "the model is not offered now", penalize=False)
        if offer is None:
            raise RemoteError("engine.unknown_model", model, penalize=False)
        if self.draining:
            raise RemoteError("provider.draining", penalize=False)
        return offer

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
        placed = self.placing.find(award.bid_id) or self.standing.collect(
            session, award.request_id, award.bid_id
        )
        if placed is None or placed.request.digest != award.request_id:
            raise RemoteError("award.unknown_bid", penalize=False)
        bid = placed.bid
        ask: Request = placed.request.message
        if placed.request.sender != session.peer:
            raise RemoteError("award.unknown_bid", "another requester's bid")
        if bid.expires_at_ns <= context.now_ns:
            raise RemoteError("award.unknown_bid", "expired", penalize=False)
        if self.draining:
            raise RemoteError("provider.draining", penalize=False)
        offer = self.offers.get(placed.model)
        if offer is None:
            raise RemoteError("provider.busy", "the model is not offered now", penalize=False)
        self.rooms.check(offer, session.peer)
        check_kind(offer, ask)
        check_patience(offer, ask, bid, context.now_ns)
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
        bid = placed.bid
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
            if not channel.allows(ChannelEvent.LANE_OPEN):
                raise RemoteError("channel.wrong_state", channel.state.value, penalize=False)
            if channel.claim_at_ns() <= context.now_ns:
                raise RemoteError("channel.wrong_state", "expired", penalize=False)
            # Not always the next: the lane of an award that was refused or lost is skipped.
            if award.lane <= channel.lane_last:
                raise RemoteError("channel.bad_lanes", "not a new lane", penalize=False)
            if len(channel.lanes) >= limits.LANES_PER_CHANNEL_MAX - 1:
                raise RemoteError("channel.too_many", penalize=False)
            deposit, best = channel.deposit_ucr, channel.total_ucr
        if voucher is not None:
            self.payee.check_voucher(session.peer, voucher, deposit, best)
        self.placing.taken(award.bid_id)  # a standing offer is not used up
        job_id = crypto.digest(award.cid, award.lane.to_bytes(8, "big"))
        # The engine starts while the records go to disk: nothing is sent before they are there.
        context.act(
            StartJob(
                job_id,
                placed.model,
                award.prompt,
                award.parameters,
                session.peer,
                bid.ttft_ns,
                bid.tokens_per_s_milli,
                min(patience_ns(bid), placed.request.message.deadline_ns - context.now_ns),
            )
        )
        if award.open is not None:
            context.append(opening)
            self.payee.opened(award)
            context.ledger.channels[award.cid].step(ChannelEvent.ACCEPT)
        channel = context.ledger.channels[award.cid]
        channel.step(ChannelEvent.LANE_OPEN)
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
            self.payee.keep_voucher(channel, voucher)
        self.serving.start(job_id, session, award, placed, channel)

    # --- the end ---------------------------------------------------------------------------

    def take_receipt_ack(self, session: SessionKey, ack: ReceiptAck) -> None:
        """The payer's counter-signature. RemoteError `channel.unknown`,
        `receipt.bad_signature`, `receipt.mismatch`."""
        context = self._context
        channel = self.payee.find(session, ack.cid)
        lane = channel.lanes.get(ack.lane)
        if lane is None or lane.state is not LaneState.DONE:
            raise RemoteError("channel.unknown", f"lane {ack.lane}", penalize=False)
        signed = signing.receipt_ack_bytes(context.network, ack.receipt_id)
        if not context.verify(channel.payer, signed, ack.signature):
            raise RemoteError("receipt.bad_signature", "counter-signature")
        if ack.receipt_id != lane.receipt_id:
            raise RemoteError("receipt.mismatch", "counter-signed another receipt")
        context.append(ReceiptCountersigned(ack.cid, ack.lane, ack.receipt_id, ack.signature))
        self.serving.acknowledged(ack.cid, ack.lane)
        context.note("receipt.countersigned", receipt_id=ack.receipt_id, peer_id=session.peer)

    def set_offers(self, offers: tuple[ModelOffer, ...]) -> None:
        """What the engine serves from now on."""
        self.offers = {offer.name: offer for offer in offers}
        self._sold.update(self.offers)
        self.announce()

    def announce(self) -> None:
        """Say on the topic what is offered, when it is time to."""
        if self.standing_offers and not self.draining:
            self.standing.announce(self.offers)

    def handle_timer(self, key: TimerKey) -> None:
        """A timer of one of the kinds in TIMERS."""
        if key.kind == "offers":
            self.announce()
        elif key.kind == Cheques.TIMER:
            self.cheques.handle_timer(key)
        else:
            self.serving.handle_timer(key)

    def drain(self) -> None:
        """Take no new work."""
        self.draining = True

    def session_closed(self, payer: bytes, *, may_resume: bool) -> None:
        """The payer's stream is gone: its lanes wait to be re-established, its jobs with them
        unless it broke the protocol."""
        self.standing.session_closed(SessionKey(payer, outbound=False))
        self.serving.session_closed(payer, may_resume=may_resume)
        self.payee.lost(payer)
