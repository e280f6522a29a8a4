"""The paying side of channels: choosing or opening one, issuing vouchers, closing.

Write-ahead: a voucher is signed only behind the record that issues it. At most A, the asker's
advance, is ever signed beyond what was received. Rule: router/README.md, "Money".
"""

from collections.abc import Callable

from protocol import limits, signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.fields import ChannelOpen
from protocol.messages import CloseAck, CloseRequest, Voucher
from protocol.records import (
    ChannelClosed,
    ChannelFrozen,
    CloseAgreed,
    DepositRaised,
    VoucherIssued,
)
from protocol.units import cost_ucr
from router.actions import SessionKey
from router.anchor import Anchor
from router.auction import ScoredBid
from router.context import Context
from router.ledger import COOPERATIVE, REFUSED
from router.opening import open_channel

# Soonest first: an opening channel waits for its acceptance, a detached one for its peer.
_USABLE = (ChannelState.READY, ChannelState.OPENING, ChannelState.DETACHED)


class Payer:
    """Vouchers and channels that this node pays through."""

    def __init__(self, context: Context, anchor: Anchor) -> None:
        self._context = context
        self._anchor = anchor
        # Openings that wait for the anchor to hold their deposit, and the bids that they are of.
        self._openings: dict[bytes, tuple[ChannelOpen, bytes]] = {}

    def find(self, session: SessionKey, cid: bytes) -> Channel:
        """A channel that we pay this peer through. RemoteError `channel.unknown`."""
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
            raise RemoteError("channel.unknown", cid.hex()[:16])
        return channel

    def choose(
        self, scored: ScoredBid, deadline_ns: int, committed_ucr: Callable[[Channel], int]
    ) -> Channel | None:
        """The channel with the bidder that can carry the job soonest, or None.

        `committed_ucr` says what the lanes that run on a channel may still cost.
        """
        able = [
            channel
            for channel in self.open_for(scored, deadline_ns)
            if channel.spendable_ucr - committed_ucr(channel) >= scored.cost_max_ucr
        ]
        return able[0] if able else None

    def open_for(self, scored: ScoredBid, deadline_ns: int) -> list[Channel]:
        """The bidder's channels that could take one more lane now or soon, the soonest first."""
        able = [
            channel
            for channel in self._context.ledger.with_peer(scored.signed.sender, Role.PAYER)
            if channel.state in _USABLE
            and not channel.disputed_ucr
            and channel.claim_at_ns() > deadline_ns
            and len(channel.lanes) < limits.LANES_PER_CHANNEL_MAX - 1
        ]
        return sorted(able, key=lambda channel: _USABLE.index(channel.state))

    def open(self, scored: ScoredBid, deposit_ucr: int) -> tuple[Channel, ChannelOpen]:
        """Open a channel on the bid's terms; RemoteError `channel.over_limit`, no offence."""
        context = self._context
        terms = scored.bid.terms
        deposit = min(max(deposit_ucr, scored.cost_max_ucr), terms.deposit_max_ucr)
        if deposit < scored.cost_max_ucr:
            raise RemoteError("channel.over_limit", penalize=False)
        payee, salt = scored.signed.sender, scored.bid.payee_salt
        channel, opening = open_channel(context, payee, terms, salt, deposit)
        self._openings[channel.cid] = opening, scored.signed.digest
        return channel, opening

    def opening_bid(self, cid: bytes) -> bytes:
        """The bid on whose terms a channel waits to be opened; empty for none."""
        return self._openings[cid][1] if cid in self._openings else b""

    def unsent(self, channel: Channel, scored: ScoredBid) -> ChannelOpen | None:
        """The opening on this bid's terms that was not sent yet."""
        opening, bid_id = self._openings.get(channel.cid, (None, b""))
        return opening if bid_id == scored.signed.digest else None

    def fund(self, channel: Channel) -> bool:
        """Whether the deposit of an opening stands, so that it can be sent now."""
        funded = self._anchor.top_up(self._context, channel, channel.deposit_ucr)
        if funded:
            del self._openings[channel.cid]
        return funded

    def issue(self, channel: Channel, target_ucr: int, advance_max_ucr: int) -> Voucher | None:
        """The voucher for `target_ucr`, logged first; None when it would not be higher.

        Never over the deposit (I1), never more than A over what was received (I4).
        """
        most = self.payable_ucr(channel) + advance_max_ucr
        target = min(target_ucr, most, channel.deposit_ucr)
        if target <= channel.total_ucr:
            return None
        channel.step(ChannelEvent.VOUCHER)
        self._context.append(VoucherIssued(channel.cid, target, channel.claims()))
        return self.sign_again(channel)

    def payable_ucr(self, channel: Channel) -> int:
        """The due, less what is held back: never so much that the next chunks of the running
        lanes would not come for want of credit (L1)."""
        if not channel.held_ucr:
            return channel.due_ucr
        lanes = channel.lanes.values()
        with_peer = self._context.ledger.with_peer(channel.payee, Role.PAYER)
        others = sum(other.held_ucr + other.disputed_ucr for other in with_peer)
        others -= channel.held_ucr
        room = channel.terms.window_ucr + max((lane.advance_ucr for lane in lanes), default=0)
        room -= others + sum(lane.next_chunk_ucr() for lane in lanes)
        return channel.due_ucr - min(channel.held_ucr, max(0, room))

    def sign_again(self, channel: Channel) -> Voucher:
        """The voucher of the last record: the same bytes however often it is signed."""
        total_ucr, claims = channel.total_ucr, channel.issued
        signed = signing.voucher_bytes(self._context.network, channel.cid, total_ucr, claims)
        signature = self._context.signer.sign(signed)
        return Voucher(channel.cid, total_ucr, claims, signature)

    def adopt(self, channel: Channel, voucher: Voucher) -> None:
        """Log a voucher that we signed and forgot. We never sign over the deposit: one over what
        we know of shows that we forgot a top-up too."""
        cid, total_ucr = channel.cid, voucher.total_ucr
        self._context.note_rolled_back(channel.peer, cid=cid, shown_ucr=total_ucr)
        if total_ucr > channel.deposit_ucr:
            self._context.append(DepositRaised(cid, total_ucr, voucher.signature))
        self._context.append(VoucherIssued(cid, total_ucr, voucher.lanes))

    def settle(self, session: SessionKey, channel: Channel) -> None:
        """Pay up to what was received and is not held back, when vouchers lag behind it and
        may be sent."""
        if not channel.allows(ChannelEvent.VOUCHER):
            return
        voucher = self.issue(channel, self.payable_ucr(channel), 0)
        if voucher is not None:
            self._context.send(session, voucher)

    def repeat(self, session: SessionKey, channel: Channel) -> None:
        """Send the best voucher again: the payee refused the award that it travelled in.

        Logged again, since it states the lanes as they are now.
        """
        if channel.total_ucr:
            record = VoucherIssued(channel.cid, channel.total_ucr, channel.claims())
            self._context.append(record)
            self._context.send(session, self.sign_again(channel))

    def close(self, session: SessionKey, channel: Channel) -> None:
        """Ask for a co-operative close at what was delivered; pays the last of it first."""
        context = self._context
        self.settle(session, channel)
        channel.step(ChannelEvent.CLOSE_REQUEST)
        total = channel.due_ucr
        context.append(CloseAgreed(channel.cid, total))
        signature = context.signer.sign(signing.close_bytes(context.network, channel.cid, total))
        context.send(session, CloseRequest(channel.cid, total, signature))

    def take_close_ack(self, session: SessionKey, message: CloseAck) -> Channel:
        """The payee agrees. RemoteError `channel.unknown`, `.close_mismatch`,
        `.bad_signature`, `.wrong_state`."""
        context = self._context
        channel = self.find(session, message.cid)
        channel.check(ChannelEvent.CLOSE_ACK)
        asked = channel.state is ChannelState.CLOSING_COOP
        try:
            # A payee that closed before we forgot it settles at what we signed, at most.
            if asked and message.total_ucr != channel.due_ucr:
                raise RemoteError("channel.close_mismatch")
            if message.total_ucr > max(channel.total_ucr, channel.due_ucr):
                raise RemoteError("channel.close_mismatch", "more than we signed")
            signed = signing.close_ack_bytes(context.network, channel.cid, message.total_ucr)
            if not context.verify(channel.payee, signed, message.signature):
                raise RemoteError("channel.bad_signature", "close")
        except RemoteError as error:
            if channel.allows(ChannelEvent.FAULT):
                self.freeze(channel, error.code)
            raise
        ours = context.signer.sign(
            signing.close_bytes(context.network, channel.cid, message.total_ucr)
        )
        context.append(
            ChannelClosed(
                channel.cid,
                message.total_ucr,
                COOPERATIVE,
                context.now_ns,
                ours,
                message.signature,
            )
        )
        total, theirs = message.total_ucr, message.signature
        self._anchor.settle_agreed(context, channel.cid, total, ours, theirs)
        return channel

    def detached(self, provider: bytes) -> list[Channel]:
        """The channels with this provider that wait to be re-established."""
        with_peer = self._context.ledger.with_peer(provider, Role.PAYER)
        return [channel for channel in with_peer if channel.state is ChannelState.DETACHED]

    def lost(self, provider: bytes) -> None:
        """The stream to this provider is gone."""
        for channel in self._context.ledger.with_peer(provider, Role.PAYER):
            channel.step(ChannelEvent.LOST)

    def take_refuse(self, session: SessionKey, cid: bytes, code: str) -> Channel:
        """A re-establish or close was not taken. RemoteError `channel.unknown`.

        A payee that never took the channel delivered nothing on it; one that forgot it after
        delivering can't claim, but the channel is kept, frozen, as evidence.
        """
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
            raise RemoteError("channel.unknown", penalize=False)
        if channel.state is ChannelState.CLOSING_COOP:
            channel.step(ChannelEvent.CLOSE_REFUSE)
        elif channel.state is ChannelState.DETACHED and channel.due_ucr == 0:
            self.refused(channel)
        elif channel.state is ChannelState.DETACHED:
            self.freeze(channel, code)
        self._context.note("channel.refused", cid=cid, code=code)
        return channel

    def freeze(self, channel: Channel, code: str) -> None:
        """The payee broke the channel's rules: nothing more is bought on it."""
        self._context.append(ChannelFrozen(channel.cid, code, self._context.now_ns))

    def refused(self, channel: Channel) -> None:
        """The payee did not take the channel: nothing was delivered, nothing is due."""
        self._context.append(
            ChannelClosed(channel.cid, 0, REFUSED, self._context.now_ns, b"", b"")
        )
        self._openings.pop(channel.cid, None)
        self._anchor.release(self._context, channel)


def headroom_ucr(scored: ScoredBid, input_tokens: int, output_left: int) -> int:
    """The price of the next chunk, and of a prompt whose price is not yet due."""
    tokens = min(limits.CHUNK_TOKENS_MAX, output_left)
    bid = scored.bid
    return cost_ucr(input_tokens, tokens, bid.input_price_ucr, bid.output_price_ucr)
