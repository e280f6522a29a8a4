"""Several first asks at once to one provider. Source: router/README.md, "Money"."""

from dataclasses import replace

import pytest

from protocol.messages import Accept, Award
from protocol.units import NS_PER_S
from router import events
from tests.router.support import (
    channels,
    close_all,
    make_ask,
    make_world,
    same_totals,
    succeeded,
    tamper,
)


def test_first_asks_at_once_share_one_channel() -> None:
    """Regression: each opened a channel and locked a deposit of its own."""
    world = make_world()
    provider, requester = world.peers
    for number in range(1, 4):
        world.give(requester, make_ask(number))
    world.run(10 * NS_PER_S)
    assert all(succeeded(requester, number) for number in range(1, 4))
    assert len(channels(requester)) == 1
    assert [event.opened_channel for event in requester.heard(events.Awarded)].count(True) == 1
    assert same_totals(requester, provider)
    assert len(close_all(world, requester)) == 1


def test_asks_that_waited_go_on_when_the_opening_is_refused() -> None:
    """The next one opens its own channel; none is stuck behind the refusal."""
    world = make_world(providers=2)
    requester = world.peers[2]
    tamper(world, requester, Award, lambda award: replace(award, bid_id=bytes(32)))
    for number in range(1, 4):
        world.give(requester, make_ask(number))
    world.run(20 * NS_PER_S)
    assert [event.code for event in requester.heard(events.Retrying)] == ["award.unknown_bid"]
    assert all(succeeded(requester, number) for number in range(1, 4))


@pytest.mark.parametrize("kind", [Award, Accept])
def test_asks_that_waited_go_elsewhere_when_the_opening_is_lost(kind: type) -> None:
    """A provider that never answers holds nobody for longer than the time to accept."""
    world = make_world(providers=2)
    requester = world.peers[2]
    sender = requester if kind is Award else world.peers[1]
    tamper(world, sender, kind, lambda _: None, times=1)
    for number in range(1, 4):
        world.give(requester, make_ask(number))
    world.run(30 * NS_PER_S)
    assert all(succeeded(requester, number) for number in range(1, 4))
