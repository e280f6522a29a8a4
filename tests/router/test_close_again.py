"""A close that is asked for while the payee can't be reached.

Source: router/closing.py.
"""

from protocol import limits
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import channels, make_ask, make_world, succeeded


def settled_pair() -> tuple[World, Peer, Peer]:
    """A provider that was paid and has died, and its payer, who asks to close at once."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(5 * NS_PER_S)
    assert succeeded(requester)
    world.crash(provider)
    world.run(NS_PER_S)
    world.give(requester, act.CloseChannels(()))
    return world, provider, requester


def test_a_close_outlives_a_dial_to_a_payee_that_restarts() -> None:
    """The dial went to the dead payee and fails when it is back: it is dialled once more."""
    world, provider, requester = settled_pair()
    world.run(NS_PER_S)
    world.restart(provider)
    world.run(limits.DIAL_TIMEOUT_NS + NS_PER_S)
    assert requester.heard(events.ChannelSettled)
    assert not any(channel.is_open for channel in channels(requester))


def test_a_close_outlives_the_stream_that_it_was_sent_on() -> None:
    """Regression: the payee died as the close was on its way, and was never dialled again."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(5 * NS_PER_S)
    world.give(requester, act.CloseChannels(()))
    world.crash(provider)
    world.restart(provider)
    world.run(2 * limits.DIAL_TIMEOUT_NS)
    assert requester.heard(events.ChannelSettled)
    assert not any(channel.is_open for channel in channels(requester))


def test_a_payee_that_stays_away_is_dialled_twice_and_no_more() -> None:
    """The close waits for the next stream; whoever comes back with one, finds it."""
    world, provider, requester = settled_pair()
    dials: list[act.Action] = []
    before = world.after_step

    def count(peer: Peer, actions: list[act.Action]) -> None:
        dials.extend(action for action in actions if isinstance(action, act.OpenSession))
        if before is not None:
            before(peer, actions)

    world.after_step = count
    world.run(20 * limits.DIAL_TIMEOUT_NS)
    assert len(dials) == 1  # and the one that was on its way
    assert not requester.heard(events.ChannelSettled)
    world.restart(provider)
    world.give(requester, act.CloseChannels(()))
    world.run(NS_PER_S)
    assert requester.heard(events.ChannelSettled)
