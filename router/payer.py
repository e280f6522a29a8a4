"""The paying side of channels: choosing or opening one, issuing vouchers, closing.

Write-ahead: a voucher is signed only behind the record that issues it. At most A, the asker's
advance, is ever signed beyond what was received. Rule: router/README.md, "Money".
"""

from collections.abc import Callable

from protocol import limits, signing
from protocol.channel import CHANNEL_TRANSITIONS as TRANSITIONS
from protocol.channel import Channel, ChannelEvent, ChannelState, Lane, Role
from protocol.errors import RemoteError
from protocol.fields import ChannelOpen, LaneClaim
from protocol.machine import apply
from protocol.messages import CloseAck, CloseRequest, Reestablish, Voucher
from protocol.records import (
    ChannelClosed,
    ChannelFrozen,
    ChannelOpened,
    CloseAgreed,
    LaneClosed,
    VoucherIssued,
)
from protocol.units import cost_ucr
from router.actions import SessionKey
from router.auction import ScoredBid
from router.context import Context

# Soonest first: an opening channel waits for its acceptance, a detached one for its peer.
_USABLE = (ChannelState.READY, ChannelState.OPENING, ChannelState.DETACHED)

COOPERATIVE = 1
REFUSED = 2


def step(channel: Channel, event: ChannelEvent) -> None:
    """Move a channel by its table. RemoteError `channel.wrong_state`."""
    channel.state = apply(TRANSITIONS, channel.state, event, "channel.wrong_state")


