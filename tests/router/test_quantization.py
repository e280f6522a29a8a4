"""A requester that wants a model in certain quantisations, by what providers say of it.

Source: router/README.md, "Choosing".
"""

from dataclasses import replace

import pytest

from protocol import limits
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from router.choosing import Choice
from router.explaining import Explanations
from router.offers import Listed
from simnet.world import World
from tests.router.support import engine, failure, last_end, make_ask, make_world, offer, succeeded


def market(*told: str) -> World:
    """Who asks, then a seller for each; their offers stand."""
    world = make_world(0, 1)
    for number, quantization in enumerate(told):
        sold = replace(offer(number + 1), quantization=quantization)
        seller = world.add(engine(sold))
        seller.node.provider.standing_offers = True
        world.give(seller, act.OffersChanged((sold,)))
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    return world


@pytest.mark.parametrize("use_offers", [True, False])
@pytest.mark.parametrize(
    ("told", "wanted", "served"),
    [
        ("Q4_K_M", ("int4",), True),
        ("Q4_K_M", ("int8", "Q4_K_M"), True),
        ("Q4_K_M", ("int8",), False),
        ("", ("int4",), False),
        ("", ("unknown",), True),
        ("Q4_K_M", (), True),
    ],
)
def test_bids_and_offers_alike(
    told: str, wanted: tuple[str, ...], served: bool, use_offers: bool
) -> None:
    """What a provider says counts the same in both; the refusal says what it said."""
    world = market(told)
    requester = world.peers[0]
    requester.node.requester.explanations = Explanations(1)
    choice = Choice(elsewhere=False, quantizations=wanted)
    world.give(requester, make_ask(1, choice=choice, use_offers=use_offers))
    world.run(10 * NS_PER_S)
    (published, *_) = requester.heard(events.Published)
    explained = requester.node.requester.explanations.find(published.request_id)
    assert explained is not None
    (first, *_) = explained.considered
    assert first.quantization == told
    if served:
        assert succeeded(requester)
        return
    assert failure(requester) == "bid.other_quantization"
    said = f"{told or 'unknown'}, wanted {' or '.join(wanted)}"
    assert (first.code, first.detail) == ("bid.other_quantization", said)
    assert last_end(requester).detail == f"of 1 bid none is acceptable: {said}"


def test_what_is_listed() -> None:
    """Each that somebody sells, once."""
    world = market("Q8_0", "", "F16", "Q8_0")
    (listed,) = world.peers[0].node.requester.offers.listed(world.clock.now_ns)
    assert isinstance(listed, Listed)
    assert (listed.providers, listed.quantizations) == (4, ("F16", "Q8_0", "unknown"))
