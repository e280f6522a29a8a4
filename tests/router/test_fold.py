"""A snapshot is what the records before it make, and a replay may start there.

Source: protocol/README.md, "Snapshots"; router/fold.py.
"""

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits, signing
from protocol import records as r
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.crypto import Signer
from protocol.errors import StorageError
from protocol.fields import ChannelTerms, LaneClaim, SignedHead
from protocol.lane import Lane, LaneState
from protocol.log import LogEntry, LogWriterState, genesis_head
from protocol.messages import Voucher
from protocol.records import encode_record
from router.fold import Fold
from router.ledger import Ledger
from router.snapshot import restore, snapshot_parts
from tests.vectors.samples import RECEIPT

NETWORK = "fold"
US = Signer(bytes(range(32)))
PEER = bytes([7]) * 32
TERMS = ChannelTerms(5, 10**9, 10**15, 1)
SIGNATURE = bytes(64)


class Book:
    """A log in memory, written record by record as a node does."""

    def __init__(self) -> None:
        self.fold = Fold(NETWORK, US.public_key)
        self.entries: list[LogEntry] = []

    def append(self, record: Any) -> None:
        number, payload = encode_record(record)
        sequence = self.fold.end.next_sequence
        self.fold.add(record, number, payload)
        self.entries.append(LogEntry(sequence, number, payload, self.fold.end.head))

    def head(self) -> SignedHead:
        end = self.fold.end
        sequence = end.next_sequence - 1
        signed = signing.head_bytes(NETWORK, US.public_key, sequence, end.head)
        return SignedHead(sequence, end.head, US.sign(signed))

    def snapshot(self, parts: list[bytes] | None = None) -> None:
        parts = list(snapshot_parts(self.fold.ledger)) if parts is None else parts
        self.append(r.SnapshotBegun(len(parts)))
        for part in parts:
            self.append(r.SnapshotPart(part))
        self.append(r.SnapshotSigned(self.head(), 1))


def folded(entries: list[LogEntry], **options: bool) -> Fold:
    fold = Fold(NETWORK, US.public_key, **options)
    for entry in entries:
        fold.take(entry)
    return fold


@dataclass(frozen=True)
class Op:
    """Something that happens to one of a few channels; numbers are taken modulo what fits."""

    kind: str
    channel: int
    lane: int
    amount: int


KINDS = (
    *("open", "lane", "issued", "accepted", "reserved", "lane_closed", "signed", "countersigned"),
    *("acknowledged", "closed", "frozen", "due", "denied", "head", "seen", "shown", "snapshot"),
)
OPS = st.builds(
    Op, st.sampled_from(KINDS), st.integers(0, 3), st.integers(1, 3), st.integers(0, 10**6)
)


def can_happen(kind: str, channel: Channel, lane: Lane) -> bool:
    """Whether a node could log it now: records move states, and the tables say which."""
    needed = {"signed": LaneState.OFFERED, "acknowledged": LaneState.OFFERED}
    needed |= {"countersigned": LaneState.DONE}
    event = {"closed": ChannelEvent.CLOSE_ACK, "frozen": ChannelEvent.FAULT}.get(kind)
    return needed.get(kind, lane.state) is lane.state and (not event or channel.allows(event))


def record_of(op: Op, cid: bytes, payer: bytes) -> Any:
    """The record of an operation on a channel that is open, with that lane open."""
    amount, lane = op.amount, op.lane
    receipt = replace(RECEIPT, cid=cid, lane=lane, price_ucr=amount)
    claims = (LaneClaim(0, 1, 2), LaneClaim(lane, amount % 50, amount))
    return {
        "issued": r.VoucherIssued(cid, amount, claims),
        "accepted": r.VoucherAccepted(Voucher(cid, amount, claims, SIGNATURE)),
        "reserved": r.Reserved(cid, lane, amount),
        "lane_closed": r.LaneClosed(cid, lane, 3, amount, "engine.crashed", 9),
        "signed": r.ReceiptSigned(receipt, SIGNATURE),
        "countersigned": r.ReceiptCountersigned(cid, lane, bytes(32), SIGNATURE),
        "acknowledged": r.ReceiptAcknowledged(receipt, SIGNATURE, SIGNATURE),
        "closed": r.ChannelClosed(cid, amount, 1, 9, SIGNATURE, SIGNATURE),
        "due": r.DueAgreed(cid, amount, lane, lane),
        "denied": r.Denied(cid, amount),
        "frozen": r.ChannelFrozen(cid, "chunk.wrong_hash", 9),
    }[op.kind]


