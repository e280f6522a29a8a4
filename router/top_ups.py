"""The paying side of top-ups: a larger deposit on a channel that is open. Sans-IO.

Write-ahead: what is offered is logged before it is signed, and counts once the payee's signature
under it is logged. Rule: protocol/README.md, "Top-up".
"""

from collections.abc import Callable

from protocol import limits, signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import RemoteError
from protocol.messages import TopUp, TopUpAck
from protocol.records import DepositRaised, TopUpOffered
from router import events
from router.actions import SessionKey
from router.anchor import Anchor
from router.auction import ScoredBid
from router.context import Context
from router.payer import Payer

Connect = Callable[[bytes, tuple[str, ...]], None]


class TopUps:
    """Deposits that this node wants raised; `connect` opens a stream to a payee unless it
    `is_up`."""

    def __init__(
        self,
        context: Context,
        payer: Payer,
        anchor: Anchor,
        connect: Connect,
        is_up: Callable[[bytes], bool],
    ) -> None:
        self._context = context
        self._payer = payer
        self._anchor = anchor
        self._connect = connect
        self._is_up = is_up
        self._asked: dict[bytes, int] = {}  # by a person, until it can be offered
        self._refused: dict[bytes, str] = {}  # channels that got no more, and why

    def ask(self, cid: bytes, deposit_ucr: int) -> None:
        """A person wants the deposit to be `deposit_ucr` in all; told by an event."""
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.role is not Role.PAYER or not channel.is_open:
            self._tell(cid, "channel.unknown")
        elif not channel.deposit_ucr < deposit_ucr <= limits.DEPOSIT_UCR_MAX:
            self._tell(cid, "channel.bad_terms")
        else:
            self._asked[cid] = deposit_ucr
            self._refused.pop(cid, None)
            if self._is_up(channel.peer):
                self.proceed(SessionKey(channel.peer, outbound=True))
            else:
                self._connect(channel.peer, ())

    def proceed(self, session: SessionKey) -> None:
        """Something happened on this stream: offer what can be offered now."""
        for cid in list(self._asked):
            channel = self._context.ledger.channels[cid]
            if not channel.is_open:
                del self._asked[cid]
                self._tell(cid, "channel.unknown")
            elif channel.offered_ucr > channel.deposit_ucr:
                continue  # one at a time: a refusal would be of either, and the other might stand
            elif channel.peer == session.peer and channel.allows(ChannelEvent.TOP_UP):
                self.offer(session, channel, self._asked.pop(cid))

    def refusal(self, cid: bytes) -> str:
        """Why the channel got no more; empty while nobody refused."""
        return self._refused.get(cid, "")

    def can_offer(self, channel: Channel) -> bool:
        """Whether the payee may still take more on this channel."""
        return channel.cid not in self._refused and channel.state is not ChannelState.FROZEN

    def for_award(
        self,
        scored: ScoredBid,
        deadline_ns: int,
        committed_ucr: Callable[[Channel], int],
        deposit_ucr: int,
    ) -> bool:
        """Raise a channel that lacks nothing but deposit to carry the job; False: there is none.

        True: wait, the channel's state or the payee's answer will come.
        """
        for channel in self._payer.open_for(scored, deadline_ns):
            used = max(channel.total_ucr, channel.due_ucr) + committed_ucr(channel)
            needed = used + scored.cost_max_ucr
            most = channel.deposit_ucr + scored.bid.terms.deposit_max_ucr
            most = min(most, limits.DEPOSIT_UCR_MAX)
            if needed > most or not self.can_offer(channel):
                continue
            pending = channel.offered_ucr > channel.deposit_ucr
            if channel.allows(ChannelEvent.TOP_UP) and not pending:
                wanted = max(needed, channel.deposit_ucr + deposit_ucr)
                session = SessionKey(channel.peer, outbound=True)
                self.offer(session, channel, min(wanted, most))
            return True
        return False

    def offer(self, session: SessionKey, channel: Channel, deposit_ucr: int) -> None:
        """Raise the deposit to `deposit_ucr`, unless as much is offered already."""
        context = self._context
        if deposit_ucr > max(channel.deposit_ucr, channel.offered_ucr):
            channel.step(ChannelEvent.TOP_UP)
            context.append(TopUpOffered(channel.cid, deposit_ucr))
            self._send(session, channel)

    def repeat(self, session: SessionKey, channel: Channel) -> None:
        """After a re-establish: an offer is made again; it, or its answer, may have been lost."""
        if channel.offered_ucr >= channel.deposit_ucr:
            self._send(session, channel)

    def funded(self, cid: bytes) -> None:
        """The anchor backs what we offered: the payee may hear of it."""
        channel = self._context.ledger.channel(cid)
        if channel is not None and channel.allows(ChannelEvent.TOP_UP):
            self.repeat(SessionKey(channel.peer, outbound=True), channel)

    def _send(self, session: SessionKey, channel: Channel) -> None:
        context, deposit_ucr = self._context, channel.offered_ucr
        if not self._anchor.top_up(context, channel, deposit_ucr):
            return  # `funded` or `refused` follows
        signed = signing.top_up_bytes(context.network, channel.cid, deposit_ucr)
        context.send(session, TopUp(channel.cid, deposit_ucr, context.signer.sign(signed)))

    def take_shown(self, session: SessionKey, message: TopUp) -> None:
        """The payee shows our last offer that it took: our log may have been put back.

        RemoteError `channel.unknown`, `channel.bad_signature`.
        """
        context = self._context
        channel = self._payer.find(session, message.cid)
        known_ucr = max(channel.deposit_ucr, channel.offered_ucr)
        if message.deposit_ucr <= known_ucr or not channel.allows(ChannelEvent.TOP_UP):
            return
        signed = signing.top_up_bytes(context.network, channel.cid, message.deposit_ucr)
        if not context.verify(context.public_key, signed, message.signature):
            raise RemoteError("channel.bad_signature", "top-up that is not ours")
        context.note_rolled_back(channel.peer, cid=channel.cid, shown_ucr=message.deposit_ucr)
        context.append(TopUpOffered(channel.cid, message.deposit_ucr))

    def take_ack(self, session: SessionKey, message: TopUpAck) -> Channel | None:
        """The payee counts on the larger deposit; None for a repeat, or when the channel closes.

        RemoteError `channel.unknown`, `channel.bad_terms`, `channel.bad_signature`.
        """
        context = self._context
        channel = self._payer.find(session, message.cid)
        if message.deposit_ucr <= channel.deposit_ucr or not channel.allows(ChannelEvent.TOP_UP):
            return None
        if message.deposit_ucr > channel.offered_ucr:
            raise RemoteError("channel.bad_terms", "a deposit that we did not offer")
        signed = signing.top_up_ack_bytes(context.network, channel.cid, message.deposit_ucr)
        if not context.verify(channel.payee, signed, message.signature):
            raise RemoteError("channel.bad_signature", "top-up")
        context.append(DepositRaised(channel.cid, message.deposit_ucr, message.signature))
        self._tell(channel.cid, "")
        return channel

    def refused(self, cid: bytes, code: str) -> None:
        """The payee or the anchor won't have it: the channel stays as it is."""
        channel = self._context.ledger.channel(cid)
        if channel is None or channel.offered_ucr <= channel.deposit_ucr:
            return
        self._refused[cid] = code
        self._context.append(TopUpOffered(cid, channel.deposit_ucr))
        self._tell(cid, code)

    def _tell(self, cid: bytes, code: str) -> None:
        channel = self._context.ledger.channel(cid)
        deposit_ucr = channel.deposit_ucr if channel else 0
        told = events.ChannelToppedUp(cid, deposit_ucr, code)
        self._context.deliver(events.CONTROL_ASK, told)
        self._context.note("channel.topped_up", cid=cid, deposit_ucr=deposit_ucr, code=code)
