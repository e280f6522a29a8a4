"""A provider's own record of why it did not bid.

Source: router/README.md, "When places are taken".
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.errors import CODES
from protocol.units import NS_PER_S
from router import actions as act
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import make_ask, make_world, offer


def told(peer: Peer) -> list[dict[str, Any]]:
    """What its log has on requests without a bid."""
    return [fields for event, fields in peer.notes if event == "bid.not_made"]


def counts(peer: Peer) -> dict[str, int]:
    return peer.node.provider.placing.silences.counts


def nothing(world: World) -> None:
    """As it is."""


def paused(world: World) -> None:
    world.give(world.peers[0], act.OffersChanged(()))


def full(world: World) -> None:
    world.give(world.peers[0], act.OffersChanged((offer(places=0),)))


@pytest.mark.parametrize(
    ("changes", "before", "code"),
    [
        ({"model": "other"}, nothing, "engine.unknown_model"),
        ({"price_max_ucr": 1}, nothing, "request.price_too_low"),
        ({"timeout_ns": NS_PER_S // 2}, nothing, "bid.too_slow"),
        ({}, paused, "provider.busy"),
        ({}, full, "provider.busy"),
        ({}, lambda world: world.give(world.peers[0], act.Drain()), "provider.draining"),
    ],
)
def test_a_reason_has_its_code(
    changes: dict[str, Any], before: Callable[[World], None], code: str
) -> None:
    world = make_world()
    provider, requester = world.peers
    before(world)
    world.give(requester, make_ask(**changes))
    world.run(limits.SILENCE_NOTE_NS)
    (line,) = told(provider)
    assert (line["code"], line["others"]) == (code, 0)
    assert line["peer_id"] == requester.signer.public_key
    assert counts(provider) == {code: 1}
    assert code in CODES


def test_a_reason_is_told_now_and_then_and_always_counted() -> None:
    """One line at once, one when the time is over, with how many were passed over; another reason
    has lines of its own."""
    world = make_world()
    provider, requester = world.peers
    for number in range(5):
        world.give(requester, make_ask(number, price_max_ucr=1))
    world.give(requester, make_ask(9, model="other"))
    world.run(NS_PER_S)
    assert [line["code"] for line in told(provider)] == [
        "request.price_too_low",
        "engine.unknown_model",
    ]
    world.run(limits.SILENCE_NOTE_NS)
    world.give(requester, make_ask(10, price_max_ucr=1))
    world.run(NS_PER_S)
    assert [line["others"] for line in told(provider)] == [0, 0, 4]
    assert counts(provider) == {"request.price_too_low": 6, "engine.unknown_model": 1}


def test_who_never_sold_anything_counts_nothing() -> None:
    """Most nodes of a network only ask: others' requests are no business of theirs."""
    world = make_world(1, 2)
    world.give(world.peers[1], make_ask())
    world.run(NS_PER_S)
    assert counts(world.peers[2]) == {}
    assert counts(world.peers[0]) == {}


def test_a_model_that_is_away_for_a_while_is_not_unknown() -> None:
    world = make_world()
    provider, requester = world.peers
    world.give(provider, act.OffersChanged((replace(offer(), name="another"),)))
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    assert counts(provider) == {"provider.busy": 1}
