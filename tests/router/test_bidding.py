"""The bid window: what is kept, what is ignored, who is blamed, and when it closes.

Source: the design's "Life of a job", 1 to 3; protocol/README.md, "Bids".
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import crypto, limits, wire
from protocol.crypto import Signer
from protocol.envelope import Signed, sign_envelope
from protocol.fields import ChannelTerms, ChatMessage, InferenceType, Prompt
from protocol.messages import Bid, SealedBid
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.bidding import EARLY_CLOSE_GAP_NS
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    ANYBODY,
    codes_against,
    failure,
    key_of,
    make_ask,
    make_world,
    only,
    stranger,
    succeeded,
)


def ask_alone(**changes: Any) -> tuple[World, Peer, Signed]:
    """A requester without providers, its world, and the request that it published."""
    world = make_world(0)
    (requester,) = world.peers
    world.give(requester, make_ask(**changes))
    return world, requester, request_of(requester)


def request_of(requester: Peer) -> Signed:
    """The requester's newest open request."""
    request_id = requester.heard(events.Published)[-1].request_id
    job = requester.node.requester.job(request_id)
    assert job is not None
    return job.request


def sealed_for(request: Signed, plaintext: bytes) -> bytes:
    """Bytes sealed to a request's key, as they travel."""
    sealed = crypto.seal(request.message.ephemeral_key, plaintext, bytes([5]) * 32)
    return wire.encode(SealedBid(request.digest, sealed))


def bid_of(signer: Signer, request: Signed, now_ns: int, **changes: Any) -> Signed:
    """A signed, acceptable bid."""
    bid = Bid(
        request_id=request.digest,
        model_digest=bytes(32),
        input_price_ucr=15_000_000,
        output_price_ucr=60_000_000,
        ttft_ns=NS_PER_MS,
        tokens_per_s_milli=50_000,
        expires_at_ns=now_ns + 30 * NS_PER_S,
        terms=ChannelTerms(1_920, 10**7, limits.CHANNEL_LIFETIME_NS, limits.CHALLENGE_NS),
        payee_salt=bytes(16),
        addresses=(),
    )
    return sign_envelope(signer, "sim", replace(bid, **changes), now_ns)


def deliver(world: World, requester: Peer, number: int, **changes: Any) -> None:
    """Stranger `number` bids on the requester's request."""
    request, signer = request_of(requester), stranger(number)
    signed = bid_of(signer, request, world.clock.now_ns, **changes)
    world.give(requester, act.BidReceived(signer.public_key, sealed_for(request, signed.data)))


def ignored(peer: Peer) -> list[str]:
    """Codes of what the peer ignored without blaming anybody."""
    return [fields["code"] for event, fields in peer.notes if event == "input.ignored"]


# --- nothing to choose from ----------------------------------------------------------------


def test_a_model_that_nobody_serves() -> None:
    """`request.no_bids` when the window ends, not before; nobody is blamed."""
    world = make_world(2)
    provider, _, requester = world.peers
    world.give(requester, make_ask(model="other"))
    world.run(199 * NS_PER_MS)
    assert not requester.heard(events.Failed)
    world.run(2 * NS_PER_MS)
    assert failure(requester) == "request.no_bids"
    assert ignored(provider) == ["engine.unknown_model"]
    assert not provider.penalized


def test_a_price_cap_under_every_offer() -> None:
    """Honest providers stay silent; the asker hears that nobody bid."""
    world = make_world(2)
    provider, _, requester = world.peers
    world.give(requester, make_ask(price_max_ucr=1))
    world.run(NS_PER_S)
    assert failure(requester) == "request.no_bids"
    assert ignored(provider) == ["request.price_too_low"]


def test_bids_over_the_price_cap() -> None:
    """A bid over the cap is shown with its code, never awarded, and no offence."""
    world, requester, _ = ask_alone(price_max_ucr=100)
    deliver(world, requester, 1)
    world.run(NS_PER_S)
    assert failure(requester) == "request.price_too_low"
    assert [bid.code for bid in requester.heard(events.BidSeen)] == ["request.price_too_low"]
    assert not requester.penalized
    assert not requester.heard(events.Awarded)


def test_no_provider_is_there() -> None:
    """A dead provider and an empty network look the same: `request.no_bids`."""
    world = make_world()
    provider, requester = world.peers
    world.crash(provider)
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    assert failure(requester) == "request.no_bids"


