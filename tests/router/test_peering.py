"""The peer book: whom a node knows, dials, lets go and tells of. Pure; time is a number."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, wire
from protocol.crypto import Signer
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import PeerList, PeerRecord, VoucherAck
from protocol.units import NS_PER_S
from router.peering import PeerBook

NETWORK = "test"
NOW = 1_700_000_000 * NS_PER_S
OWN = Signer(b"\0" * 31 + b"\1")
ADDRESS = ("/ip4/192.0.2.1/tcp/4001",)
SIGNERS = [Signer(number.to_bytes(32, "big")) for number in range(100, 140)]


def record(
    signer: Signer,
    *,
    at_ns: int = NOW,
    addresses: tuple[str, ...] = ADDRESS,
    network: str = NETWORK,
) -> Signed:
    return sign_envelope(signer, network, PeerRecord(addresses=addresses), at_ns)


def listing(*records: Signed) -> bytes:
    return wire.encode(PeerList(records=tuple(signed.data for signed in records)))


def book(wanted: int = 4) -> PeerBook:
    return PeerBook(NETWORK, OWN.public_key, peers_wanted=wanted)


def rng() -> random.Random:
    return random.Random(1)


def handed_out(peers: PeerBook, asker: bytes = b"", now_ns: int = NOW) -> list[bytes]:
    message = wire.decode(peers.list_for(asker, now_ns, rng()), limits.PEER_LIST_BYTES_MAX)
    return list(message.records)


# --- records in ----------------------------------------------------------------------------


def test_a_verified_record_is_news_once() -> None:
    peers = book()
    one = SIGNERS[0]
    assert peers.take_list(listing(record(one)), NOW, rng()) == 1
    assert peers.take_list(listing(record(one)), NOW, rng()) == 0
    assert one.public_key in peers


def test_the_newest_record_of_a_sender_wins_in_any_order() -> None:
    old, new = (
        record(SIGNERS[0], at_ns=NOW + at, addresses=(f"/dns/{at}.x/tcp/1",)) for at in (0, 5)
    )
    for order in ((old, new), (new, old)):
        peers = book()
        for signed in order:
            peers.take_list(listing(signed), NOW, rng())
        assert handed_out(peers) == [new.data]


@pytest.mark.parametrize(
    "bad",
    [
        record(SIGNERS[0], at_ns=NOW - limits.PEER_RECORD_LIFETIME_NS - 1),
        record(SIGNERS[0], at_ns=NOW + limits.CLOCK_SKEW_NS + 1),
        record(SIGNERS[0], network="elsewhere"),
        record(SIGNERS[0], addresses=()),
        record(OWN),
    ],
    ids=["stale", "early", "elsewhere", "without addresses", "our own"],
)
def test_what_is_of_no_use_is_passed_over_without_blame(bad: Signed) -> None:
    peers = book()
    assert peers.take_list(listing(bad, record(SIGNERS[1])), NOW, rng()) == 1
    assert len(peers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        wire.encode(VoucherAck(cid=b"c" * 32, best_ucr=1)),
        wire.encode(PeerList(records=(b"garbage",))),
        wire.encode(PeerList(records=(record(SIGNERS[0]).data[:-1] + b"\0",))),
        listing(sign_envelope(SIGNERS[0], NETWORK, VoucherAck(cid=b"c" * 32, best_ucr=1), NOW)),
        b"x" * (limits.PEER_LIST_BYTES_MAX + 1),
    ],
    ids=["empty", "garbage", "another message", "no envelope", "forged", "no record", "huge"],
)
def test_a_malformed_or_forged_list_is_an_offence(data: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        book().take_list(data, NOW, rng())
    assert caught.value.penalize


def test_records_expire_and_bootstrap_nodes_do_not() -> None:
    peers = book()
    chosen = SIGNERS[1]
    peers.add_bootstrap(chosen.public_key, ("/dns/boot.example/tcp/1",))
    peers.take_list(listing(record(SIGNERS[0]), record(chosen)), NOW, rng())
    assert len(handed_out(peers)) == 2
    late_ns = NOW + limits.PEER_RECORD_LIFETIME_NS + 1
    assert handed_out(peers, now_ns=late_ns) == []
    assert len(peers) == 1
    (target,) = peers.to_dial((), (), late_ns, rng())
    assert target.addresses == ("/dns/boot.example/tcp/1",)


def test_the_book_is_bounded_and_drops_those_that_fail_first(monkeypatch) -> None:
    monkeypatch.setattr(limits, "PEER_RECORDS_MAX", 3)
    peers = book()
    first = SIGNERS[:3]
    peers.take_list(listing(*map(record, first)), NOW, rng())
    peers.dialled(first[1].public_key, False, NOW, rng())
    peers.take_list(listing(record(SIGNERS[3])), NOW, rng())
    assert len(peers) == 3
    assert first[1].public_key not in peers
    peers.take_list(listing(*map(record, SIGNERS[4:12])), NOW, rng())
    assert len(peers) == 3


def test_a_bootstrap_node_is_never_displaced(monkeypatch) -> None:
    monkeypatch.setattr(limits, "PEER_RECORDS_MAX", 2)
    peers = book()
    chosen = SIGNERS[0].public_key
    peers.add_bootstrap(chosen, ADDRESS)
    peers.dialled(chosen, False, NOW, rng())
    peers.take_list(listing(*map(record, SIGNERS[1:10])), NOW, rng())
    assert chosen in peers
    assert len(peers) == 3


# --- records out ---------------------------------------------------------------------------


def test_a_reply_has_our_record_first_and_never_the_askers_own() -> None:
    peers = book()
    peers.set_own_record(record(OWN))
    peers.take_list(listing(*map(record, SIGNERS[:3])), NOW, rng())
    records = handed_out(peers, asker=SIGNERS[1].public_key)
    assert records[0] == record(OWN).data
    assert set(records[1:]) == {record(SIGNERS[0]).data, record(SIGNERS[2]).data}


def test_a_reply_is_bounded_and_varies() -> None:
    peers = book()
    peers.set_own_record(record(OWN))
    peers.take_list(listing(*map(record, SIGNERS[:16])), NOW, rng())
    peers.take_list(listing(*map(record, SIGNERS[16:32])), NOW, rng())
    replies = {peers.list_for(b"", NOW, random.Random(seed)) for seed in range(5)}
    assert len(replies) == 5
    for reply in replies:
        records = wire.decode(reply, limits.PEER_LIST_BYTES_MAX).records
        assert len(records) == limits.PEER_RECORDS_PER_REPLY_MAX
        assert len(reply) <= limits.PEER_LIST_BYTES_MAX


def test_the_largest_legal_list_fits_its_bound() -> None:
    address = "/dns/" + "a" * (limits.ADDRESS_CHARS_MAX - 11) + "/tcp/1"
    full = record(SIGNERS[0], addresses=(address,) * limits.ADDRESSES_MAX)
    assert len(full.data) <= 4096
    message = PeerList(records=(full.data,) * limits.PEER_RECORDS_PER_REPLY_MAX)
    assert len(wire.encode(message)) <= limits.PEER_LIST_BYTES_MAX


def test_peers_that_we_can_not_reach_are_not_recommended() -> None:
    peers = book()
    peers.take_list(listing(*map(record, SIGNERS[:2])), NOW, rng())
    peers.dialled(SIGNERS[0].public_key, False, NOW, rng())
    assert handed_out(peers) == [record(SIGNERS[1]).data]


def test_without_an_address_we_do_not_recommend_ourselves() -> None:
    peers = book()
    peers.set_own_record(record(OWN, addresses=()))
    assert handed_out(peers) == []


# --- whom to dial --------------------------------------------------------------------------


def test_bootstrap_first_while_alone_and_last_otherwise() -> None:
    peers = book(wanted=2)
    chosen = SIGNERS[0].public_key
    peers.add_bootstrap(chosen, ADDRESS)
    peers.take_list(listing(*map(record, SIGNERS[1:5])), NOW, rng())
    assert peers.to_dial((), (), NOW, rng())[0].peer == chosen
    assert peers.to_dial((b"x",), (), NOW, rng())[0].peer == chosen  # it came to us
    peers.dialled(b"x", True, NOW, rng())
    assert chosen not in [t.peer for t in peers.to_dial((b"x",), (), NOW, rng())]


def test_who_comes_to_us_does_not_end_our_search() -> None:
    """Connections from outside, however many, leave room for half of those wanted by our own
    choice; what we sought counts, and what ended does not."""
    peers = book(wanted=8)
    peers.add_bootstrap(SIGNERS[0].public_key, ADDRESS)
    peers.take_list(listing(*map(record, SIGNERS[1:16])), NOW, rng())
    crowd = [bytes([number]) * 32 for number in range(30)]
    targets = [target.peer for target in peers.to_dial(crowd, (), NOW, rng())]
    assert len(targets) == 4
    assert targets[0] == SIGNERS[0].public_key
    assert len(peers.to_dial(crowd, targets[:1], NOW, rng())) == 3
    for peer in targets:
        peers.dialled(peer, True, NOW, rng())
    assert peers.to_dial([*crowd, *targets], (), NOW, rng()) == []
    assert len(peers.to_dial([*crowd, *targets[1:]], (), NOW, rng())) == 1
    assert len(peers.to_dial([*crowd, *targets], (), NOW, rng())) == 1  # it came back by itself


def test_our_own_address_in_the_bootstrap_list_is_ignored() -> None:
    peers = book()
    peers.add_bootstrap(OWN.public_key, ADDRESS)
    assert len(peers) == 0


def test_failed_dials_back_off_and_a_success_forgets_them() -> None:
    peers = book()
    peer = SIGNERS[0].public_key
    peers.add_bootstrap(peer, ADDRESS)
    now_ns, delays = NOW, []
    for _ in range(12):
        assert [t.peer for t in peers.to_dial((), (), now_ns, rng())] == [peer]
        peers.dialled(peer, False, now_ns, rng())
        before_ns = now_ns
        while not peers.to_dial((), (), now_ns, rng()):
            now_ns += NS_PER_S // 10
        delays.append(now_ns - before_ns)
    assert delays[0] <= limits.RECONNECT_NS_MIN + NS_PER_S // 10
    assert all(later >= earlier / 2 for earlier, later in pairwise(delays))
    assert limits.RECONNECT_NS_MAX // 2 <= max(delays) <= limits.RECONNECT_NS_MAX + NS_PER_S // 10
    peers.dialled(peer, True, now_ns, rng())
    peers.dialled(peer, False, now_ns, rng())
    assert peers.to_dial((), (), now_ns + limits.RECONNECT_NS_MIN, rng())


def test_a_stranger_that_never_answers_is_tried_ever_more_rarely() -> None:
    peers = book()
    peer = SIGNERS[0].public_key
    peers.take_list(listing(record(SIGNERS[0])), NOW, rng())
    for _ in range(40):
        peers.dialled(peer, False, NOW, rng())
    assert not peers.to_dial((), (), NOW + 2 * limits.RECONNECT_NS_MAX, rng())


def test_a_new_address_is_tried_at_once() -> None:
    peers = book()
    peers.take_list(listing(record(SIGNERS[0])), NOW, rng())
    peers.dialled(SIGNERS[0].public_key, False, NOW, rng())
    assert not peers.to_dial((), (), NOW, rng())
    moved = record(SIGNERS[0], at_ns=NOW + 1, addresses=("/dns/new.example/tcp/1",))
    peers.take_list(listing(moved), NOW + 1, rng())
    assert peers.to_dial((), (), NOW + 1, rng())


def test_the_outcome_of_a_dial_to_somebody_forgotten_is_ignored() -> None:
    peers = book()
    peers.dialled(b"?" * 32, True, NOW, rng())
    assert len(peers) == 0


# --- letting go ----------------------------------------------------------------------------


def test_a_quarter_of_the_room_stays_free_longest_connected_go() -> None:
    peers = book()
    connected = [bytes([number]) * 32 for number in range(16)]
    assert peers.surplus(connected[:12], 16) == []
    assert peers.surplus(connected, 16) == connected[:4]


def test_whom_we_sought_is_not_pushed_out() -> None:
    peers = book()
    connected = [bytes([number]) * 32 for number in range(16)]
    for peer in connected[:3]:
        peers.dialled(peer, True, NOW, rng())
    assert peers.surplus(connected, 16) == connected[3:7]


def test_satisfied_means_as_many_as_wanted() -> None:
    peers = book(wanted=2)
    assert not peers.satisfied((b"a",))
    assert peers.satisfied((b"a", b"b"))


# --- properties ----------------------------------------------------------------------------

KEYS = [signer.public_key for signer in SIGNERS[:8]]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 7), st.integers(-20, 20)),
        st.tuples(st.just("dialled"), st.integers(0, 7), st.booleans()),
        st.tuples(st.just("wait"), st.integers(0, 1200), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS, st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)), st.integers(0, 9))
def test_never_more_than_wanted_never_twice_never_ourselves(steps, connected, dialling, wanted):
    peers = book(wanted)
    peers.add_bootstrap(KEYS[0], ADDRESS)
    now_ns, chance, ours = NOW, rng(), set()
    for kind, number, value in steps:
        if kind == "take":
            signed = record(SIGNERS[number], at_ns=now_ns + value * NS_PER_S)
            peers.take_list(listing(signed), now_ns, chance)
        elif kind == "dialled":
            peers.dialled(KEYS[number], bool(value), now_ns, chance)
            ours |= {KEYS[number]} if value else set()
        else:
            now_ns += number * NS_PER_S
        targets = [t.peer for t in peers.to_dial(connected, dialling, now_ns, chance)]
        ours &= connected
        missing = max(wanted - len(connected), wanted // 2 - len(ours))
        assert len(targets) <= max(0, missing - len(dialling))
        assert len(targets) == len(set(targets))
        assert not set(targets) & (connected | dialling | {OWN.public_key})
        assert len(handed_out(peers, now_ns=now_ns)) <= limits.PEER_RECORDS_PER_REPLY_MAX
    assert KEYS[0] in peers


@given(STEPS)
def test_the_same_inputs_give_the_same_decisions(steps):
    def run() -> list[object]:
        peers, chance, now_ns, decisions = book(), random.Random(7), NOW, []
        for kind, number, value in steps:
            if kind == "take":
                peers.take_list(listing(record(SIGNERS[number], at_ns=now_ns)), now_ns, chance)
            elif kind == "dialled":
                peers.dialled(KEYS[number], bool(value), now_ns, chance)
            else:
                now_ns += number * NS_PER_S
            decisions.append(peers.to_dial((), (), now_ns, chance))
            decisions.append(peers.list_for(b"", now_ns, chance))
        return decisions

    assert run() == run()


@given(st.binary(max_size=200))
def test_hostile_bytes_raise_only_remote_errors(data: bytes) -> None:
    with pytest.raises(RemoteError):
        book().take_list(data, NOW, rng())
