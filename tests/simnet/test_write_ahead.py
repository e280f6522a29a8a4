"""A driver that breaks its bargain is caught: the watch on the money can fail.

Source: the design's "Money", mutations that the tests must catch: send before sync.
"""

import pytest

from protocol.messages import Award, Chunk, Voucher
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import ADVANCE_UCR, engine, make_ask, message_of, succeeded
from tests.simnet.watch import Watch


class HastyWorld(World):
    """Lets messages of some kinds out before the records that they rest on are durable."""

    hasty: tuple[type, ...] = ()

    def _take(self, peer: Peer, actions: list[Action]) -> None:
        def waits(action: Action) -> bool:
            is_send = isinstance(action, act.Send)
            return not (is_send and isinstance(message_of(action.data), self.hasty))

        super()._take(peer, sorted(actions, key=waits))


def run_job(hasty: tuple[type, ...]) -> World:
    """One watched job over a driver that is hasty with these messages."""
    world = HastyWorld(WorldSettings())
    world.hasty = hasty
    world.add(engine())
    world.add()
    Watch(world, ADVANCE_UCR)
    world.give(world.peers[1], make_ask(tokens=100))
    world.run(10 * NS_PER_S)
    return world


def test_a_driver_that_keeps_its_bargain_passes_the_watch() -> None:
    """The same world, not hasty: complete and straight."""
    assert succeeded(run_job(()).peers[1])


@pytest.mark.parametrize("kind", [Award, Voucher])
def test_a_voucher_that_leaves_before_its_record_breaks_i2(kind: type) -> None:
    """A payer that crashed now would have forgotten what it signed."""
    with pytest.raises(AssertionError, match="I2"):
        run_job((kind,))


def test_a_chunk_that_leaves_before_its_reservation_is_caught() -> None:
    """A payee that crashed now would send the window twice."""
    with pytest.raises(AssertionError, match="reservation"):
        run_job((Chunk,))
