"""Signed heads: a node that was rolled back hears of it, and one with two logs is found out.

Source: router/README.md, "Heads".
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import limits, signing
from protocol.channel import ChannelState
from protocol.crypto import Signer, verify
from protocol.errors import RemoteError
from protocol.fields import SignedHead
from protocol.messages import LogHead, Reestablish
from protocol.records import HeadSeen, HeadSigned, decode_record
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import SessionKey
from router.head_book import HeadBook
from router.heads import Heads
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    channels,
    codes_against,
    complete,
    flipped,
    frame_of,
    key_of,
    make_ask,
    make_world,
    message_of,
    tamper,
)


def records_of(peer: Peer, kind: type) -> list[Any]:
    found = [decode_record(number, payload) for number, payload in peer.log]
    return [record for record in found if isinstance(record, kind)]


def noted(peer: Peer, event: str) -> list[dict[str, Any]]:
    return [fields for name, fields in peer.notes if name == event]


def head_by(signer: Signer, sequence: int, head: bytes, network: str = "sim") -> SignedHead:
    signed = signing.head_bytes(network, signer.public_key, sequence, head)
    return SignedHead(sequence, head, signer.sign(signed))


def reconnect(world: World, number: int) -> None:
    """The stream breaks, and the next job brings a new one."""
    provider, requester = world.peers
    world.cut(provider, requester)
    complete(world, requester, number)


def overheard(world: World) -> list[tuple[Peer, Any]]:
    """Every message that leaves from here on; a head that is not durable fails the test."""
    heard: list[tuple[Peer, Any]] = []

    def listen(source: Peer, _target: Peer, data: bytes) -> bytes:
        message = message_of(data)
        heard.append((source, message))
        if isinstance(message, LogHead) and message.own is not None:
            assert message.own.sequence < source.durable, "a head leaves after its records"
        return data

    world.frame_filter = listen
    return heard


def test_channel_peers_hold_each_others_newest_head_after_a_reconnect() -> None:
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    heard = overheard(world)
    reconnect(world, 2)
    for one, other in ((provider, requester), (requester, provider)):
        (seen,) = records_of(one, HeadSeen)
        signed = records_of(other, HeadSigned)
        assert (seen.owner, seen.head) == (key_of(other), signed[0].head)
        head = seen.head
        layout = signing.head_bytes("sim", key_of(other), head.sequence, head.head)
        assert verify(key_of(other), layout, head.signature)
        assert one.node.context.ledger.heads.seen == {key_of(other): head}
    kinds = [type(message) for source, message in heard if source is requester]
    assert kinds.index(LogHead) < kinds.index(Reestablish)
    first = next(message for source, message in heard if isinstance(message, LogHead))
    assert first.own is None, "nobody signs before it has seen what the other holds"


def restore_old_copy(world: World, peer: Peer, old: list[tuple[int, bytes]]) -> None:
    world.crash(peer)
    peer.log[:] = old
    world.restart(peer)


@pytest.mark.parametrize("index", [0, 1])
def test_a_log_that_was_rolled_back_is_told_so_by_its_peer(index: int) -> None:
    """It says so, signs no second head for the same record, and is not punished."""
    world = make_world()
    requester = world.peers[1]
    peer, other = world.peers[index], world.peers[1 - index]
    complete(world, requester, 1)
    old = list(peer.log)
    for number in (2, 3, 4):
        reconnect(world, number)
    held = other.node.context.ledger.heads.seen[key_of(peer)]
    assert held.sequence > len(old)
    restore_old_copy(world, peer, old)
    heard = overheard(world)
    world.give(requester, make_ask(5))
    world.run(10 * NS_PER_S)
    note, *others = noted(peer, "log.rolled_back")
    assert [set(other) & {"cid", "shown_ucr"} for other in others] == [{"cid", "shown_ucr"}]
    assert (note["last_record"], note["shown_record"]) == (len(old) - 1, held.sequence)
    assert "put the newest copy back" in note["detail"]
    assert peer.node.context.ledger.heads.shown == held
    assert noted(other, "peer.rolled_back")
    assert codes_against(other, peer) == codes_against(peer, other) == []
    own = [m.own for source, m in heard if source is peer and isinstance(m, LogHead)]
    assert own, "it still answers"
    assert own == [None] * len(own)
    (shown,) = records_of(peer, HeadSeen)[:1]
    assert (shown.owner, shown.head) == (key_of(peer), held)
    assert Heads._may_sign(peer.node.context.log) is (len(peer.log) - 1 > held.sequence)  # type: ignore[arg-type]


def test_two_heads_of_one_record_freeze_the_channel_and_are_kept() -> None:
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    reconnect(world, 2)
    held = requester.node.context.ledger.heads.seen[key_of(provider)]
    second = head_by(provider.signer, held.sequence, bytes(32))
    tamper(world, provider, LogHead, lambda message: replace(message, own=second))
    world.cut(provider, requester)
    world.give(requester, make_ask(3))
    world.run(10 * NS_PER_S)
    assert codes_against(requester, provider) == ["head.equivocation"]
    (channel,) = channels(requester)
    assert channel.state is ChannelState.FROZEN
    evidence = records_of(requester, HeadSeen)[-1]
    assert evidence == HeadSeen(key_of(provider), held, second)


@pytest.mark.parametrize("field", ["own", "yours"])
def test_a_head_with_a_bad_signature_is_an_offence_and_changes_nothing(field: str) -> None:
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    reconnect(world, 2)
    before = requester.node.context.ledger.heads.seen.copy()

    def forge(message: LogHead) -> LogHead:
        head = getattr(message, field)
        return replace(message, **{field: replace(head, signature=flipped(head.signature))})

    tamper(world, provider, LogHead, forge)
    world.cut(provider, requester)
    world.give(requester, make_ask(3))
    world.run(10 * NS_PER_S)
    assert codes_against(requester, provider) == ["head.bad_signature"]
    assert requester.node.context.ledger.heads.seen == before
    assert noted(requester, "log.rolled_back") == []


def test_a_head_of_another_network_is_no_head_here() -> None:
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    session = SessionKey(key_of(provider), outbound=True)
    foreign = head_by(provider.signer, 5, bytes(32), "other")
    with pytest.raises(RemoteError) as caught:
        requester.node.heads.take(session, LogHead(foreign, None))
    assert caught.value.code == "head.bad_signature"


def test_heads_of_strangers_are_neither_kept_nor_answered() -> None:
    """Without a channel there is nothing to protect, and nothing that a stranger may learn."""
    world = make_world()
    heard = overheard(world)
    provider, _ = world.peers
    stranger = Signer(bytes(range(32)))
    session = SessionKey(stranger.public_key, outbound=False)
    provider.node.heads.take(session, LogHead(head_by(stranger, 9, bytes(32)), None))
    world.run(NS_PER_S)
    assert provider.node.context.ledger.heads.seen == {}
    assert heard == []


def test_heads_are_shown_again_as_the_log_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_RECORDS", 15)
    world = make_world()
    provider, requester = world.peers
    for number in range(1, 8):
        complete(world, requester, number)
    seen = records_of(requester, HeadSeen)
    assert len(seen) > 1, "no stream broke, and yet heads came"
    sequences = [record.head.sequence for record in seen]
    assert sequences == sorted(set(sequences))
    assert len(records_of(provider, HeadSigned)) <= len(provider.log) // 15 + 2


def test_a_peer_that_signs_heads_all_the_time_fills_no_log() -> None:
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    session = SessionKey(key_of(provider), outbound=True)
    before = len(requester.log)
    for sequence in range(100, 150):
        head = head_by(provider.signer, sequence, bytes(32))
        world.give(requester, act.SessionData(session, frame_of(LogHead(head, None))))
    world.run(NS_PER_S)
    assert len(requester.log) - before <= 2


def test_signing_again_without_new_records_gives_the_same_head() -> None:
    """On demand and at the end, as often as one likes: one record."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    for _ in range(5):
        world.give(requester, act.SignHead())
    (signed,) = records_of(requester, HeadSigned)
    assert signed.head.sequence == len(requester.log) - 2


