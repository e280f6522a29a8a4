"""Closing a channel alone: notice, better vouchers until the deadline, settlement. Sans-IO.

Either end begins; what a channel is settled at follows from vouchers alone, so both logs come to
the same sum. Rule: router/README.md, "Closing alone".
"""

from collections.abc import Callable

from protocol import limits, signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.messages import CloseClaim, CloseNotice, CloseShown, Voucher
from protocol.records import ChallengeStarted, ChannelClosed
from router import events
from router.actions import SessionKey
from router.anchor import Anchor
from router.closing import Closing
from router.context import Context
from router.ledger import COOPERATIVE, REFUSED, UNILATERAL
from router.payee import Payee
from router.payer import Payer

BY_PAYER, BY_PAYEE = 1, 2


class Challenges:
    """Channels that one end closes alone; `stop` ends what runs on one, `begun` counts them."""

    def __init__(
        self,
        context: Context,
        anchor: Anchor,
        payer: Payer,
        payee: Payee,
        closing: Closing,
        stop: Callable[[Channel], None],
        is_up: Callable[[SessionKey], bool],
    ) -> None:
        self.begun = 0
        self._context = context
        self._anchor = anchor
        self._payer = payer
        self._payee = payee
        self._closing = closing
        self._stop = stop
        self._is_up = is_up

    # --- beginning -------------------------------------------------------------------------

    def close(self, cids: tuple[bytes, ...]) -> None:
        """A person closes these channels, whatever the other end says."""
        for cid in cids:
            channel = self._context.ledger.channel(cid)
            if channel is None or not channel.allows(ChannelEvent.CHALLENGE):
                refused = events.CloseRefused(cid, "channel.wrong_state")
                self._context.deliver(events.CONTROL_ASK, refused)
            else:
                self.begin(channel, channel.role)

    def begin(self, channel: Channel, by: Role) -> None:
        """Close, or join in: the record first, then the notice, then the anchor."""
        context = self._context
        deadline_ns = context.now_ns + period_ns(channel)
        number = BY_PAYER if by is Role.PAYER else BY_PAYEE
        record = ChallengeStarted(channel.cid, channel.total_ucr, number, deadline_ns)
        context.append(record)
        self._stop(channel)
        if by is channel.role:
            self._tell_peer(channel)
        self._anchor.request_close(context, channel)
        told = events.CloseBegun(channel.cid, channel.total_ucr, deadline_ns, by is channel.role)
        context.deliver(events.CONTROL_ASK, told)
        context.note("channel.challenged", cid=channel.cid, total_ucr=channel.total_ucr)
        self.begun += 1

    def _tell_peer(self, channel: Channel) -> None:
        session = SessionKey(channel.peer, outbound=channel.role is Role.PAYER)
        if not self._is_up(session):
            return  # `session_opened` comes again
        context, total, deadline_ns = self._context, channel.total_ucr, channel.deadline_ns
        signed = signing.close_notice_bytes(context.network, channel.cid, total, deadline_ns)
        signature = context.signer.sign(signed)
        voucher = self._best(channel)
        notice = CloseNotice(channel.cid, total, deadline_ns, voucher, signature)
        context.send(session, notice)

    def _best(self, channel: Channel) -> Voucher | None:
        if channel.role is Role.PAYEE or not channel.total_ucr:
            return channel.voucher
        return self._payer.sign_again(channel)

    def session_opened(self, session: SessionKey) -> None:
        """A stream is up: the peer may not have heard of a close."""
        role = Role.PAYER if session.outbound else Role.PAYEE
        for channel in self._context.ledger.with_peer(session.peer, role):
            if channel.state is ChannelState.CHALLENGE:
                self._tell_peer(channel)

    def remind(self, session: SessionKey, cid: bytes) -> bool:
        """Whether the peer speaks of a channel that is being closed; it is told so again."""
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.peer != session.peer:
            return False
        if channel.state is not ChannelState.CHALLENGE:
            return False
        self._tell_peer(channel)
        return True

    # --- what the peer says ----------------------------------------------------------------

    def _find(self, session: SessionKey, cid: bytes) -> Channel:
        channel = self._context.ledger.channel(cid)
        role = Role.PAYER if session.outbound else Role.PAYEE
        if channel is None or channel.role is not role or channel.peer != session.peer:
            raise RemoteError("channel.unknown", cid.hex()[:16], penalize=False)
        return channel

    def take_notice(self, session: SessionKey, message: CloseNotice) -> None:
        """The peer closes alone: join in, and show a better voucher if there is one.

        RemoteError `channel.unknown`, `channel.bad_signature`, `channel.close_mismatch`,
        `channel.over_deposit`, `channel.bad_lanes`, `channel.too_late`.
        """
        context, channel = self._context, self._find(session, message.cid)
        total = message.total_ucr
        signed = signing.close_notice_bytes(
            context.network, channel.cid, total, message.deadline_ns
        )
        if not context.verify(channel.peer, signed, message.signature):
            raise RemoteError("channel.bad_signature", "close notice")
        shown = message.voucher
        if (shown.total_ucr if shown else 0) != total or (shown and shown.cid != channel.cid):
            raise RemoteError("channel.close_mismatch", "not the total of its voucher")
        if channel.is_open:
            if shown is not None:
                self._take_voucher(channel, shown, stale_is_fine=True)
            if channel.state is not ChannelState.CHALLENGE:
                self.begin(channel, Role.PAYEE if channel.role is Role.PAYER else Role.PAYER)
            else:
                self._anchor.request_close(context, channel)
        if channel.role is Role.PAYEE and channel.settled_ucr is not None:
            self._payee.show_end(session, channel)
        elif channel.agreed_signature:
            self._show_agreed(session, channel)
        elif channel.total_ucr > total:
            best = self._best(channel)
            assert best is not None
            context.send(session, CloseClaim(channel.cid, best))

    def take_voucher(self, session: SessionKey, voucher: Voucher) -> bool:
        """Whether a voucher is for a channel that is being closed, and so was an answer."""
        channel = self._context.ledger.channel(voucher.cid)
        if channel is None or channel.state is not ChannelState.CHALLENGE:
            return False
        self.take_claim(session, CloseClaim(voucher.cid, voucher))
        return True

    def take_claim(self, session: SessionKey, message: CloseClaim) -> None:
        """A better voucher for a channel that is being closed. RemoteError as `take_notice`,
        `channel.stale_total`, `channel.wrong_state`."""
        channel = self._find(session, message.cid)
        if not channel.is_open:
            raise RemoteError("channel.too_late", penalize=False)
        if message.voucher.cid != channel.cid:
            raise RemoteError("channel.unknown", "the voucher's")
        if channel.role is Role.PAYEE and channel.state is not ChannelState.CHALLENGE:
            raise RemoteError("channel.wrong_state", channel.state.value, penalize=False)
        self._take_voucher(channel, message.voucher)

    def _take_voucher(
        self, channel: Channel, voucher: Voucher, *, stale_is_fine: bool = False
    ) -> None:
        """Log a voucher that is better than ours; the payer's is its own forgotten one."""
        context = self._context
        best = -1 if stale_is_fine else channel.total_ucr
        self._payee.check_voucher(channel.payer, voucher, limits.U63_MAX, best)
        if channel.role is Role.PAYEE and voucher.total_ucr > channel.deposit_ucr:
            # No lie for certain: our log may have lost a top-up.
            raise RemoteError("channel.over_deposit", penalize=False)
        if voucher.total_ucr <= channel.total_ucr:
            return
        if channel.state is ChannelState.CHALLENGE:
            if context.now_ns >= channel.deadline_ns:
                raise RemoteError("channel.too_late", penalize=False)
            channel.step(ChannelEvent.RESPOND)
        if channel.role is Role.PAYEE:
            self._payee.keep_voucher(channel, voucher)
        else:
            self._payer.adopt(channel, voucher)
        context.note("channel.answered", cid=channel.cid, total_ucr=voucher.total_ucr)

    def take_refusal(self, session: SessionKey, cid: bytes, code: str) -> None:
        """The payee does not know the channel that we close alone.

        When nothing was delivered it never took the channel, so nothing is due: what we signed
        in advance is not spent. Where an anchor pays out, what it settles at counts.
        """
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.peer != session.peer or channel.role is not Role.PAYER:
            return
        unknown = code == "channel.unknown" and channel.state is ChannelState.CHALLENGE
        if unknown and not channel.due_ucr and not self._anchor.pays_out:
            self._end(channel, 0, REFUSED)

    def _show_agreed(self, session: SessionKey, channel: Channel) -> None:
        """The payee's log was put back to before it agreed to close: show it its signature."""
        context, cid, total = self._context, channel.cid, channel.settled_ucr or 0
        ours = context.signer.sign(signing.close_bytes(context.network, cid, total))
        context.send(session, CloseShown(cid, total, ours, channel.agreed_signature))

    def take_shown(self, session: SessionKey, message: CloseShown) -> None:
        """We agreed to a close that our log has forgotten: it ends the channel now.

        RemoteError `channel.unknown`, `channel.bad_signature`, `channel.wrong_state`.
        """
        context, channel = self._context, self._find(session, message.cid)
        cid, total = channel.cid, message.total_ucr
        by_payer, by_payee = message.payer_signature, message.payee_signature
        asked = signing.close_bytes(context.network, cid, total)
        agreed = signing.close_ack_bytes(context.network, cid, total)
        if not context.verify(channel.payer, asked, by_payer):
            raise RemoteError("channel.bad_signature", "close")
        if not context.verify(channel.payee, agreed, by_payee):
            raise RemoteError("channel.bad_signature", "agreement to close")
        if channel.state is not ChannelState.CHALLENGE:
            raise RemoteError("channel.wrong_state", channel.state.value, penalize=False)
        self._end(channel, total, COOPERATIVE, by_payer, by_payee)

    # --- what the anchor says --------------------------------------------------------------

    def challenged(self, cid: bytes) -> None:
        """Somebody began to close at the anchor: join in."""
        channel = self._context.ledger.channel(cid)
        if channel is not None and channel.allows(ChannelEvent.CHALLENGE):
            self.begin(channel, Role.PAYEE if channel.role is Role.PAYER else Role.PAYER)

    def settled(self, cid: bytes, settled_ucr: int) -> None:
        """The anchor paid out."""
        channel = self._context.ledger.channel(cid)
        if channel is None or not channel.is_open:
            return
        if channel.allows(ChannelEvent.CHALLENGE):
            self.begin(channel, Role.PAYEE if channel.role is Role.PAYER else Role.PAYER)
        self.settle(channel, settled_ucr)

    def settle(self, channel: Channel, settled_ucr: int) -> None:
        """The deadline is over, or the anchor paid out."""
        self._end(channel, settled_ucr, UNILATERAL)

    def _end(
        self,
        channel: Channel,
        settled_ucr: int,
        how: int,
        by_payer: bytes = b"",
        by_payee: bytes = b"",
    ) -> None:
        cid, now_ns = channel.cid, self._context.now_ns
        self._context.append(ChannelClosed(cid, settled_ucr, how, now_ns, by_payer, by_payee))
        self._closing.closed(cid)


def period_ns(channel: Channel) -> int:
    """The challenge period: the terms', else the usual one; never beyond all reason."""
    return min(channel.terms.challenge_ns or limits.CHALLENGE_NS, limits.CHALLENGE_NS_MAX)
