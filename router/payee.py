"""The earning side of channels: taking opens and vouchers, reserving, closing.

Write-ahead: chunks are sent only up to a durable reservation, and a voucher counts as paid
only once it is durable (both by the order of actions). What is sent and not covered by a
voucher never exceeds W. Rule: router/README.md, "Money".
"""

from protocol import signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.lane import Lane
from protocol.messages import (
    Award,
    Bid,
    CloseAck,
    CloseClaim,
    CloseRequest,
    TopUp,
    TopUpAck,
    Voucher,
    VoucherAck,
)
from protocol.records import (
    ChannelClosed,
    ChannelOpened,
    DepositRaised,
    DueAgreed,
    OpeningSigned,
    Reserved,
    VoucherAccepted,
)
from router.actions import SessionKey
from router.anchor import Anchor
from router.context import Context
from router.ledger import COOPERATIVE
from router.opening import check_opening


class Payee:
    """Channels that this node earns through."""

    def __init__(self, context: Context, anchor: Anchor) -> None:
        self._context = context
        self._anchor = anchor

    def deposit_max_ucr(self, payer: bytes) -> int:
        """What a bid to `payer` may offer as the largest deposit."""
        return self._anchor.deposit_max_ucr(self._context.ledger, payer)

    def carried_ucr(self, payer: bytes) -> int:
        """The largest job that an open channel of this payer has room for."""
        open_ones = self._context.ledger.with_peer(payer, Role.PAYEE)
        return max((channel.spendable_ucr for channel in open_ones), default=0)

    def find(self, session: SessionKey, cid: bytes) -> Channel:
        """An open channel of this payer. RemoteError `channel.unknown`."""
        channel = self._context.ledger.channel(cid)
        if (
            channel is None
            or channel.role is not Role.PAYEE
            or channel.payer != session.peer
            or not channel.is_open
        ):
            raise RemoteError("channel.unknown", cid.hex()[:16], penalize=False)
        return channel

    def check_open(self, payer: bytes, award: Award, bid: Bid) -> ChannelOpened:
        """The record that an award's opening would make; nothing changes yet.

        RemoteError: `channel.bad_terms`, `channel.over_limit`, `channel.too_many`,
        `channel.bad_signature`.
        """
        opening, context = award.open, self._context
        assert opening is not None
        offered = bid.terms, bid.payee_salt
        return check_opening(context, self._anchor, payer, award.cid, opening, offered)

    def opened(self, award: Award) -> None:
        """The opening was logged: keep what proves it to others."""
        assert award.open is not None
        self._context.append(OpeningSigned(award.cid, award.open.signature))
        self._anchor.keep_proof(self._context, award.cid)

    def check_voucher(
        self, payer: bytes, voucher: Voucher, deposit_ucr: int, best_ucr: int
    ) -> None:
        """RemoteError: `channel.bad_signature`, `channel.over_deposit`, `channel.bad_lanes`,
        and `channel.stale_total`, which is no offence (a repeat after a reconnect)."""
        context = self._context
        signed = signing.voucher_bytes(
            context.network, voucher.cid, voucher.total_ucr, voucher.lanes
        )
        if not context.verify(payer, signed, voucher.signature):
            raise RemoteError("channel.bad_signature", "voucher")
        if voucher.total_ucr > deposit_ucr:
            raise RemoteError("channel.over_deposit", f"{voucher.total_ucr} of {deposit_ucr} ucr")
        numbers = [claim.lane for claim in voucher.lanes]
        if numbers != sorted(set(numbers)):
            raise RemoteError("channel.bad_lanes", "not in rising order")
        if voucher.total_ucr <= best_ucr:
            raise RemoteError("channel.stale_total", penalize=False)

    def take_voucher(self, session: SessionKey, voucher: Voucher) -> Channel:
        """Log a better voucher and acknowledge it. Codes of `check_voucher` and `find`."""
        channel = self.find(session, voucher.cid)
        channel.step(ChannelEvent.VOUCHER)
        self.check_voucher(session.peer, voucher, channel.deposit_ucr, channel.total_ucr)
        self.keep_voucher(channel, voucher)
        self._context.send(session, VoucherAck(channel.cid, channel.total_ucr))
        self._context.note("voucher.accepted", peer_id=session.peer, total_ucr=voucher.total_ucr)
        return channel

    def keep_voucher(self, channel: Channel, voucher: Voucher) -> None:
        """Log a checked voucher; the payer may state and pay more than our log knows of."""
        self._context.append(VoucherAccepted(voucher))
        stated = sum(claim.due_ucr for claim in voucher.lanes)
        missing = min(stated, voucher.total_ucr) - channel.due_ucr
        if missing > 0:
            # Our log was put back to an older state: the payer has proof of what we delivered.
            settled = channel.settled_due_ucr + missing
            lanes, last = channel.settled_lanes, channel.lane_last
            self._context.append(DueAgreed(channel.cid, settled, lanes, last))

    def take_top_up(self, session: SessionKey, message: TopUp) -> None:
        """A larger deposit, if the anchor believes it; what is held gets the same answer again.

        RemoteError `channel.unknown`, `channel.wrong_state`, `channel.bad_signature`, and the
        anchor's codes.
        """
        context = self._context
        channel = self.find(session, message.cid)
        channel.step(ChannelEvent.TOP_UP)
        deposit = message.deposit_ucr
        signed = signing.top_up_bytes(context.network, channel.cid, deposit)
        if not context.verify(channel.payer, signed, message.signature):
            raise RemoteError("channel.bad_signature", "top-up")
        if deposit > channel.deposit_ucr:
            held, ledger = channel.deposit_ucr, context.ledger
            self._anchor.verify_deposit(ledger, channel.cid, channel.payer, deposit, held)
            context.append(DepositRaised(channel.cid, deposit, message.signature))
            self._anchor.keep_proof(context, channel.cid)
        self._send_ack(session, channel.cid, deposit)
        context.note("channel.topped_up", cid=channel.cid, deposit_ucr=deposit)

    def _send_ack(self, session: SessionKey, cid: bytes, deposit_ucr: int) -> None:
        context = self._context
        signed = signing.top_up_ack_bytes(context.network, cid, deposit_ucr)
        context.send(session, TopUpAck(cid, deposit_ucr, context.signer.sign(signed)))

    def show_deposit(self, session: SessionKey, channel: Channel) -> None:
        """After a re-establish: a payer whose log was put back may have lost its last top-up."""
        if channel.raised_by:
            deposit_ucr = channel.deposit_ucr
            self._context.send(session, TopUp(channel.cid, deposit_ucr, channel.raised_by))
            self._send_ack(session, channel.cid, deposit_ucr)

    def reserve(self, channel: Channel, lane: Lane, due_ucr: int, ahead_ucr: int) -> bool:
        """Make sure that `lane` may have sent up to `due_ucr`; False when W forbids it.

        Reserves `ahead_ucr` more where the window has room, so that most chunks need no
        record of their own.
        """
        if due_ucr <= lane.reserved_ucr:
            return True
        others = channel.reserved_ucr - max(lane.due_ucr, lane.reserved_ucr)
        limit = self.send_limit_ucr(channel) - others
        if due_ucr > limit:
            return False
        target = min(limit, due_ucr + ahead_ucr)
        self._context.append(Reserved(channel.cid, lane.lane, target))
        return True

    def send_limit_ucr(self, channel: Channel) -> int:
        """The due that we may reach: the window over the best voucher, never the deposit."""
        window = self._context.ledger.window_ucr(channel)
        return min(channel.total_ucr + window, channel.deposit_ucr)

    def take_close(self, session: SessionKey, message: CloseRequest) -> None:
        """Agree to a close at what is due at least.

        RemoteError: `channel.unknown`, `channel.wrong_state` (lanes still run),
        `channel.bad_signature`, `channel.close_mismatch`, `channel.unpaid`.
        """
        context = self._context
        if self.closed_already(session, message.cid):
            return
        channel = self.find(session, message.cid)
        if channel.lanes or channel.state is not ChannelState.READY:
            raise RemoteError("channel.wrong_state", "lanes are open", penalize=False)
        signed = signing.close_bytes(context.network, channel.cid, message.total_ucr)
        if not context.verify(channel.payer, signed, message.signature):
            raise RemoteError("channel.bad_signature", "close")
        if message.total_ucr < channel.due_ucr:  # more: our log may have lost what is due
            detail = f"{message.total_ucr} proposed, {channel.due_ucr} due"
            raise RemoteError("channel.close_mismatch", detail, penalize=False)
        if channel.total_ucr < message.total_ucr:
            raise RemoteError("channel.unpaid", penalize=False)
        channel.step(ChannelEvent.CLOSE_REQUEST)
        signature = context.signer.sign(
            signing.close_ack_bytes(context.network, channel.cid, message.total_ucr)
        )
        context.append(
            ChannelClosed(
                channel.cid,
                message.total_ucr,
                COOPERATIVE,
                context.now_ns,
                message.signature,
                signature,
            )
        )
        total, theirs = message.total_ucr, message.signature
        self._anchor.settle_agreed(context, channel.cid, total, theirs, signature)
        context.send(session, CloseAck(channel.cid, message.total_ucr, signature))
        context.note("channel.closed", cid=channel.cid, settled_ucr=message.total_ucr)

    def show_end(self, session: SessionKey, channel: Channel) -> None:
        """A payer that forgot how the channel ended: its best voucher, and what we agreed."""
        if channel.voucher is not None:
            self._context.send(session, CloseClaim(channel.cid, channel.voucher))
        self.closed_already(session, channel.cid)

    def closed_already(self, session: SessionKey, cid: bytes) -> bool:
        """The payer missed our agreement to close: say it again."""
        context = self._context
        channel = context.ledger.channel(cid)
        if channel is None or channel.settled_ucr is None or channel.payer != session.peer:
            return False
        signature = context.signer.sign(
            signing.close_ack_bytes(context.network, cid, channel.settled_ucr)
        )
        context.send(session, CloseAck(cid, channel.settled_ucr, signature))
        return True

    def lost(self, payer: bytes) -> None:
        """The stream from this payer is gone."""
        for channel in self._context.ledger.with_peer(payer, Role.PAYEE):
            channel.step(ChannelEvent.LOST)
