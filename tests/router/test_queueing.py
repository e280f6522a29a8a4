"""Bids when places are taken: for a place in the queue, never for one that can't be had in time.

Source: router/README.md, "When places are taken".
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.errors import RemoteError
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.auction import patience_ns
from router.quoting import check_patience, check_room
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import (
    awarded_to,
    engine,
    failure,
    key_of,
    make_ask,
    offer,
    only,
    succeeded,
)
from tests.router.test_auction import NOW_NS, make_request
from tests.router.test_quoting import make_quote, silence


def crowd(requesters: int, *, places: int, queue_jobs: int) -> World:
    """One provider and so many requesters."""
    world = World(WorldSettings())
    world.add(engine(replace(offer(places=places), queue_jobs=queue_jobs)))
    for _ in range(requesters):
        world.add()
    return world


def reasons(provider: Peer) -> list[str]:
    """Why the provider stayed silent, as its operator sees it."""
    return [fields["detail"] for event, fields in provider.notes if event == "input.ignored"]


@pytest.mark.parametrize(
    ("places", "queue_jobs", "running", "own", "taken"),
    [
        (2, 0, 1, 1, True),
        (2, 0, 2, 0, False),
        (2, 2, 2, 0, True),
        (2, 2, 2, 1, True),
        (2, 2, 2, 2, False),
        (2, 2, 3, 0, True),
        (2, 2, 3, 1, False),
        (2, 2, 4, 0, False),
        (0, 0, 0, 0, False),
    ],
)
def test_a_place_or_a_share_of_the_queue(
    places: int, queue_jobs: int, running: int, own: int, taken: bool
) -> None:
    """A newcomer gets the last place in the queue; who has jobs there leaves as many."""
    room = replace(offer(places=places), queue_jobs=queue_jobs)
    if taken:
        check_room(room, running=running, own=own)
        return
    with pytest.raises(RemoteError) as caught:
        check_room(room, running=running, own=own)
    assert (caught.value.code, caught.value.penalize) == ("provider.busy", False)


def test_a_bid_for_the_queue_says_its_wait() -> None:
    waiting = replace(offer(), ttft_ns=3 * NS_PER_S)
    assert make_quote(make_request(), offer=waiting).ttft_ns >= 3 * NS_PER_S


@pytest.mark.parametrize("wait_s", [31, 3_600])
def test_no_bid_for_what_no_requester_waits_for(wait_s: int) -> None:
    """A chunk every CHUNK_TIMEOUT_NS is the least that every requester asks for."""
    request = make_request()
    patient = make_request(deadline_ns=NOW_NS + limits.DEADLINE_NS_MAX)
    waiting = replace(offer(), ttft_ns=wait_s * NS_PER_S)
    assert silence(patient, offer=waiting) in ("provider.busy", "bid.too_slow")
    assert silence(request, offer=waiting) in ("provider.busy", "bid.too_slow")


def test_what_has_grown_since_the_bid_is_refused_at_the_award() -> None:
    ask = make_request().message
    bid = make_quote(make_request())
    left_ns = min(patience_ns(bid), ask.deadline_ns - NOW_NS)
    check_patience(replace(offer(), ttft_ns=left_ns), ask, bid, NOW_NS)
    with pytest.raises(RemoteError) as caught:
        check_patience(replace(offer(), ttft_ns=left_ns + 1), ask, bid, NOW_NS)
    assert (caught.value.code, caught.value.penalize) == ("provider.busy", False)


def test_more_requesters_than_places_wait_in_the_queue() -> None:
    world = crowd(3, places=1, queue_jobs=2)
    requesters = world.peers[1:]
    for requester in requesters:
        world.give(requester, make_ask())
        world.run(NS_PER_MS)
    world.run(20 * NS_PER_S)
    assert [succeeded(requester) for requester in requesters] == [True] * 3


def test_a_full_queue_is_silent_and_says_why() -> None:
    world = crowd(3, places=1, queue_jobs=1)
    provider, first, second, third = world.peers
    for requester in (first, second):
        world.give(requester, make_ask(tokens=200))
    world.run(300 * NS_PER_MS)
    assert provider.node.provider.serving.running == 2
    world.give(third, make_ask())
    world.run(NS_PER_S)
    assert failure(third) == "request.no_bids"
    assert reasons(provider) == ["all places and the queue are full"]


def test_one_requester_does_not_take_the_whole_queue() -> None:
    world = crowd(2, places=1, queue_jobs=4)
    provider, greedy, other = world.peers
    for number in range(1, 8):
        world.give(greedy, make_ask(number, tokens=200))
        world.run(300 * NS_PER_MS)
    assert provider.node.provider.serving.running_of("m", key_of(greedy)) < 5
    assert "its share of the queue is full" in reasons(provider)
    world.give(other, make_ask(tokens=200))
    world.run(300 * NS_PER_MS)
    assert provider.node.provider.serving.running_of("m", key_of(other)) == 1


def test_an_award_that_would_wait_too_long_goes_to_the_next_bid() -> None:
    """The queue grew between bid and award: refused at once, not after a timeout."""
    world = World(WorldSettings())
    second = world.add(engine(offer(2, output_price=60_000_000)))
    best = world.add(engine(offer(1, output_price=10_000_000)))
    requester = world.add()
    world.give(requester, make_ask())
    world.run(150 * NS_PER_MS)
    assert best.engine is not None
    world.give(best, act.OffersChanged((replace(best.engine.offer, ttft_ns=40 * NS_PER_S),)))
    world.run(NS_PER_S)
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    assert [event.code for event in requester.heard(events.Retrying)] == ["provider.busy"]


def test_the_engine_hears_what_was_promised() -> None:
    """And for how long the requester waits for the first token."""
    world = crowd(1, places=1, queue_jobs=0)
    provider, requester = world.peers
    started: list[Any] = []
    world.after_step = lambda peer, actions: started.extend(
        action for action in actions if isinstance(action, act.StartJob)
    )
    world.give(requester, make_ask(filters=only(provider)))
    world.run(10 * NS_PER_S)
    (bid,) = requester.heard(events.BidSeen)
    (job,) = started
    assert (job.ttft_ns, job.tokens_per_s_milli) == (bid.ttft_ns, bid.tokens_per_s_milli)
    assert job.ttft_ns_max == limits.FIRST_CHUNK_TIMEOUT_NS
