"""Bids that are withheld, what requesters tell of their auctions, and lies about it.

Source: router/README.md, "Self-selection"; protocol/README.md, "Self-selection".
"""

from collections.abc import Iterable
from statistics import median
from typing import Any

import pytest

from protocol import crypto, limits
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import Clearing, MoreBids
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.clearings import PPM, STRANGERS_CHANCE_MIN_PPM, Clearings
from router.self_selection import lot_ppm
from router.telling import sellers_estimate
from simnet.peer import Peer, WorldSettings
from simnet.world import EPOCH_NS, World
from tests.router.bids import deliver
from tests.router.support import (
    MODEL,
    engine,
    key_of,
    make_ask,
    offer,
    only,
    stranger,
    succeeded,
)

SILENCING = 2**32 - 1
NOBODY: tuple[bytes, ...] = ()


def clearing(price: int = 60_000_000, sellers: int = 100, model: str = MODEL) -> Clearing:
    """What a requester may tell; the rest is as of `support.offer`."""
    return Clearing(model, 512, 15_000_000, price, 30_000_000, 50_000, sellers)


def said(number: int, told: Clearing, at_ns: int = EPOCH_NS) -> Signed:
    """A Clearing of stranger `number`."""
    return sign_envelope(stranger(number), "sim", told, at_ns)


def crowd(sellers: int, requesters: int = 1, **settings: Any) -> World:
    """Sellers, each dearer than the one before it, who withhold bids; then requesters."""
    world = World(WorldSettings(**settings))
    world.bids_wanted = limits.BIDS_WANTED
    for number in range(sellers):
        dearer = 40_000_000 + number * 1_000_000
        world.add(engine(offer(number + 1, output_price=dearer)))
    for _ in range(requesters):
        world.add()
    return world


def lied_to(sellers: int = 64, requesters: int = 1, **settings: Any) -> World:
    """A crowd whom forty strangers told that everything is free and sold by everybody."""
    world = crowd(sellers, requesters, **settings)
    for number in range(40):
        told = said(number, clearing(0, SILENCING), world.clock.now_ns)
        for peer in world.peers:
            world.give(peer, act.GossipReceived(told))
    return world


def bidders(world: World) -> list[int]:
    """Whose bids the last peer, a requester, has seen."""
    seen = world.peers[-1].heard(events.BidSeen)
    return sorted(world.by_key[bid.provider].index for bid in seen)


def noted(peer: Peer, event: str) -> int:
    """How often a peer noted it."""
    return sum(name == event for name, _ in peer.notes)


# --- what is told ----------------------------------------------------------------------------


def test_few_bid_on_later_requests_and_the_best_are_among_them() -> None:
    """64 sellers, eight requesters one after the other: from all bids to about 2 K of them."""
    world = crowd(64, requesters=8)
    counts, ask = [], make_ask(early_close_bids=0)
    for requester in world.peers[64:]:
        world.give(requester, ask)
        world.run(10 * NS_PER_S)
        assert succeeded(requester)
        (award,) = requester.heard(events.Awarded)
        assert world.by_key[award.provider].index == 0
        counts.append(len(requester.heard(events.BidSeen)))
    assert counts[:4] == [64] * 4
    assert all(8 <= count <= 28 for count in counts[4:]), counts
    silent = sum(peer.node.provider.self_selection.withheld for peer in world.peers)
    assert silent == sum(noted(peer, "bid.withheld") for peer in world.peers)
    assert silent == 64 * 8 - sum(counts)


def test_a_small_market_tells_nothing() -> None:
    world = crowd(limits.CLEARING_RANK)
    world.give(world.peers[-1], make_ask())
    world.run(5 * NS_PER_S)
    assert not noted(world.peers[-1], "clearing.told")


def test_late_bids_are_counted_and_move_the_rank() -> None:
    """Closed early with a few of 64 bids: told of are 64 sellers, and the fourth of the few."""
    world = crowd(64, latency_ns_max=400 * NS_PER_MS)
    requester = world.peers[-1]
    world.give(requester, make_ask(bid_window_ns=2 * NS_PER_S))
    world.run(5 * NS_PER_S)
    in_time = bidders(world)
    assert 4 <= len(in_time) < 24
    (told,) = requester.node.context.clearings._known[MODEL].values()
    assert 32 <= told.message.sellers <= 256
    assert told.message.output_price_ucr == 40_000_000 + in_time[3] * 1_000_000


