"""Co-operative closes that were asked for: each waits until its channel is up and idle.

Sans-IO. Rule: protocol/README.md, "Close".
"""

from collections.abc import Callable

from protocol import limits
from protocol.channel import ChannelState, Role
from router import events
from router.actions import SessionKey
from router.context import Context
from router.payer import Payer


class Closing:
    """Payer channels on their way to a close; `connect` opens a stream to a payee."""

    def __init__(
        self, context: Context, payer: Payer, connect: Callable[[bytes, tuple[str, ...]], None]
    ) -> None:
        self._context = context
        self._payer = payer
        self._connect = connect
        self._wanted: list[bytes] = []
        self._refusals: dict[bytes, int] = {}
        self._asked: dict[bytes, int] = {}  # closes that were sent and not answered, and when
        self._dialled: dict[bytes, None] = {}  # payees that are dialled once more

    def close(self, cids: tuple[bytes, ...], up: Callable[[SessionKey], bool]) -> None:
        """Close the payer channels named, or all of them; `up` tells whether a stream is."""
        for channel in list(self._context.ledger.channels.values()):
            if channel.role is not Role.PAYER or not channel.is_open:
                continue
            if cids and channel.cid not in cids:
                continue
            self._refusals.pop(channel.cid, None)
            if channel.cid not in self._wanted:
                self._wanted.append(channel.cid)
            session = SessionKey(channel.peer, outbound=True)
            if up(session):
                self.proceed(session)
            else:
                self._dialled[channel.peer] = None
                self._connect(channel.peer, ())

    def unreached(self, payee: bytes) -> None:
        """A stream to this payee failed or broke. The dial may have been on its way when the
        close was asked for, or the close itself, to one that has come back since: it is tried
        once more."""
        channels = self._context.ledger.channels
        after_ns = self._context.now_ns - limits.DIAL_TIMEOUT_NS
        again = payee in self._dialled
        for cid, asked_ns in list(self._asked.items()):
            channel = channels.get(cid)  # one that closed otherwise may be forgotten by now
            if channel is None or channel.peer == payee:
                del self._asked[cid]
                if channel is not None and asked_ns > after_ns:
                    self.refused(cid, "channel.wrong_state")
                    again = again or cid in self._wanted
        self._dialled.pop(payee, None)
        if again:
            self._connect(payee, ())

    def proceed(self, session: SessionKey) -> None:
        """Something happened on this stream: ask for the closes that can be asked for now."""
        self._dialled.pop(session.peer, None)
        for cid in list(self._wanted):
            channel = self._context.ledger.channels[cid]
            if not channel.is_open:  # refused on reconnecting: nothing was ever due
                self.closed(cid)
                continue
            ready = channel.state is ChannelState.READY and not channel.lanes
            ready = ready and channel.offered_ucr <= channel.deposit_ucr
            if channel.peer == session.peer and ready:
                self._wanted.remove(cid)
                self._asked[cid] = self._context.now_ns
                self._payer.close(session, channel)

    def refused(self, cid: bytes, code: str) -> None:
        """The payee did not take a close: again, when it may only have crossed something."""
        self._asked.pop(cid, None)
        refusals = self._refusals[cid] = self._refusals.get(cid, 0) + 1
        again = code == "channel.wrong_state" and refusals <= limits.CLOSE_REFUSALS_MAX
        if again and cid not in self._wanted:
            self._wanted.append(cid)

    def closed(self, cid: bytes) -> None:
        """A channel closed: tell whoever waits for it."""
        if cid in self._wanted:
            self._wanted.remove(cid)
        self._refusals.pop(cid, None)
        self._asked.pop(cid, None)
        channel = self._context.ledger.channels[cid]
        settled = channel.settled_ucr or 0
        refund = channel.deposit_ucr - settled
        self._context.deliver(events.CONTROL_ASK, events.ChannelSettled(cid, settled, refund))
        self._context.note("channel.closed", cid=cid, settled_ucr=settled, refund_ucr=refund)
