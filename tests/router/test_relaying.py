"""Nodes that only pass gossip on: they trade as soon as they are asked to, and weigh little.

Source: router/README.md, "The driver's contract".
"""

import tracemalloc

import pytest

from protocol import limits
from protocol.crypto import Signer
from protocol.units import NS_PER_S
from router import actions as act
from router.anchoring import AnchorSettings
from router.fold import Fold
from router.ledger import Ledger
from router.node import Node
from simnet.world import World
from tests.router.support import engine, make_ask, make_world, succeeded

RELAY_BYTES_MAX = 5_000


@pytest.fixture(autouse=True)
def _without_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the simulator's large markets; who keeps a log has all of its cores at once."""
    monkeypatch.setattr(World, "with_heads", False)


def test_who_only_relays_has_no_cores_to_trade_with() -> None:
    """It carries requests, offers and what auctions came to, and shows newcomers the offers."""
    world = make_world(1, 2, standing_offers=True)
    _, requester, relay = world.peers
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert succeeded(requester)
    assert relay.node._trading is None
    assert relay.node.sessions == ()
    assert len(relay.node.offers_for_newcomer(world.clock.now_ns)) == 1


def test_a_relay_buys_and_sells_when_it_is_told_to() -> None:
    """Also after gossip that it took no part in."""
    world = make_world(1, 2)
    provider, requester, relay = world.peers
    world.give(requester, make_ask(1))
    world.run(20 * NS_PER_S)
    world.give(relay, make_ask(2))
    world.run(20 * NS_PER_S)
    assert succeeded(relay, 2)
    world.crash(provider)
    other = engine()
    relay.engine = other
    world.give(relay, act.OffersChanged((other.offer,)))
    world.give(requester, make_ask(3))
    world.run(20 * NS_PER_S)
    assert succeeded(requester, 3)


def test_a_node_with_channels_looks_after_them_from_its_start() -> None:
    """Their lifetimes end by its timers, whether or not anybody speaks to it again."""
    world = make_world()
    requester = world.peers[1]
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    world.crash(requester)
    world.restart(requester)
    assert requester.node.next_timer() is not None


def test_a_daemons_node_has_everything_at_once() -> None:
    """One that keeps a log signs heads of it from its first input on."""
    signer = Signer(bytes(32))
    fold = Fold("sim", signer.public_key)
    assert Node(signer, "sim", fold.live(), entropy=bytes, log=fold)._trading is not None


def test_a_relay_is_small() -> None:
    """Ten thousand of them fit into memory: `simnet`'s size follows from it."""
    signer, anchor = Signer(bytes(32)), AnchorSettings(1)

    def relay() -> Node:
        ledger = Ledger("sim", signer.public_key)
        return Node(signer, "sim", ledger, entropy=bytes, anchor=anchor)

    relay()
    tracemalloc.start()
    try:
        relays = [relay() for _ in range(100)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used // len(relays) < RELAY_BYTES_MAX