def test_windows_of_different_lengths_tell_no_more_often() -> None:
    """Regression: what a short window came to was due sooner after the long one's than anybody
    hears of, its own node's book refused it, and that ended the daemon."""
    world = crowd(12)
    requester = world.peers[-1]
    world.give(requester, make_ask(1, 4, bid_window_ns=4 * NS_PER_S, early_close_bids=12))
    world.run(limits.CLEARING_INTERVAL_NS + NS_PER_S)
    world.give(requester, make_ask(2, 4))
    world.run(5 * NS_PER_S)
    assert succeeded(requester, 1)
    assert succeeded(requester, 2)
    assert noted(requester, "clearing.told") == 1


def test_who_would_say_the_same_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLEARINGS_ENOUGH", 4)
    world = crowd(40, requesters=10)
    for requester in world.peers[40:]:
        world.give(requester, make_ask(early_close_bids=0))
        world.run(10 * NS_PER_S)
    told = [noted(peer, "clearing.told") for peer in world.peers[40:]]
    assert told[:4] == [1] * 4
    assert sum(told[4:]) <= 3


@pytest.mark.parametrize("sellers", [40, 400, 4_000])
@pytest.mark.parametrize("factor", [1, 4])
def test_sellers_are_estimated_from_those_who_bid(sellers: int, factor: int) -> None:
    """Whether as many draw a low lot as are wanted or four times that, and some bid anyway."""
    estimates = []
    for number in range(41):
        request_id = crypto.digest(b"request", bytes([number]))
        keys = [crypto.digest(b"seller", index.to_bytes(2, "big")) for index in range(sellers)]
        chance_ppm = factor * limits.BIDS_WANTED * PPM // sellers
        bid = [key for key in keys[8:] if lot_ppm(key, request_id) < chance_ppm]
        estimates.append(sellers_estimate(request_id, keys[:8] + bid))
    assert 2 * sellers / 3 <= median(estimates) <= 3 * sellers / 2


# --- what is believed ------------------------------------------------------------------------


def book_bar(told: list[Signed], known: Iterable[bytes] = NOBODY, age_ns: int = 0) -> object:
    """The bar of a book that was told these, `age_ns` later."""
    paid = set(known)
    book = Clearings(paid.__contains__)
    for one in told:
        book.take(one)
    world = crowd(0)
    world.give(world.peers[0], make_ask())
    job = world.peers[0].node.requester.job(world.peers[0].heard(events.Published)[0].request_id)
    assert job is not None
    return book.bar(job.request, EPOCH_NS + age_ns)


def bar_of(told: list[Signed], known: Iterable[bytes] = NOBODY) -> tuple[int, int]:
    """Points and sellers of the bar that `book_bar` finds."""
    bar = book_bar(told, known)
    assert bar is not None
    return bar.points, bar.sellers  # type: ignore[attr-defined]


def test_too_few_or_old_words_say_nothing() -> None:
    told = [said(number, clearing()) for number in range(4)]
    assert book_bar(told[:3]) is None
    assert book_bar(told, age_ns=limits.CLEARING_LIFETIME_NS) is not None
    assert book_bar(told, age_ns=limits.CLEARING_LIFETIME_NS + 1) is None


def test_strangers_can_not_outvote_three_who_paid() -> None:
    """Any number of them, with any lie: the median is one of the three's."""
    honest = [said(number, clearing(50_000_000, 90 + number)) for number in range(3)]
    known = [one.sender for one in honest]
    truth = bar_of(honest, known)
    for lie_told in (clearing(0, SILENCING), clearing(10**15, 1)):
        liars = [said(10 + number, lie_told) for number in range(100)]
        points, sellers = bar_of(honest + liars, known)
        assert points == truth[0]
        assert 90 <= sellers <= 92


def test_a_sender_has_one_vote_and_not_often() -> None:
    book = Clearings(lambda peer: False)
    book.take(said(1, clearing()))
    with pytest.raises(RemoteError, match=r"envelope\.stale"):
        book.take(said(1, clearing(), EPOCH_NS + limits.CLEARING_INTERVAL_NS - 1))
    told = [said(1, clearing(), EPOCH_NS + n * limits.CLEARING_INTERVAL_NS) for n in range(8)]
    assert book_bar(told) is None


