"""Several awards of one request: the first text wins, losers are paid what is due, caps hold.

Source: router/README.md, "Races and hedges".
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.channel import Role as Side
from protocol.fields import AwardRole, Outcome, Strategy
from protocol.messages import Award, Chunk
from protocol.records import decode_record
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from router.choosing import Choice
from router.explaining import judged_awards
from router.racing import HEDGE_EVERY, HEDGES_SAVED
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    assert_losses_bounded,
    awarded_to,
    channels,
    close_all,
    counted,
    engine,
    failure,
    key_of,
    last_end,
    make_ask,
    message_of,
    offer,
    retried,
    same_totals,
    succeeded,
    text_of,
)

# What 40 tokens behind a prompt of at most 512 may cost, at 60 and 50 credits per million.
WORST = cost_ucr(512, 40, 15_000_000, 60_000_000), cost_ucr(512, 40, 15_000_000, 50_000_000)


def racing_world(slow: dict[int, int], providers: int = 2, **settings: Any) -> World:
    """Providers that count, each cheaper than the one before; the prefill of some takes so many
    milliseconds, whatever they promise."""
    world = World(WorldSettings(**settings))
    for number in range(providers):
        model = offer(number + 1, output_price=60_000_000 - number * 10_000_000)
        prefill_ns = slow.get(number, 20) * NS_PER_MS
        world.add(replace(engine(model), counts=True, prefill_ns=prefill_ns))
    world.add()
    return world


def run(world: World, choice: Choice, seconds: int = 10, **changes: Any) -> Peer:
    """Ask, to the end; the requester."""
    requester = world.peers[-1]
    requester.node.requester.explanations._kept = 8
    world.give(requester, make_ask(choice=choice, **changes))
    world.run(seconds * NS_PER_S)
    return requester


def tried(requester: Peer) -> list[tuple[bytes, AwardRole, Outcome | None]]:
    (published,) = requester.heard(events.Published)
    found = requester.node.requester.explanations.find(published.request_id)
    assert found is not None
    live = [(one.provider, one.role, one.outcome) for one in found.tried]
    entries = (decode_record(*entry) for entry in requester.log)
    logged = [(one.provider, role, one.outcome) for one, role in judged_awards(entries)]
    assert set(logged) == set(live), "the log knows as much"
    return live


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.parametrize("offers", [False, True])
def test_the_first_text_wins(winner: int, offers: bool) -> None:
    """Whoever it is: one text, the other is cancelled, paid to the last chunk, and both close."""
    world = racing_world({1 - winner: 400}, standing_offers=offers)
    world.run(NS_PER_S)
    requester = run(world, Choice(race=2), use_offers=offers)
    done = last_end(requester)
    assert isinstance(done, events.Done), done
    first, other = world.peers[winner], world.peers[1 - winner]
    assert done.receipt.payee == key_of(first)
    assert text_of(requester) == counted(40)
    assert set(awarded_to(requester)) == {key_of(first), key_of(other)}
    assert not other.jobs
    assert same_totals(requester, first)
    assert same_totals(requester, other)
    assert sorted(tried(requester), key=lambda one: one[2].value) == [  # type: ignore[union-attr]
        (key_of(first), AwardRole.RACE, Outcome.DELIVERED),
        (key_of(other), AwardRole.RACE, Outcome.WITHDRAWN),
    ]
    assert_losses_bounded(requester, other)
    close_all(world, requester)
    settled = sum(event.settled_ucr for event in requester.heard(events.ChannelSettled))
    assert settled == done.cost_ucr


def test_a_loser_that_had_sent_text_is_paid_for_it() -> None:
    """Both answer at once: what the second had sent is due, told, and in both ledgers."""
    world = racing_world({}, latency_ns_min=30 * NS_PER_MS, latency_ns_max=30 * NS_PER_MS)
    requester = run(world, Choice(race=2))
    done = last_end(requester)
    assert isinstance(done, events.Done)
    (part,) = done.others
    assert part.cost_ucr > 0
    assert part.code == "award.outrun"
    assert part.output_tokens >= 1
    assert text_of(requester) == counted(40)
    mine = {channel.cid: channel for channel in channels(requester)}
    assert mine[part.cid].due_ucr == part.cost_ucr
    assert done.cost_ucr == sum(channel.due_ucr for channel in channels(requester))
    assert max(event.due_ucr for event in requester.heard(events.Text)) <= done.cost_ucr
    for provider in world.peers[:2]:
        assert same_totals(requester, provider)


@pytest.mark.parametrize(
    ("cap", "awards"), [(sum(WORST) - 1, 1), (sum(WORST), 2), (10**6, 2), (WORST[1], 1)]
)
def test_all_awards_together_fit_the_cap(cap: int, awards: int) -> None:
    """At their worst: one unit less, and one fewer runs."""
    world = racing_world({})
    requester = run(world, Choice(race=2), price_max_ucr=cap)
    assert succeeded(requester)
    assert len(awarded_to(requester)) == awards
    assert last_end(requester).cost_ucr <= cap  # type: ignore[union-attr]


def test_a_racer_that_refuses_leaves_the_race() -> None:
    """The other goes on alone; with a third bid, that one enters in its place, as a retry."""
    for providers, awards in ((2, 1), (3, 2)):
        world = racing_world({0: 300, 1: 300}, providers)
        requester = world.peers[-1]
        requester.node.requester.explanations._kept = 8
        world.give(requester, make_ask(choice=Choice(race=2), early_close_bids=0))
        world.run(150 * NS_PER_MS)
        world.give(world.peers[providers - 1], act.OffersChanged(()))
        world.run(10 * NS_PER_S)
        assert succeeded(requester)
        assert retried(requester) == ["provider.busy"]
        jobs = sum(len(channels(peer, Side.PAYEE)) for peer in world.peers[:-1])
        assert jobs == awards
        roles = [role for _, role, _ in tried(requester)]
        assert roles == [AwardRole.RACE, AwardRole.RACE, AwardRole.RETRY][:providers]


def test_all_racers_fail() -> None:
    """The last one that falls out decides: the next bids, then the reason."""
    world = racing_world({0: 300, 1: 300})
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=Choice(race=2)))
    world.run(150 * NS_PER_MS)
    for provider in world.peers[:2]:
        world.give(provider, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.all_failed"
    assert len(retried(requester)) == 2
    assert not requester.node.requester.open_jobs
    assert all(channel.due_ucr == 0 for channel in channels(requester))


def test_a_race_is_cancelled_whole() -> None:
    """Before any text: every racer hears of it, and nothing is due."""
    world = racing_world({0: 300, 1: 300})
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=Choice(race=2)))
    world.run(350 * NS_PER_MS)
    assert all(peer.jobs for peer in world.peers[:2])
    world.give(requester, act.CancelAsk(1))
    world.run(5 * NS_PER_S)
    assert failure(requester) == "request.cancelled"
    assert not any(peer.jobs for peer in world.peers[:2])
    assert all(channel.due_ucr == 0 for channel in channels(requester))


def test_the_winner_dies_and_a_third_goes_on() -> None:
    """Continuing a race is a race again; the text is one."""
    world = racing_world({0: 300, 1: 300}, 3)
    best = world.peers[2]
    world.clock.after(700 * NS_PER_MS, world.crash, best)
    requester = run(world, Choice(race=2), 30)
    assert succeeded(requester)
    assert text_of(requester) == counted(40)
    assert key_of(best) not in awarded_to(requester)[2:]


# --- hedges --------------------------------------------------------------------------------

HEDGE = Choice(hedge_factor_milli=2_000, hedge_floor_ns=100 * NS_PER_MS)


@pytest.mark.parametrize("offers", [False, True])
def test_a_late_first_text_brings_a_second_award(offers: bool) -> None:
    """The second one answers; the first is cancelled, is paid nothing, and is not blamed."""
    world = racing_world({1: 3_000}, standing_offers=offers)
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)  # until the offers of both are known
    # By price alone, or a hash would choose among offers that are about as good.
    changes = {"strategy": Strategy(1_000, 0), "price_max_ucr": sum(WORST)}
    requester = run(world, HEDGE, use_offers=offers, **changes)
    second, late = world.peers[0], world.peers[1]
    assert tried(requester) == [
        (key_of(late), AwardRole.FIRST, Outcome.WITHDRAWN),
        (key_of(second), AwardRole.HEDGE, Outcome.DELIVERED),
    ]
    _, other = requester.heard(events.Awarded)
    # From when the award is decided: a dial comes before the stream that carries it.
    decided_ns = 0 if offers else 200 * NS_PER_MS
    assert 0 <= other.at_ns - decided_ns - 100 * NS_PER_MS <= 90 * NS_PER_MS
    assert text_of(requester) == counted(40)
    assert last_end(requester).others == ()  # type: ignore[union-attr]
    assert same_totals(requester, late)


@pytest.mark.parametrize(
    ("choice", "slow"),
    [(HEDGE, 20), (Choice(), 2_000), (replace(HEDGE, hedge_floor_ns=10**10), 900)],
)
def test_no_second_award_without_need(choice: Choice, slow: int) -> None:
    """In time; where hedges are off; before the floor."""
    world = racing_world({1: slow})
    requester = run(world, choice)
    assert succeeded(requester)
    assert len(awarded_to(requester)) == 1


def test_a_hedge_fits_the_cap_or_is_not_made() -> None:
    world = racing_world({1: 1_000})
    requester = run(world, HEDGE, price_max_ucr=sum(WORST) - 1)
    assert succeeded(requester)
    assert len(awarded_to(requester)) == 1


def test_the_hedge_is_refused_and_the_first_goes_on() -> None:
    """Nobody else: the late one is waited for as ever."""
    world = racing_world({1: 1_000})
    world.frame_filter = _lost(world.peers[0])
    requester = run(world, HEDGE, 20)
    assert last_end(requester).receipt.payee == key_of(world.peers[1])  # type: ignore[union-attr]
    assert text_of(requester) == counted(40)


def _lost(target: Peer) -> Any:
    def lose(_source: Peer, to: Peer, data: bytes) -> bytes | None:
        return None if to is target and isinstance(message_of(data), Award) else data

    return lose


def test_hedges_are_few_where_everybody_is_late() -> None:
    """A few at once, then one for ten awards: all would be later still with twice the work."""
    world = racing_world({0: 500, 1: 500})
    requester = world.peers[-1]
    for number in range(1, 31):
        world.give(requester, make_ask(number, 4, choice=HEDGE))
        world.run(2 * NS_PER_S)
        assert succeeded(requester, number)
    hedges = [event.role for event in requester.heard(events.Awarded)].count("hedge")
    assert hedges == HEDGES_SAVED + (30 - HEDGES_SAVED) // HEDGE_EVERY


def test_a_hedge_may_win_and_lose_by_a_hair() -> None:
    """Both first chunks are on their way at once: one text, both bills, within the cap."""
    world = racing_world({1: 145})
    requester = run(world, HEDGE, price_max_ucr=sum(WORST))
    done = last_end(requester)
    assert isinstance(done, events.Done)
    assert text_of(requester) == counted(40)
    assert len(awarded_to(requester)) == 2
    assert done.cost_ucr == sum(channel.due_ucr for channel in channels(requester)) <= sum(WORST)
    for provider in world.peers[:2]:
        assert same_totals(requester, provider)
    assert all(c.total_ucr - c.due_ucr <= ADVANCE_UCR for c in channels(requester))


def test_awards_are_no_more_than_ever() -> None:
    """Behind a race of three there are three retries, as behind any award."""
    world = racing_world({}, 7)
    world.frame_filter = lambda _source, _target, data: (
        None if isinstance(message_of(data), Chunk) else data
    )
    requester = run(world, Choice(race=3), 60)
    assert len(awarded_to(requester)) == limits.AWARDS_PER_REQUEST_MAX + 2
    assert failure(requester) == "request.all_failed"
