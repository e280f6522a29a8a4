"""Providers that are to be tried before others, and prices a token that nobody may be over.

Source: router/README.md, "Choosing".
"""

import pytest

from protocol import limits
from protocol.fields import Strategy
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from router.auction import ScoredBid, in_turn, rank
from router.choosing import Choice
from router.explaining import Explanations
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    awarded_to,
    failure,
    key_of,
    last_end,
    make_ask,
    make_world,
    retried,
    stranger,
    succeeded,
)
from tests.router.test_auction import make_bid
from tests.router.test_choosing import job_for, selection
from tests.router.test_self_selection import crowd, noted

PRICE = Strategy(1_000, 0)


def weighed(
    order: tuple[int, ...], bidding: tuple[int, ...], broken: tuple[int, ...] = ()
) -> list[ScoredBid]:
    """Bids of sellers by number, the lower the cheaper; suspended are the `broken`."""
    selecting, _ = selection()
    job = job_for(Choice(order=tuple(stranger(one).public_key for one in order)), PRICE)
    job.progress.broke_off += [stranger(one).public_key for one in broken]
    bids = [
        make_bid(job.request, stranger(one), output_price_ucr=one * 10_000_000) for one in bidding
    ]
    return [selecting.weigh(job, bid.signed, bid.bid)[0] for bid in bids]


def numbers(bids: list[ScoredBid]) -> list[int]:
    return [bid.bid.output_price_ucr // 10_000_000 for bid in bids]


@pytest.mark.parametrize(
    ("order", "bidding", "broken", "ranked", "offers"),
    [
        ((), (3, 1, 2), (), [1, 2, 3], [1, 2, 3]),
        ((3,), (1, 2, 3), (), [3, 1, 2], [3, 1, 2]),
        ((3, 2), (1, 2, 3), (), [3, 2, 1], [3, 2, 1]),
        ((2, 3), (1, 2, 3, 4), (), [2, 3, 1, 4], [2, 3, 1, 4]),
        ((9, 3), (1, 2, 3), (), [3, 1, 2], []),
        ((3, 9), (1, 2, 3), (), [3, 1, 2], [3]),
        ((3, 3), (1, 3), (), [3, 1], [3]),
        ((3, 2), (1, 2, 3), (3,), [2, 1, 3], []),
    ],
)
def test_the_order_comes_before_the_score(
    order: tuple[int, ...],
    bidding: tuple[int, ...],
    broken: tuple[int, ...],
    ranked: list[int],
    offers: list[int],
) -> None:
    """Who does not bid is skipped, who is suspended comes last; offers count up to the first who
    has none."""
    bids = weighed(order, bidding, broken)
    assert numbers(rank(bids)) == ranked
    assert numbers(in_turn(rank(bids))) == offers


@pytest.mark.parametrize(
    ("read", "made", "side"),
    [
        (None, None, ""),
        (15_000_000, 60_000_000, ""),
        (None, 59_999_999, "output"),
        (14_999_999, None, "input"),
        (0, 10**12, "input"),
    ],
)
def test_each_price_has_its_own_cap(read: int | None, made: int | None, side: str) -> None:
    """Of bids at 15 and 60 credits; what is wrong is said, and no offence."""
    selecting, _ = selection()
    job = job_for(Choice(input_price_max_ucr=read, output_price_max_ucr=made), PRICE)
    bid = make_bid(job.request, stranger(1))
    _, code = selecting.weigh(job, bid.signed, bid.bid)
    assert code == ("bid.over_price" if side else "")
    assert side in job.refusals.get(code, "")


def market(*, silent: int = 0) -> World:
    """Three sellers, each cheaper than the one before it, of whom the first so many offer nothing
    and bid; and who asks."""
    world = make_world(3, 1, standing_offers=True)
    for peer in world.peers[:silent]:
        peer.node.provider.standing_offers = False
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    world.peers[-1].node.requester.explanations = Explanations(1)
    return world


def asked(world: World, order: tuple[Peer, ...] = (), **choice: int) -> Peer:
    """The requester, after one request."""
    chosen = Choice(order=tuple(map(key_of, order)), **choice)
    world.give(world.peers[-1], make_ask(strategy=PRICE, use_offers=True, choice=chosen))
    world.run(10 * NS_PER_S)
    return world.peers[-1]


def test_the_first_with_an_offer_needs_no_auction() -> None:
    world = market()
    dearest, *_ = world.peers
    requester = asked(world, (dearest,))
    assert awarded_to(requester) == [key_of(dearest)]
    assert not requester.heard(events.BidSeen)


def test_the_first_without_an_offer_may_bid() -> None:
    world = market(silent=1)
    dearest, second, *_ = world.peers
    requester = asked(world, (dearest, second))
    assert awarded_to(requester) == [key_of(dearest)]
    assert requester.heard(events.BidSeen)


def test_others_take_over_in_the_order() -> None:
    """The first stops; the second of the order serves, not the cheapest."""
    world = market()
    dearest, second, _, requester = world.peers
    world.give(dearest, act.Drain())
    asked(world, (dearest, second))
    assert "provider.draining" in retried(requester)
    assert succeeded(requester)
    assert awarded_to(requester)[-1] == key_of(second)


def test_who_is_to_be_first_is_asked_though_it_withholds_its_bid() -> None:
    """Among 64 who know what auctions come to, enough good bids come without the dearest's; it is
    asked again, and gets the job."""
    world = crowd(64, requesters=8)
    for number, peer in enumerate(world.peers[64:-1]):
        world.give(peer, make_ask(number + 1, early_close_bids=0))
        world.run(10 * NS_PER_S)
    dearest, requester = world.peers[63], world.peers[-1]
    asked(world, (dearest,))
    assert noted(requester, "request.asked_again") == 1
    assert awarded_to(requester) == [key_of(dearest)]


def test_nobody_under_the_price_is_said_and_explained() -> None:
    world = market()
    requester = asked(world, output_price_max_ucr=30_000_000)
    assert failure(requester) == "bid.over_price"
    assert "at most 30 wanted" in last_end(requester).detail
    (published,) = requester.heard(events.Published)
    explained = requester.node.requester.explanations.find(published.request_id)
    assert explained is not None
    refused = [(one.from_offer, one.code) for one in explained.considered]
    assert refused == [(True, "bid.over_price")] * 3 + [(False, "bid.over_price")] * 3
