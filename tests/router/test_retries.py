"""Providers that fail, and askers that give up: who is tried next, told what, and paid what.

Source: router/README.md, "Life of a job", 6:
before the first chunk the next bid, at most 3 retries.
"""

from protocol import limits
from protocol.channel import ChannelState
from protocol.messages import Award
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    W_UCR,
    awarded_to,
    break_engine,
    channels,
    engine,
    failure,
    key_of,
    last_end,
    make_ask,
    make_world,
    only,
    retried,
    same_totals,
    succeeded,
    tamper,
    when_job_starts,
)


def run_until_award(world: World, requester: Peer) -> None:
    """Stop in the instant in which the award leaves."""
    while not requester.heard(events.Awarded):
        world.run(NS_PER_MS)


# --- before the first chunk ----------------------------------------------------------------


def test_an_award_that_is_never_answered() -> None:
    """`award.timeout` after ACCEPT_TIMEOUT_NS, then the next bid; silence is no offence."""
    world = make_world(2)
    second, best, requester = world.peers
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask())
    run_until_award(world, requester)
    started_ns = world.clock.now_ns
    while not retried(requester):
        world.run(NS_PER_MS)
    assert retried(requester) == ["award.timeout"]
    assert world.clock.now_ns - started_ns <= limits.ACCEPT_TIMEOUT_NS
    world.run(10 * NS_PER_S)
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    assert succeeded(requester)
    assert not requester.penalized


def test_a_provider_that_accepts_and_vanishes() -> None:
    """`provider.vanished` as soon as its stream is gone, then the next bid."""
    world = make_world(2)
    second, best, requester = world.peers
    when_job_starts(world, best, lambda _: world.crash(best))
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert retried(requester) == ["provider.vanished"]
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    assert succeeded(requester)


def test_a_provider_that_can_not_be_reached() -> None:
    """`provider.unreachable` when it died between its bid and the dial."""
    world = make_world(2)
    _, best, requester = world.peers
    world.give(requester, make_ask(early_close_bids=0))
    world.run(190 * NS_PER_MS)
    world.crash(best)
    world.run(20 * NS_PER_S)
    assert retried(requester) == ["provider.unreachable"]
    assert succeeded(requester)


def test_a_provider_that_refuses() -> None:
    """Its own code is told, then the next bid; its channel is closed with nothing due."""
    world = make_world(2)
    _, best, requester = world.peers
    world.give(requester, make_ask())
    world.run(150 * NS_PER_MS)
    world.give(best, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert retried(requester) == ["provider.busy"]
    assert succeeded(requester)
    assert [channel.state for channel in channels(requester)] == [
        ChannelState.CLOSED,
        ChannelState.READY,
    ]
    assert not best.penalized
    assert not requester.penalized


def test_a_draining_provider() -> None:
    """It refuses awards on bids that it made before, and makes no more."""
    world = make_world(2)
    _, best, requester = world.peers
    world.give(requester, make_ask(1))
    world.run(150 * NS_PER_MS)
    world.give(best, act.Drain())
    world.run(10 * NS_PER_S)
    assert retried(requester) == ["provider.draining"]
    assert succeeded(requester, 1)
    world.give(requester, make_ask(2, filters=only(best)))
    world.run(NS_PER_S)
    assert failure(requester, 2) == "request.no_bids"


def test_a_draining_provider_finishes_what_runs() -> None:
    """Draining takes nothing new and drops nothing old."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(600 * NS_PER_MS)
    world.give(provider, act.Drain())
    world.run(10 * NS_PER_S)
    assert succeeded(requester)


def test_an_engine_that_fails_before_the_first_chunk() -> None:
    """The engine's code, the next bid, nothing due for the failed attempt."""
    world = make_world(2)
    second, best, requester = world.peers
    break_engine(world, best, after_ns=10 * NS_PER_MS)
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert retried(requester) == ["engine.crashed"]
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    assert succeeded(requester)
    assert channels(requester)[0].due_ucr == channels(best)[0].due_ucr == 0


def test_all_providers_fail() -> None:
    """At most AWARDS_PER_REQUEST_MAX awards, then `request.all_failed` with the last reason."""
    world = make_world(5)
    *providers, requester = world.peers
    world.give(requester, make_ask(early_close_bids=0))
    world.run(150 * NS_PER_MS)
    for provider in providers:
        world.give(provider, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.all_failed"
    end = last_end(requester)
    assert isinstance(end, events.Failed)
    assert (end.detail, end.paid_ucr) == ("last reason: provider.busy", 0)
    assert len(awarded_to(requester)) == limits.AWARDS_PER_REQUEST_MAX == 4
    assert awarded_to(requester) == [key_of(peer) for peer in reversed(providers[1:])]


def test_a_single_failure_is_told_by_its_own_code() -> None:
    """With one bid there is nothing to sum up: the asker hears the provider's own code."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(150 * NS_PER_MS)
    world.give(provider, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "provider.busy"


def test_a_prompt_that_is_larger_than_announced() -> None:
    """The provider stops before the first chunk: `award.prompt_too_large`, nothing due."""
    world = make_world(0, 0)
    provider = world.add(engine(input_tokens=513))
    requester = world.add()
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert failure(requester) == "award.prompt_too_large"
    assert same_totals(requester, provider)
    assert channels(provider)[0].due_ucr == 0
    assert not provider.jobs


def test_a_prompt_of_exactly_the_announced_size() -> None:
    """512 tokens were announced, 512 are served, and the first voucher is topped up."""
    world = make_world(0, 0)
    provider = world.add(engine(input_tokens=512))
    requester = world.add()
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert succeeded(requester)
    assert channels(provider)[0].due_ucr == cost_ucr(512, 40, 15_000_000, 60_000_000)


def test_an_advance_limit_that_is_too_small() -> None:
    """The prompt costs more than W, and the asker lends nothing: `channel.advance_limit`, and with
    as much more as it says it lacks, it goes."""
    world = make_world(0, 0)
    provider = world.add(engine(input_tokens=512))
    requester = world.add()
    world.give(requester, make_ask(advance_max_ucr=0))
    world.run(20 * NS_PER_S)
    assert failure(requester) == "channel.advance_limit"
    short_ucr = last_end(requester).short_ucr
    assert short_ucr == cost_ucr(512, 1, 15_000_000, 60_000_000) - W_UCR
    assert channels(requester)[0].total_ucr == 0
    assert channels(provider)[0].due_ucr == 0
    assert not provider.jobs
    for number, (advance_ucr, goes) in enumerate(((short_ucr - 1, False), (short_ucr, True))):
        world.give(requester, make_ask(2 + number, advance_max_ucr=advance_ucr))
        world.run(20 * NS_PER_S)
        assert succeeded(requester, 2 + number) is goes


def test_an_asker_who_lends_nothing_is_served_on_credit() -> None:
    """With A = 0 and a short prompt, W alone carries the job, chunk by chunk."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=100, advance_max_ucr=0))
    world.run(20 * NS_PER_S)
    assert succeeded(requester)
    assert same_totals(requester, provider)
