"""The world's streams behave as real ones: no half-open stream lives, no old bytes return.

Source: TCP's and QUIC's contract, on which docs of the session protocol rely.
"""

import pytest

from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from tests.router.support import make_ask, make_world, succeeded


@pytest.mark.parametrize("delay_ms", [201, 210, 220, 230, 240, 250, 260, 270, 280])
def test_a_provider_that_restarts_while_it_is_dialled_can_be_dialled_again(delay_ms: int) -> None:
    """A stream whose far end died while it opened is reported closed, never left half open."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1))
    world.run(delay_ms * NS_PER_MS)
    world.crash(provider)
    world.restart(provider)
    world.run(30 * NS_PER_S)
    world.give(requester, make_ask(2))
    world.run(30 * NS_PER_S)
    assert succeeded(requester, 2)


@pytest.mark.parametrize("seed", range(1, 13))
def test_bytes_of_a_broken_stream_never_arrive_on_the_next_one(seed: int) -> None:
    """What is in flight when a stream breaks is lost with it."""
    world = make_world(seed=seed)
    provider, requester = world.peers
    world.give(requester, make_ask(1, tokens=400))
    world.run(700 * NS_PER_MS)
    assert requester.heard(events.Text)
    world.give(requester, act.CancelAsk(1))  # so that nothing is resumed
    world.cut(provider, requester)
    world.give(requester, act.CloseChannels(()))  # dials again at once
    world.run(NS_PER_S)
    assert [event for event, _ in requester.notes].count("input.ignored") == 0
    assert requester.heard(events.ChannelSettled)