def perform(book: Book, op: Op) -> None:
    """Append what `op` means, opening what it needs."""
    seen = SignedHead(op.amount, bytes([op.lane]) * 32, SIGNATURE)
    if op.kind == "snapshot":
        book.snapshot()
    elif op.kind == "head" and book.entries:
        book.append(r.HeadSigned(book.head(), 1))
    elif op.kind in ("seen", "head"):
        book.append(r.HeadSeen(bytes([op.channel]) * 32, seen, None))
    elif op.kind == "shown":
        book.append(r.HeadSeen(US.public_key, seen, None))
    else:
        _on_channel(book, op)


def _on_channel(book: Book, op: Op) -> None:
    mine = op.channel % 2 == 0
    payer, payee = (US.public_key, PEER) if mine else (PEER, US.public_key)
    channels = book.fold.ledger.channels.values()
    salt = bytes([op.channel]) * 16
    found = [c for c in channels if c.is_open and (c.role is Role.PAYER) == mine]
    if op.kind == "open" or not found:
        salt = bytes([op.channel, len(book.entries) % 256]) + bytes(14)
        book.append(r.ChannelOpened(payer, payee, salt, salt, TERMS, 10**9, 7))
        channel = next(reversed(book.fold.ledger.channels.values()))
    else:
        channel = found[op.channel % len(found)]
    if op.kind == "open":
        return
    if op.lane not in channel.lanes:
        book.append(r.LaneOpened(channel.cid, op.lane, bytes(32), bytes(32), "m", 15, 60, 8, b""))
    if op.kind != "lane" and can_happen(op.kind, channel, channel.lanes[op.lane]):
        book.append(record_of(op, channel.cid, payer))


def same(one: Ledger, other: Ledger) -> bool:
    """Equal in every attribute, and in the order in which things are kept."""
    return vars(one) == vars(other) and list(one.channels) == list(other.channels)


@settings(deadline=None, max_examples=150)
@given(before=st.lists(OPS, max_size=40), after=st.lists(OPS, max_size=20))
def test_a_replay_from_a_snapshot_is_the_replay_from_the_start(
    before: list[Op], after: list[Op]
) -> None:
    """Any history, a snapshot in it, any history after it: the same ledger, heads and end."""
    patch = pytest.MonkeyPatch()
    with patch.context() as limited:
        limited.setattr(limits, "CHANNELS_CLOSED_KEPT", 2)
        limited.setattr(limits, "SNAPSHOT_PART_BYTES_MAX", 1_200)
        book = Book()
        for op in before:
            perform(book, op)
        begun = len(book.entries)
        book.snapshot()
        for op in after:
            perform(book, op)
        whole = folded(book.entries, check=True)
        part = folded(book.entries[begun:])
        assert part.began_at == begun
        assert whole.began_at in (None, 0)  # 0 where a snapshot happened to come first
        assert same(whole.ledger, part.ledger)
        assert (whole.end.next_sequence, whole.end.head) == (part.end.next_sequence, part.end.head)
        assert whole.snapshot_at == part.snapshot_at == book.fold.snapshot_at
        assert same(whole.live(), part.live())
        assert same(whole.ledger, book.fold.ledger)


def small_book() -> Book:
    book = Book()
    for kind in ("open", "lane", "issued", "head", "seen"):
        perform(book, Op(kind, 0, 1, 100))
    return book


def refused(entries: list[LogEntry], **options: bool) -> str:
    with pytest.raises(StorageError) as caught:
        folded(entries, **options)
    return caught.value.code


def test_a_snapshot_that_lies_is_found_by_the_full_check_alone() -> None:
    """Signed by the owner's own key, with every chain in order: only the records tell."""
    book = small_book()
    richer = Ledger(NETWORK, US.public_key)
    restore(richer, snapshot_parts(book.fold.ledger))
    richer.forgotten_earned_ucr += 1_000_000
    begun = len(book.entries)
    book.snapshot(list(snapshot_parts(richer)))
    assert refused(book.entries, check=True) == "storage.bad_snapshot"
    assert folded(book.entries[begun:]).ledger.balance().earned_ucr == 1_000_000


def test_a_snapshot_signed_by_another_is_none() -> None:
    book = small_book()
    begun = len(book.entries)
    book.snapshot()
    signed = book.entries[-1]
    record = r.decode_record(signed.type, signed.payload)
    forged = replace(record.head, signature=bytes(64))
    number, payload = encode_record(replace(record, head=forged))
    entries = [*book.entries[begun:-1], signed._replace(payload=payload, type=number)]
    assert refused(entries) == "storage.bad_head"
    assert refused([*book.entries[:begun], *entries]) == "storage.bad_head"


def test_a_head_that_signs_another_record_or_chain_is_refused() -> None:
    """By the right key all the same: it is of another log, or was moved."""
    book = small_book()
    right = book.head()
    for sequence, chain in ((right.sequence - 1, right.head), (right.sequence, bytes(32))):
        signed = signing.head_bytes(NETWORK, US.public_key, sequence, chain)
        head = SignedHead(sequence, chain, US.sign(signed))
        number, payload = encode_record(r.HeadSigned(head, 1))
        entry = LogEntry(len(book.entries), number, payload, bytes(32))
        assert refused([*book.entries, entry]) == "storage.bad_head"