def test_who_paid_meanwhile_has_no_second_vote() -> None:
    paid: set[bytes] = set()
    book = Clearings(paid.__contains__)
    book.take(said(1, clearing()))
    paid.add(stranger(1).public_key)
    book.take(said(1, clearing(), EPOCH_NS + limits.CLEARING_INTERVAL_NS))
    assert not book._strangers[MODEL]
    assert len(book._known[MODEL]) == 1


def test_the_book_is_bounded_and_strangers_displace_nobody_who_paid() -> None:
    known = {stranger(number).public_key for number in range(3)}
    book = Clearings(known.__contains__)
    for number in range(200):
        book.take(said(number, clearing()))
    assert len(book._strangers[MODEL]) == limits.CLEARING_STRANGERS_KEPT
    for number in range(100):
        book.take(said(number, clearing(model=f"m{number}")))
    assert set(book._known[MODEL]) == known
    assert len(book._strangers) == limits.CLEARING_MODELS_KEPT


# --- lies ------------------------------------------------------------------------------------


def test_a_lie_costs_half_a_window_and_no_request_its_bids() -> None:
    """Who drew a low lot bids at once; at half of the window everybody does."""
    world = lied_to()
    requester = world.peers[-1]
    world.give(requester, make_ask(early_close_bids=64, bid_window_ns=NS_PER_S))
    world.run(NS_PER_S // 2)
    early = bidders(world)
    request_id = requester.heard(events.Published)[0].request_id
    lots = [lot_ppm(key_of(peer), request_id) for peer in world.peers[:64]]
    low = [index for index, lot in enumerate(lots) if lot < STRANGERS_CHANCE_MIN_PPM]
    assert early == low
    assert 0 < len(low) < 12
    world.run(5 * NS_PER_S)
    assert noted(requester, "request.asked_again") == 1
    assert bidders(world) == list(range(64))
    assert succeeded(requester)


def test_liars_do_not_win_by_bidding_alone() -> None:
    """Their dear bids are not what they told of, so they end no auction; the best seller wins."""
    world = lied_to(sellers=40)
    requester = world.peers[-1]
    world.give(requester, make_ask(bid_window_ns=NS_PER_S))
    for number in range(50, 55):
        deliver(world, requester, number, output_price_ucr=90_000_000)
    world.run(NS_PER_S // 3)
    assert not requester.heard(events.Awarded)
    world.run(5 * NS_PER_S)
    (award, *_) = requester.heard(events.Awarded)
    assert world.by_key[award.provider].index == 0
    assert award.at_ns < NS_PER_S


def test_bids_against_the_bar_that_win_refute_it() -> None:
    """Two jobs won when asked again: that seller bids freely for a while, the others don't."""
    world = lied_to(40, requesters=3)
    for requester in world.peers[40:]:
        world.give(requester, make_ask(early_close_bids=40))
        world.run(10 * NS_PER_S)
        assert succeeded(requester)
    best, *others = (peer.node.provider.self_selection for peer in world.peers[:40])
    assert best.withheld == 2
    assert sum(other.withheld for other in others) > 100


@pytest.mark.parametrize("why", ["named", "channel", "nothing told", "few are seen"])
def test_who_always_bids(why: str) -> None:
    """Whatever strangers say."""
    few = why == "few are seen"
    world = crowd(64) if why == "nothing told" else lied_to(6 if few else 64, standing_offers=few)
    world.run(NS_PER_S)
    seller, requester = world.peers[0], world.peers[-1]
    if why == "channel":
        world.give(requester, make_ask(1, filters=only(seller)))
        world.run(5 * NS_PER_S)
    filters = only(seller) if why == "named" else make_ask().filters
    before = seller.node.provider.placing.sent
    world.give(requester, make_ask(2, filters=filters))
    world.run(80_000_000)
    assert seller.node.provider.placing.sent == before + 1


def test_only_the_requester_can_ask_again() -> None:
    """And once: a bid that was sent is not sent again."""
    world = lied_to()
    requester = world.peers[-1]
    world.give(requester, make_ask())
    world.run(80_000_000)
    request_id = requester.heard(events.Published)[0].request_id
    seller = next(peer for peer in world.peers if noted(peer, "bid.withheld"))
    now_ns, owner = world.clock.now_ns, requester.signer
    for signer, sent in ((stranger(9), 0), (owner, 1), (owner, 1)):
        again = sign_envelope(signer, "sim", MoreBids(request_id), now_ns)
        world.give(seller, act.GossipReceived(again))
        assert seller.node.provider.placing.sent == sent