class Payer:
    """Vouchers and channels that this node pays through."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(
        self, scored: ScoredBid, deadline_ns: int, committed_ucr: Callable[[Channel], int]
    ) -> Channel | None:
        """The channel with the bidder that can carry the job soonest, or None.

        `committed_ucr` says what the lanes that run on a channel may still cost.
        """
        able = [
            channel
            for channel in self._context.ledger.with_peer(scored.signed.sender, Role.PAYER)
            if channel.state in _USABLE
            and channel.expires_at_ns() > deadline_ns
            and channel.spendable_ucr - committed_ucr(channel) >= scored.cost_max_ucr
            and len(channel.lanes) < limits.LANES_PER_CHANNEL_MAX - 1
        ]
        return min(able, key=lambda channel: _USABLE.index(channel.state), default=None)

    def open(self, scored: ScoredBid, deposit_ucr: int) -> tuple[Channel, ChannelOpen]:
        """Open a channel on the bid's terms; RemoteError `channel.over_limit`, no offence."""
        context = self._context
        terms = scored.bid.terms
        deposit = min(max(deposit_ucr, scored.cost_max_ucr), terms.deposit_max_ucr)
        if deposit < scored.cost_max_ucr:
            raise RemoteError("channel.over_limit", penalize=False)
        with_peer = context.ledger.with_peer(scored.signed.sender, Role.PAYER)
        if len(with_peer) >= limits.CHANNELS_PER_PEER_MAX:
            raise RemoteError("channel.too_many", penalize=False)
        record = ChannelOpened(
            payer=context.public_key,
            payee=scored.signed.sender,
            payer_salt=context.entropy(16),
            payee_salt=scored.bid.payee_salt,
            terms=terms,
            deposit_ucr=deposit,
            opened_at_ns=context.now_ns,
        )
        context.append(record)
        cid = signing.channel_id(
            context.network,
            record.payer,
            record.payee,
            record.payer_salt,
            record.payee_salt,
            terms,
        )
        signed = signing.open_bytes(context.network, cid, deposit, record.opened_at_ns)
        opening = ChannelOpen(
            payer_salt=record.payer_salt,
            payee_salt=record.payee_salt,
            terms=terms,
            deposit_ucr=deposit,
            opened_at_ns=record.opened_at_ns,
            signature=context.signer.sign(signed),
        )
        return context.ledger.channels[cid], opening

    def issue(self, channel: Channel, target_ucr: int, advance_max_ucr: int) -> Voucher | None:
        """The voucher for `target_ucr`, logged first; None when it would not be higher.

        Never over the deposit (I1), never more than A over what was received (I4).
        """
        target = min(target_ucr, channel.due_ucr + advance_max_ucr, channel.deposit_ucr)
        if target <= channel.total_ucr:
            return None
        claims = channel.claims()
        self._context.append(VoucherIssued(channel.cid, target, claims))
        return self._sign(channel, target)

    def _sign(self, channel: Channel, total_ucr: int) -> Voucher:
        claims = channel.claims()
        signed = signing.voucher_bytes(self._context.network, channel.cid, total_ucr, claims)
        signature = self._context.signer.sign(signed)
        return Voucher(channel.cid, total_ucr, claims, signature)

    def settle(self, session: SessionKey, channel: Channel) -> None:
        """Pay up to what was received, when vouchers lag behind it."""
        voucher = self.issue(channel, channel.due_ucr, 0)
        if voucher is not None:
            self._context.send(session, voucher)

    def repeat(self, session: SessionKey, channel: Channel) -> None:
        """Send the best voucher again: the payee refused the award that it travelled in.

        Logged again, since it states the lanes as they are now.
        """
        if channel.total_ucr:
            claims = channel.claims()
            self._context.append(VoucherIssued(channel.cid, channel.total_ucr, claims))
            self._context.send(session, self._sign(channel, channel.total_ucr))

    def reestablish(self, session: SessionKey, channel: Channel) -> None:
        """After a reconnect: tell the payee our total and what we received a lane."""
        message = Reestablish(channel.cid, channel.total_ucr, channel.claims(), None)
        self._context.send(session, message)

    def take_reestablish(self, session: SessionKey, message: Reestablish) -> Channel:
        """The payee's answer: adopt a voucher that we forgot, close the lanes that broke.

        An answer that can't be true freezes the channel.

        RemoteError `channel.unknown`, `channel.wrong_state`, `channel.bad_reestablish`.
        """
        context = self._context
        channel = context.ledger.channel(message.cid)
        if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
            raise RemoteError("channel.unknown")
        apply(TRANSITIONS, channel.state, ChannelEvent.REESTABLISH, "channel.wrong_state")
        try:
            if message.total_ucr > channel.total_ucr:
                self._adopt(channel, message.voucher)
            prices = self._final_prices(channel, message.lanes)
        except RemoteError as error:
            self.freeze(channel, error.code)
            raise
        step(channel, ChannelEvent.REESTABLISH)
        for lane, due_ucr in prices:
            context.append(
                LaneClosed(
                    channel.cid,
                    lane.lane,
                    lane.chunks,
                    due_ucr,
                    "session.closed",
                    context.now_ns,
                )
            )
        if channel.total_ucr > message.total_ucr:
            context.send(session, self._sign(channel, channel.total_ucr))
        self.settle(session, channel)
        return channel

    def _final_prices(
        self, channel: Channel, claims: tuple[LaneClaim, ...]
    ) -> list[tuple[Lane, int]]:
        """What each broken lane closes at, by the payee's answer.

        It may keep what our vouchers promise ahead of delivery, at most A in all, and nothing
        more. RemoteError `channel.bad_reestablish`.
        """
        answered = {claim.lane: claim.due_ucr for claim in claims}
        lanes = list(channel.lanes.values())
        prices = [(lane, answered.get(lane.lane, lane.due_ucr)) for lane in lanes]
        due = channel.settled_due_ucr + sum(price for _, price in prices)
        if due > max(channel.total_ucr, channel.due_ucr):
            raise RemoteError("channel.bad_reestablish", "more than we signed")
        return prices

    def _adopt(self, channel: Channel, voucher: Voucher | None) -> None:
        context = self._context
        if voucher is None or voucher.cid != channel.cid:
            raise RemoteError("channel.bad_reestablish", "no voucher shown")
        signed = signing.voucher_bytes(
            context.network, channel.cid, voucher.total_ucr, voucher.lanes
        )
        if not context.verify(context.public_key, signed, voucher.signature):
            raise RemoteError("channel.bad_reestablish", "the signature is not ours")
        if voucher.total_ucr > channel.deposit_ucr:
            raise RemoteError("channel.bad_reestablish", "over the deposit")
        context.append(VoucherIssued(channel.cid, voucher.total_ucr, voucher.lanes))

    def close(self, session: SessionKey, channel: Channel) -> None:
        """Ask for a co-operative close at what was delivered; pays the last of it first."""
        context = self._context
        self.settle(session, channel)
        step(channel, ChannelEvent.CLOSE_REQUEST)
        total = channel.due_ucr
        context.append(CloseAgreed(channel.cid, total))
        signature = context.signer.sign(signing.close_bytes(context.network, channel.cid, total))
        context.send(session, CloseRequest(channel.cid, total, signature))

    def take_close_ack(self, session: SessionKey, message: CloseAck) -> Channel:
        """The payee agrees. RemoteError `channel.unknown`, `.close_mismatch`,
        `.bad_signature`, `.wrong_state`."""
        context = self._context
        channel = context.ledger.channel(message.cid)
        if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
            raise RemoteError("channel.unknown")
        apply(TRANSITIONS, channel.state, ChannelEvent.CLOSE_ACK, "channel.wrong_state")
        if message.total_ucr != channel.due_ucr:
            raise RemoteError("channel.close_mismatch")
        signed = signing.close_ack_bytes(context.network, channel.cid, message.total_ucr)
        if not context.verify(channel.payee, signed, message.signature):
            raise RemoteError("channel.bad_signature", "close")
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
        return channel

    def detached(self, provider: bytes) -> list[Channel]:
        """The channels with this provider that wait to be re-established."""
        with_peer = self._context.ledger.with_peer(provider, Role.PAYER)
        return [channel for channel in with_peer if channel.state is ChannelState.DETACHED]

    def lost(self, provider: bytes) -> None:
        """The stream to this provider is gone."""
        for channel in self._context.ledger.with_peer(provider, Role.PAYER):
            step(channel, ChannelEvent.LOST)

    def take_refuse(self, session: SessionKey, cid: bytes, code: str) -> None:
        """A re-establish or close was not taken. RemoteError `channel.unknown`.

        A payee that never took the channel delivered nothing on it; one that forgot it after
        delivering can't claim, but the channel is kept, frozen, as evidence.
        """
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.role is not Role.PAYER or channel.peer != session.peer:
            raise RemoteError("channel.unknown", penalize=False)
        if channel.state is ChannelState.CLOSING_COOP:
            step(channel, ChannelEvent.CLOSE_REFUSE)
        elif channel.state is ChannelState.DETACHED and channel.due_ucr == 0:
            self.refused(channel)
        elif channel.state is ChannelState.DETACHED:
            self.freeze(channel, code)
        self._context.note("channel.refused", cid=cid, code=code)

    def freeze(self, channel: Channel, code: str) -> None:
        """The payee broke the channel's rules: nothing more is bought on it."""
        step(channel, ChannelEvent.FAULT)
        self._context.append(ChannelFrozen(channel.cid, code, self._context.now_ns))

    def refused(self, channel: Channel) -> None:
        """The payee did not take the channel: nothing was delivered, nothing is due."""
        step(channel, ChannelEvent.REFUSE)
        self._context.append(
            ChannelClosed(channel.cid, 0, REFUSED, self._context.now_ns, b"", b"")
        )


def headroom_ucr(scored: ScoredBid, input_tokens: int, output_left: int) -> int:
    """The price of the next chunk, and of a prompt whose price is not yet due."""
    tokens = min(limits.CHUNK_TOKENS_MAX, output_left)
    bid = scored.bid
    return cost_ucr(input_tokens, tokens, bid.input_price_ucr, bid.output_price_ucr)
