"""Bids that don't count, and who is blamed for them. Source: protocol/README.md, "Bids"."""

import pytest

from protocol import crypto, limits, wire
from protocol.crypto import Signer
from protocol.messages import SealedBid
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from tests.router.bids import ask_alone, bid_of, deliver, ignored, request_of, sealed_for
from tests.router.support import (
    codes_against,
    key_of,
    make_ask,
    make_world,
    only,
    stranger,
    succeeded,
)

# --- bids that don't count -----------------------------------------------------------------


def test_a_bid_with_a_bad_seal() -> None:
    """`bid.bad_seal`: its sender is blamed; the honest bid still wins."""
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask())
    request, liar = request_of(requester), stranger()
    data = wire.encode(SealedBid(request.digest, bytes(200)))
    world.give(requester, act.BidReceived(liar.public_key, data))
    world.run(10 * NS_PER_S)
    assert requester.penalized == [(liar.public_key, "bid.bad_seal")]
    assert succeeded(requester)


@pytest.mark.parametrize(
    ("inside", "code"),
    [("garbage", "wire.malformed"), ("request", "envelope.wrong_content")],
)
def test_a_seal_with_something_else_inside(inside: str, code: str) -> None:
    """What is in the box is checked as strictly as what is outside."""
    world, requester, request = ask_alone()
    plaintext = b"\xc1" * 9 if inside == "garbage" else request.data
    liar = stranger()
    world.give(requester, act.BidReceived(liar.public_key, sealed_for(request, plaintext)))
    assert requester.penalized == [(liar.public_key, code)]


def test_a_bid_with_a_forged_signature() -> None:
    """A bid in another's name: whoever sent it is blamed, the other is not."""
    world, requester, request = ask_alone()
    liar = stranger(2)
    signed = bid_of(stranger(1), request, world.clock.now_ns)
    forged = signed.data[:-1] + bytes([signed.data[-1] ^ 1])
    world.give(requester, act.BidReceived(liar.public_key, sealed_for(request, forged)))
    assert requester.penalized == [(liar.public_key, "envelope.bad_signature")]


def test_a_bid_that_another_peer_made() -> None:
    """A copied bid: the copier is blamed, and the bidder's own bid still counts."""
    world, requester, request = ask_alone()
    copier = stranger(2)
    signed = bid_of(stranger(1), request, world.clock.now_ns)
    world.give(requester, act.BidReceived(copier.public_key, sealed_for(request, signed.data)))
    assert requester.penalized == [(copier.public_key, "bid.unacceptable")]
    deliver(world, requester, 1)
    (seen,) = requester.heard(events.BidSeen)
    assert (seen.provider, seen.code) == (stranger(1).public_key, "")


def test_a_bid_for_another_request() -> None:
    """A bid that names another request than its envelope's outside."""
    world, requester, request = ask_alone()
    liar = stranger()
    signed = bid_of(liar, request, world.clock.now_ns, request_id=bytes(32))
    world.give(requester, act.BidReceived(liar.public_key, sealed_for(request, signed.data)))
    assert requester.penalized == [(liar.public_key, "bid.unacceptable")]
    assert not requester.heard(events.BidSeen)


def test_a_bid_for_no_open_request() -> None:
    """`bid.unknown_request`: late or lost, no offence."""
    world, requester, request = ask_alone()
    signed = bid_of(stranger(), request, world.clock.now_ns, request_id=bytes(32))
    data = wire.encode(SealedBid(bytes(32), wire.decode(sealed_for(request, signed.data)).sealed))
    world.give(requester, act.BidReceived(stranger().public_key, data))
    assert ignored(requester) == ["bid.unknown_request"]
    assert not requester.penalized


def test_a_second_bid_is_ignored() -> None:
    """One bid a provider, the first; a better second one changes nothing and is no offence."""
    world, requester, _ = ask_alone()
    deliver(world, requester, 1)
    deliver(world, requester, 1, output_price_ucr=1)
    assert len(requester.heard(events.BidSeen)) == 1
    assert ignored(requester) == ["envelope.replayed"]
    assert not requester.penalized


def test_a_late_bid_is_ignored() -> None:
    """`bid.late` once the award is out, and no offence."""
    world, requester, _ = ask_alone()
    deliver(world, requester, 1)
    world.run(201 * NS_PER_MS)
    deliver(world, requester, 2, output_price_ucr=1)
    assert ignored(requester) == ["bid.late"]
    assert not requester.penalized


def test_something_else_on_a_bid_stream() -> None:
    """Only sealed bids belong there: `session.protocol`."""
    world, requester, request = ask_alone()
    world.give(requester, act.BidReceived(stranger().public_key, wire.encode(request.message)))
    assert [code for _, code in requester.penalized] == ["session.protocol"]


def test_bids_are_bounded() -> None:
    """BIDS_PER_REQUEST_MAX are kept; the next is `bid.too_many` and no offence."""
    world, requester, _ = ask_alone(bid_window_ns=10 * NS_PER_S)
    for number in range(limits.BIDS_PER_REQUEST_MAX + 1):
        signer = Signer(crypto.digest(number.to_bytes(4, "big")))
        request = request_of(requester)
        signed = bid_of(signer, request, world.clock.now_ns)
        received = act.BidReceived(signer.public_key, sealed_for(request, signed.data))
        world.give(requester, received)
    assert len(requester.heard(events.BidSeen)) == limits.BIDS_PER_REQUEST_MAX
    assert ignored(requester) == ["bid.too_many"]


def test_a_bid_that_cannot_be_sent_directly_comes_by_gossip() -> None:
    """An unreachable requester: the sealed bid travels on the topic, and counts the same."""
    world = make_world(3)
    bidder, *_, requester = world.peers
    world.give(requester, make_ask(filters=only(bidder)))
    request = request_of(requester)
    signed = bid_of(bidder.signer, request, world.clock.now_ns)
    undelivered = act.BidUndelivered(request.digest, sealed_for(request, signed.data))
    world.give(bidder, undelivered)
    world.run(150 * NS_PER_MS)
    assert requester.heard(events.BidSeen)[0].provider == key_of(bidder)
    assert not codes_against(requester, bidder)