def test_a_snapshot_that_was_broken_off_is_nothing_in_the_middle_and_no_beginning() -> None:
    book = small_book()
    begun = len(book.entries)
    parts = list(snapshot_parts(book.fold.ledger))
    book.append(r.SnapshotBegun(len(parts)))
    book.append(r.SnapshotPart(parts[0]))
    perform(book, Op("issued", 0, 1, 200))
    assert same(folded(book.entries, check=True).ledger, book.fold.ledger)
    assert refused(book.entries[begun:]) == "storage.bad_snapshot"
    book.append(r.SnapshotSigned(book.head(), 1))
    assert refused(book.entries) == "storage.bad_snapshot"


def test_a_log_that_begins_in_the_middle_without_a_snapshot_is_refused() -> None:
    book = small_book()
    assert refused(book.entries[1:]) in ("storage.corrupt",)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (b"\xc1", "storage.bad_snapshot"),
        (msgspec.msgpack.encode({"channels": [{"cid": 1}]}), "storage.bad_snapshot"),
        (msgspec.msgpack.encode({"wealth": 9}), "storage.version"),
    ],
)
def test_state_that_this_version_can_not_read_is_refused(part: bytes, code: str) -> None:
    with pytest.raises(StorageError) as caught:
        restore(Ledger(NETWORK, US.public_key), [part])
    assert caught.value.code == code


def test_a_field_that_a_later_version_added_takes_its_default() -> None:
    """An older snapshot has no such name; a later one's unknown name is refused."""
    book = small_book()
    parts = [msgspec.msgpack.decode(part) for part in snapshot_parts(book.fold.ledger)]
    for part in parts:
        for channel in part.get("channels", ()):
            del channel["settled_lanes"]
    ledger = Ledger(NETWORK, US.public_key)
    restore(ledger, map(msgspec.msgpack.encode, parts))
    assert same(ledger, book.fold.ledger)


def test_the_largest_channels_fit_their_parts() -> None:
    book = Book()
    for number in range(100):
        salt = number.to_bytes(16, "big")
        book.append(r.ChannelOpened(PEER, US.public_key, salt, salt, TERMS, 10**9, 7))
    for channel in book.fold.ledger.channels.values():
        lanes = range(1, limits.LANES_PER_CHANNEL_MAX)
        claims = tuple(LaneClaim(lane, 2**32 - 1, 2**63 - 1) for lane in lanes)
        channel.voucher = Voucher(channel.cid, 2**63 - 1, claims, SIGNATURE)
        channel.lanes = {n: Lane(n, PEER, PEER, 10**15, 10**15, due_ucr=2**62) for n in lanes}
        channel.closed = dict.fromkeys(range(2**62, 2**62 + 32), 2**62)
    parts = list(snapshot_parts(book.fold.ledger))
    assert 10 < len(parts) < 100
    assert max(map(len, parts)) <= limits.SNAPSHOT_PART_BYTES_MAX
    ledger = Ledger(NETWORK, US.public_key)
    restore(ledger, parts)
    assert same(ledger, book.fold.ledger)


def test_all_of_the_ledger_is_in_the_snapshot() -> None:
    """A part of the ledger that is new here needs its place in router/snapshot.py."""
    kept = {"channels", "closed", "heads", "receipts", "forgotten_spent_ucr"}
    kept |= {"forgotten_earned_ucr", "denials", "debts", "vault", "backing", "reputation"}
    kept |= {"keyed", "cheques"}
    given_or_counted = {"network", "owner", "live", "open_channels", "_with_peer"}
    assert set(vars(Ledger(NETWORK, US.public_key))) == kept | given_or_counted


def test_the_live_ledger_is_a_copy_with_nobody_connected() -> None:
    book = small_book()
    live = book.fold.live()
    channel: Channel = next(iter(live.channels.values()))
    assert channel.state is ChannelState.DETACHED
    channel.lanes.clear()
    (untouched,) = book.fold.ledger.channels.values()
    assert (untouched.state, len(untouched.lanes)) == (ChannelState.DETACHED, 1)


def test_the_chain_of_the_fold_is_that_of_the_log() -> None:
    """The node knows the head without the journal; both count alike."""
    book = small_book()
    writer = LogWriterState(0, genesis_head(NETWORK, US.public_key))
    replayed = Fold(NETWORK, US.public_key)
    for entry in book.entries:
        assert writer.append(entry.type, entry.payload)[-32:] == entry.chain
        replayed.replay(entry.type, entry.payload)
    assert (replayed.end.head, replayed.end.next_sequence) == (writer.head, len(book.entries))
