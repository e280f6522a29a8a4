"""What the tests of closing alone share: closing, and how it should end."""

from protocol import limits
from protocol.channel import ChannelState
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    channels,
)

PERIOD_NS = limits.CHALLENGE_NS
LIFETIME_NS = limits.CHANNEL_LIFETIME_NS


def force(world: World, peer: Peer) -> None:
    """The peer closes its only open channel alone."""
    (channel,) = [channel for channel in channels(peer) if channel.is_open]
    world.give(peer, act.ForceClose((channel.cid,)))
    world.run(NS_PER_S)


def states(world: World) -> list[ChannelState]:
    """Of the last channel, at each end."""
    return [channels(peer)[-1].state for peer in world.peers]


def assert_settled(world: World, *, lost_ucr: int = 0) -> None:
    """Both ends at the same sum, at most A over what was delivered; nobody is blamed."""
    (theirs,), (mine,) = (channels(peer) for peer in world.peers)
    assert states(world) == [ChannelState.SETTLED, ChannelState.SETTLED]
    assert theirs.settled_ucr == mine.settled_ucr == theirs.total_ucr
    assert mine.due_ucr - lost_ucr <= mine.settled_ucr <= mine.due_ucr + ADVANCE_UCR
    for peer in world.peers:
        assert not peer.penalized
        balance = peer.node.context.ledger.balance()
        assert (balance.locked_ucr, balance.unpaid_ucr) == (0, 0)
        (settled,) = peer.heard(events.ChannelSettled)
        assert settled.settled_ucr == mine.settled_ucr
