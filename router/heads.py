"""Signed heads between channel peers: who was rolled back, and who keeps two logs. Sans-IO.

On a new stream each side first shows the newest head of the other's log that it holds, and only
then, having seen that its own log is whole, its own head: a node that was restored from an old
copy signs nothing that it might have signed differently before. Rule: router/README.md, "Heads".
"""

from dataclasses import dataclass

from protocol import limits, signing
from protocol.channel import CHANNEL_TRANSITIONS as TRANSITIONS
from protocol.channel import ChannelEvent
from protocol.errors import RemoteError
from protocol.fields import SignedHead
from protocol.messages import LogHead
from protocol.records import (
    ChannelFrozen,
    HeadSeen,
    HeadSigned,
    SnapshotBegun,
    SnapshotPart,
    SnapshotSigned,
)
from router.actions import SessionKey
from router.context import Context
from router.fold import Fold
from router.snapshot import snapshot_parts


@dataclass(slots=True)
class _Exchange:
    """One session: whether the peer has shown what it holds of us, and we of it."""

    was_shown: bool = False
    showed: bool = False
    seen_at_ns: int = 0


class Heads:
    """This node's heads and snapshots, and what its channel peers show it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._exchanges: dict[SessionKey, _Exchange] = {}
        self._announced_at = 0

    # --- our own ---------------------------------------------------------------------------

    def sign(self) -> SignedHead | None:
        """Our head as it is now, signed and logged; None while it could be a second one."""
        context, log = self._context, self._context.log
        if log is None:
            return None
        newest, last = log.ledger.heads.newest, log.end.next_sequence - 1
        if newest is not None and newest.sequence >= last - 1:
            return newest  # nothing but its own record came after it
        if last < 0 or not self._may_sign(log):
            return None
        head = self._sign(log)
        context.append(HeadSigned(head, context.now_ns))
        return head

    def snapshot(self) -> None:
        """Log the whole state, so that a replay can start here; not while no head is signed."""
        context, log = self._context, self._context.log
        if log is None or not self._may_sign(log):
            return
        parts = list(snapshot_parts(log.ledger))
        context.append(SnapshotBegun(len(parts)))
        for part in parts:
            context.append(SnapshotPart(part))
        context.append(SnapshotSigned(self._sign(log), context.now_ns))

    @staticmethod
    def _may_sign(log: Fold) -> bool:
        """Whether the log is beyond what it was before it was rolled back."""
        shown = log.ledger.heads.shown
        return shown is None or log.end.next_sequence - 1 > shown.sequence

    def _sign(self, log: Fold) -> SignedHead:
        context, sequence, head = self._context, log.end.next_sequence - 1, log.end.head
        signed = signing.head_bytes(context.network, context.public_key, sequence, head)
        return SignedHead(sequence, head, context.signer.sign(signed))

    def tick(self) -> None:
        """Sign a head, or log a snapshot, when enough records have come since the last."""
        log = self._context.log
        if log is None:
            return
        records = log.end.next_sequence
        if records - self._announced_at > limits.HEAD_RECORDS:
            self.announce()
        wanted = limits.SNAPSHOT_RECORDS
        wanted += limits.SNAPSHOT_RECORDS_PER_CHANNEL * len(log.ledger.channels)
        if records - (log.snapshot_at or 0) > wanted:
            self.snapshot()

    # --- with peers ------------------------------------------------------------------------

    def session_opened(self, session: SessionKey) -> None:
        """We dialled: begin."""
        if self._context.log is not None:
            self._exchanges[session] = _Exchange()
            self._send(session, self._exchanges[session])

    def session_closed(self, session: SessionKey) -> None:
        """Nothing of it is remembered."""
        self._exchanges.pop(session, None)

    def announce(self) -> None:
        """Show our head to every channel peer that is connected, and ask for what it holds."""
        if self._context.log is None:
            return
        self._announced_at = self._context.log.end.next_sequence
        self.sign()
        known = dict.fromkeys(c.peer for c in self._context.ledger.channels.values())
        for session, exchange in self._exchanges.items():
            if session.peer in known:
                self._send(session, exchange)

    def take(self, session: SessionKey, message: LogHead) -> None:
        """A peer's word. RemoteError `head.bad_signature`, `head.equivocation`."""
        if self._context.log is None:
            return
        exchange = self._exchanges.setdefault(session, _Exchange())
        is_first, exchange.was_shown = not exchange.was_shown, True
        if message.yours is not None:
            self._take_ours(session.peer, message.yours)
        if not self._is_known(session.peer):
            return
        if message.own is not None:
            self._take_theirs(session.peer, exchange, message.own)
        elif exchange.showed:
            self._context.note("peer.rolled_back", peer_id=session.peer)
        if is_first:
            self._send(session, exchange)

    def _is_known(self, peer: bytes) -> bool:
        ledger = self._context.ledger
        return peer in ledger.heads.seen or any(
            channel.peer == peer for channel in ledger.channels.values()
        )

    def _send(self, session: SessionKey, exchange: _Exchange) -> None:
        own = self.sign() if exchange.was_shown else None
        yours = self._context.ledger.heads.seen.get(session.peer)
        self._context.send(session, LogHead(own, yours))
        exchange.showed = yours is not None

    def _check(self, owner: bytes, head: SignedHead) -> None:
        context = self._context
        signed = signing.head_bytes(context.network, owner, head.sequence, head.head)
        if not context.verify(owner, signed, head.signature):
            raise RemoteError("head.bad_signature", f"record {head.sequence}")

    def _take_ours(self, peer: bytes, head: SignedHead) -> None:
        """A head of ours: one that our log does not have means that it was rolled back."""
        context = self._context
        assert context.log is not None
        heads, last = context.ledger.heads, context.log.end.next_sequence - 1
        self._check(context.public_key, head)
        if not heads.lacks(head, last):
            return
        if heads.shown is not None and head.sequence <= heads.shown.sequence:
            return  # said before
        context.append(HeadSeen(context.public_key, head, None))
        context.note_rolled_back(peer, last_record=last, shown_record=head.sequence)

    def _take_theirs(self, peer: bytes, exchange: _Exchange, head: SignedHead) -> None:
        context = self._context
        self._check(peer, head)
        held = context.ledger.heads.seen.get(peer)
        if held is None or head.sequence > held.sequence:
            if context.now_ns - exchange.seen_at_ns >= limits.HEAD_SEEN_NS:
                exchange.seen_at_ns = context.now_ns
                context.append(HeadSeen(peer, head, None))
        elif head.sequence < held.sequence:
            context.note("peer.rolled_back", peer_id=peer, held=held.sequence, now=head.sequence)
        elif head.head != held.head:
            context.append(HeadSeen(peer, held, head))
            self._freeze(peer, "head.equivocation")
            raise RemoteError("head.equivocation", f"record {head.sequence}")

    def _freeze(self, peer: bytes, code: str) -> None:
        context = self._context
        for channel in list(context.ledger.channels.values()):
            if channel.peer == peer and (channel.state, ChannelEvent.FAULT) in TRANSITIONS:
                context.append(ChannelFrozen(channel.cid, code, context.now_ns))
