"""Watches a world's money from outside: every frame, every step, every log.

Knows the invariants I1 to I6 of router/README.md's "Money" and nothing of how they are kept.
"""

from typing import Any

from protocol.channel import Channel, ChannelState, Role
from protocol.messages import Award, Chunk, Voucher
from protocol.records import (
    ChannelOpened,
    LaneClosed,
    Reserved,
    VoucherAccepted,
    VoucherIssued,
    decode_record,
)
from protocol.signing import channel_id
from router import actions as act
from router.ledger import Ledger
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import ADVANCE_UCR, key_of, message_of


class Durable:
    """What one peer's disk holds for certain, folded record by record."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._read = 0
        self.issued: dict[bytes, int] = {}
        self.accepted: dict[bytes, int] = {}
        self.opened: dict[bytes, ChannelOpened] = {}
        self.reserved: dict[tuple[bytes, int], int] = {}
        self.lane_closed: dict[tuple[bytes, int], int] = {}

    def read(self, peer: Peer) -> "Durable":
        """Fold what became durable since; records that are durable never go away."""
        for number, payload in peer.log[self._read : peer.durable]:
            self._fold(decode_record(number, payload))
        self._read = max(self._read, peer.durable)
        return self

    def _fold(self, record: Any) -> None:
        match record:
            case ChannelOpened():
                cid = channel_id(
                    self._network,
                    record.payer,
                    record.payee,
                    record.payer_salt,
                    record.payee_salt,
                    record.terms,
                )
                self.opened[cid] = record
            case VoucherIssued():
                self.issued[record.cid] = max(record.total_ucr, self.issued.get(record.cid, 0))
            case VoucherAccepted():
                voucher = record.voucher
                before = self.accepted.get(voucher.cid, 0)
                assert voucher.total_ucr > before, "I5: accepted totals strictly rise"
                self.accepted[voucher.cid] = voucher.total_ucr
            case Reserved():
                self.reserved[record.cid, record.lane] = record.due_ucr
            case LaneClosed():
                self.lane_closed[record.cid, record.lane] = record.due_ucr


class Watch:
    """Checks a world while it runs; every assertion names what it guards."""

    def __init__(self, world: World, advance_ucr: int) -> None:
        self.world = world
        self.advance_ucr = advance_ucr
        self.chunks_seen = self.vouchers_seen = 0
        self._signed: dict[bytes, int] = {}
        self._sent: dict[bytes, dict[int, int]] = {}
        self._durable = [Durable(world.settings.network) for _ in world.peers]
        self._put_back: set[bytes] = set()  # keys of peers whose log was put back
        self._before = world.frame_filter
        world.frame_filter = self._frame
        world.after_step = self._step

    def silence(self, silent: Any) -> None:
        """Drop frames for which `silent(source, message)`; what is dropped counts as sent."""
        self._before = silent

    def put_back(self, peer: Peer) -> None:
        """This peer's log is an older one now. What signatures reach is repaired, the rest lost:
        of its channels only what binds signers is watched, and that nobody is blamed."""
        self._put_back.add(key_of(peer))
        self._durable[peer.index] = Durable(self.world.settings.network)

    def _is_whole(self, *keys: bytes) -> bool:
        return not any(key in self._put_back for key in keys)

    # --- as things happen ------------------------------------------------------------------

    def _step(self, peer: Peer, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.Note) and not self._put_back:
                assert action.event != "log.rolled_back", "a whole log is called an old copy"
            if isinstance(action, act.Send):
                message = message_of(action.data)
                voucher = message.voucher if isinstance(message, Award) else message
                if isinstance(voucher, Voucher):
                    self._voucher_signed(peer, voucher)

    def _voucher_signed(self, peer: Peer, voucher: Voucher) -> None:
        self.vouchers_seen += 1
        channel = peer.node.context.ledger.channels[voucher.cid]
        total = voucher.total_ucr
        assert total <= channel.deposit_ucr, "I1: signed <= deposit"
        if self._is_whole(channel.payer, channel.payee):
            assert total - channel.due_ucr <= self.advance_ucr, "I4: signed - received due <= A"
            # One that is sent again states what was received, also of what is disputed since.
            received_ucr = channel.due_ucr + channel.disputed_ucr
            assert sum(claim.due_ucr for claim in voucher.lanes) <= received_ucr
        self._signed[voucher.cid] = max(total, self._signed.get(voucher.cid, 0))

    def _frame(self, source: Peer, target: Peer, data: bytes) -> bytes | None:
        message = message_of(data)
        durable = self._durable[source.index].read(source)
        voucher = message.voucher if isinstance(message, Award) else message
        if isinstance(voucher, Voucher):
            issued = durable.issued.get(voucher.cid, 0)
            assert voucher.total_ucr <= issued, "I2: signed <= payer-durable total"
        if isinstance(message, Chunk):
            self.chunks_seen += 1
            if self._is_whole(key_of(source), key_of(target)):
                self._chunk_leaves(durable, message)
        if self._before is not None and self._before(source, message):
            return None
        return data

    def _chunk_leaves(self, durable: Durable, chunk: Chunk) -> None:
        lanes = self._sent.setdefault(chunk.cid, {})
        lanes[chunk.lane] = max(chunk.due_ucr, lanes.get(chunk.lane, 0))
        sent = sum(durable.lane_closed.get((chunk.cid, lane), due) for lane, due in lanes.items())
        reserved = durable.reserved.get((chunk.cid, chunk.lane), 0)
        assert chunk.due_ucr <= reserved, "a chunk leaves behind its durable reservation"
        window = durable.opened[chunk.cid].terms.window_ucr
        assert sent - durable.accepted.get(chunk.cid, 0) <= window, "I3: sent - paid <= W"

    # --- at any time -----------------------------------------------------------------------

    def check(self) -> None:
        """Everything that must hold between two events."""
        for peer in self.world.peers:
            self._durable[peer.index].read(peer)
            assert not peer.penalized, f"an honest peer was blamed: {peer.penalized}"
            if peer.alive:
                check_replay(peer)
        payers = self._by_cid(Role.PAYER)
        for cid, earning in self._by_cid(Role.PAYEE).items():
            if not self._is_whole(earning.payer, earning.payee):
                continue
            paying = payers[cid]
            assert earning.total_ucr <= self._signed.get(cid, 0), "I6: paid <= signed"
            assert earning.total_ucr <= paying.total_ucr, "I6: paid <= issued"
            assert paying.due_ucr <= earning.due_ucr, "nobody received more than was sent"
            assert earning.deposit_ucr >= paying.deposit_ucr, "the payer's follows the payee's"
            self._check_ends(paying, earning)

    def _check_ends(self, paying: Channel, earning: Channel) -> None:
        """Agreed ends are equal. Alone, if they never spoke again, the payee may lack the payer's
        last voucher, or the payer the payee's agreement to close at what was delivered; then less
        is earned than was paid, never more."""
        if paying.settled_ucr is None or earning.settled_ucr is None:
            return
        if ChannelState.SETTLED not in (paying.state, earning.state):
            assert paying.settled_ucr == earning.settled_ucr, "conservation"
        assert earning.settled_ucr <= paying.settled_ucr, "conservation, alone"
        agreed = earning.state is ChannelState.CLOSED
        known_ucr = paying.due_ucr if agreed else earning.total_ucr
        assert paying.settled_ucr - earning.settled_ucr <= paying.total_ucr - known_ucr

    def _by_cid(self, role: Role) -> dict[bytes, Channel]:
        return {
            cid: channel
            for peer in self.world.peers
            for cid, channel in peer.node.context.ledger.channels.items()
            if channel.role is role
        }

    def check_settled(self) -> None:
        """After all channels closed: what was spent was earned, and nothing is held."""
        self.check()
        balances = [peer.node.context.ledger.balance() for peer in self.world.peers]
        payers, payees = self._by_cid(Role.PAYER), self._by_cid(Role.PAYEE)
        # Settled alone, before the ends spoke again, a channel costs its payer what it had signed,
        # also where the payee never took the channel or lost the voucher: at most A.
        unshown = 0
        for cid, channel in payers.items():
            earned_ucr = (payees[cid].settled_ucr or 0) if cid in payees else 0
            lost_ucr = (channel.settled_ucr or 0) - earned_ucr
            alone = channel.state is ChannelState.SETTLED or channel.payee in self._put_back
            assert not lost_ucr or alone, "conservation"
            assert lost_ucr <= ADVANCE_UCR or self._put_back, "conservation, alone"
            unshown += lost_ucr
        if not self._put_back:
            assert sum(balance.net_ucr for balance in balances) == -unshown, "conservation"
        for peer, balance in zip(self.world.peers, balances, strict=True):
            open_channels = [c for c in peer.node.context.ledger.channels.values() if c.is_open]
            assert not open_channels, f"peer {peer.index}: {open_channels}"
            assert (balance.locked_ucr, balance.unpaid_ucr) == (0, 0)


def check_replay(peer: Peer) -> None:
    """The log, folded again, is the live ledger, but for what a restart can't know.

    A payer forgets chunks that no record names yet, so it may owe less; a payee counts all it
    reserved as sent, so it may be owed more. Everything else is equal.
    """
    live = peer.node.context.ledger
    again = Ledger(live.network, key_of(peer))
    for number, payload in peer.log:
        again.replay(number, payload)
    again.finish_replay()
    assert again.channels.keys() == live.channels.keys()
    assert again.receipts == live.receipts
    assert again.denials == live.denials
    for cid, channel in live.channels.items():
        replayed = again.channels[cid]
        for name in (
            "role",
            "payer",
            "payee",
            "terms",
            "deposit_ucr",
            "total_ucr",
            "offered_ucr",
            "voucher",
            "issued",
            "receipts",
            "deadline_ns",
            "lane_last",
            "settled_due_ucr",
            "settled_lanes",
            "closed",
            "settled_ucr",
            "agreed_signature",
            "raised_by",
        ):
            assert getattr(replayed, name) == getattr(channel, name), name
        assert replayed.lanes.keys() == channel.lanes.keys()
        for lane, of_replay in replayed.lanes.items():
            due_ucr = channel.lanes[lane].due_ucr
            if channel.role is Role.PAYER:
                assert of_replay.due_ucr <= due_ucr
            else:
                assert of_replay.due_ucr == max(due_ucr, channel.lanes[lane].reserved_ucr)