@pytest.mark.parametrize(
    ("head", "lacks"),
    [
        (SignedHead(11, b"x" * 32, bytes(64)), True),  # longer than the log
        (SignedHead(10, b"x" * 32, bytes(64)), True),  # between heads of ours: never signed here
        (SignedHead(8, b"a" * 32, bytes(64)), False),
        (SignedHead(8, b"b" * 32, bytes(64)), True),  # the same record, another chain
        (SignedHead(4, b"a" * 32, bytes(64)), False),
        (SignedHead(3, b"x" * 32, bytes(64)), False),  # older than what is remembered
    ],
)
def test_which_heads_of_ours_a_log_does_not_have(head: SignedHead, lacks: bool) -> None:
    book = HeadBook()
    for sequence in (4, 8):
        book.signed(SignedHead(sequence, b"a" * 32, bytes(64)))
    assert book.lacks(head, 10) is lacks


def test_the_book_of_heads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADS_KEPT", 3)
    monkeypatch.setattr(limits, "HEADS_SEEN_MAX", 3)
    book = HeadBook()
    for number in range(6):
        head = SignedHead(number, bytes(32), bytes(64))
        book.signed(head)
        book.saw(b"us", HeadSeen(bytes([number]) * 32, head, None))
    assert list(book.own) == [3, 4, 5]
    assert [key[0] for key in book.seen] == [3, 4, 5]