@pytest.mark.parametrize(
    "changes",
    [
        {"price_max_ucr": -1},
        {"bid_window_ns": 0},
        {"bid_window_ns": limits.BID_WINDOW_NS_MAX + 1},
        {"model": ""},
        {"prompt": Prompt(InferenceType.CHAT, ())},
        {
            "prompt": Prompt(
                InferenceType.CHAT, (ChatMessage("user", "x" * limits.MESSAGE_TEXT_CHARS_MAX),) * 4
            )
        },
    ],
    ids=["price", "window short", "window long", "model", "no prompt", "prompt over a frame"],
)
def test_an_ask_that_cannot_be_published(changes: dict[str, Any]) -> None:
    """The asker is told `request.invalid` at once, and nothing goes out.

    Regression: a prompt too long for a frame was published, and its award brought the node down.
    """
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask(**changes))
    assert failure(requester) == "request.invalid"
    world.run(NS_PER_S)
    assert not requester.heard(events.Published)


def test_open_requests_are_bounded() -> None:
    """REQUESTS_OPEN_MAX, then `request.too_many`; room comes back when they end."""
    world = make_world(0)
    (requester,) = world.peers
    for number in range(limits.REQUESTS_OPEN_MAX + 1):
        world.give(requester, make_ask(number))
    assert failure(requester, limits.REQUESTS_OPEN_MAX) == "request.too_many"
    world.run(NS_PER_S)
    assert failure(requester, 0) == "request.no_bids"
    world.give(requester, make_ask(999))
    assert len(requester.heard(events.Published)) == limits.REQUESTS_OPEN_MAX + 1


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


# --- when the window closes ----------------------------------------------------------------


def run_bids(arrivals: list[tuple[int, int]], window_ms: int = 1_000) -> float:
    """Bids at (ms, output price in credits), each by a stranger; when the window closed, ms."""
    world, requester, _ = ask_alone(bid_window_ns=window_ms * NS_PER_MS, timeout_ns=90 * NS_PER_S)
    start_ns = world.clock.now_ns
    for number, (at_ms, price) in enumerate(arrivals):
        world.run(start_ns + at_ms * NS_PER_MS - world.clock.now_ns)
        deliver(world, requester, number, output_price_ucr=price * 10**6)
    state = request_of(requester).digest
    while True:
        job = requester.node.requester.job(state)
        assert job is not None
        if job.candidate is not None:
            return (world.clock.now_ns - start_ns) / NS_PER_MS
        world.run(NS_PER_MS)


def test_two_bids_wait_for_the_whole_window() -> None:
    """Fewer than three are not enough to choose from."""
    assert run_bids([(10, 60), (20, 50)]) == 1_000


def test_three_bids_and_no_better_one_close_the_window_early() -> None:
    """30 ms after the best came, waiting longer is not worth it."""
    gap_ms = EARLY_CLOSE_GAP_NS / NS_PER_MS
    assert run_bids([(10, 50), (20, 60), (25, 70)]) == 10 + gap_ms


def test_a_better_bid_restarts_the_early_close() -> None:
    """While bids still get better, it waits."""
    gap_ms = EARLY_CLOSE_GAP_NS / NS_PER_MS
    assert run_bids([(10, 90), (20, 80), (30, 70), (55, 60)]) == 55 + gap_ms


def test_the_early_close_waits_for_the_third_bid() -> None:
    """The gap is checked again until there are enough bids."""
    assert run_bids([(10, 50), (20, 60), (95, 70)]) == 100


def test_all_who_were_asked_have_answered() -> None:
    """With a closed list there is nobody left to wait for."""
    asked = replace(ANYBODY, providers_only=(stranger(1).public_key, stranger(2).public_key))
    world, requester, request = ask_alone(filters=asked)
    deliver(world, requester, 1)
    job = requester.node.requester.job(request.digest)
    assert job is not None
    assert job.candidate is None
    deliver(world, requester, 2)
    assert job.candidate is not None


def test_outsiders_do_not_close_the_window() -> None:
    """Regression: bids of peers that were not asked counted as answers of those who were."""
    asked = replace(ANYBODY, providers_only=(stranger(1).public_key, stranger(2).public_key))
    world, requester, request = ask_alone(filters=asked)
    deliver(world, requester, 3)
    deliver(world, requester, 4)
    deliver(world, requester, 1)
    job = requester.node.requester.job(request.digest)
    assert job is not None
    assert job.candidate is None
    deliver(world, requester, 2, output_price_ucr=1)
    assert job.candidate is not None
    assert job.candidate.signed.sender == stranger(2).public_key
