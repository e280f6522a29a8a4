"""Offers that a peer should have when it joins, and prompts that no context of them holds.

Source: router/README.md, "Standing offers", "Choosing".
"""

from dataclasses import replace

import pytest

from protocol import limits
from protocol.envelope import open_envelope
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.messages import StandingOffer
from protocol.units import NS_PER_S
from router import actions as act
from simnet.world import World
from tests.router.support import engine, failure, make_ask, make_world, offer, succeeded


def told(world: World, index: int) -> list[StandingOffer]:
    """What a peer would tell a newcomer, read as that one reads it."""
    peer, now_ns = world.peers[index], world.clock.now_ns
    return [
        open_envelope(data, "sim", now_ns, allowed=(StandingOffer,)).message
        for data in peer.node.offers_for_newcomer(now_ns)
    ]


def test_a_newcomer_is_told_what_stands_by_sellers_and_by_who_heard_them() -> None:
    """The same envelopes; nothing of who drains, and nothing that is about to end."""
    world = make_world(2, 2, standing_offers=True)
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    assert [len(told(world, index)) for index in range(4)] == [2, 2, 2, 2]
    world.give(world.peers[0], act.Drain())
    assert len(told(world, 0)) == 1
    for peer in world.peers[:2]:
        peer.node.provider.draining = True
    world.run(limits.OFFER_LIFETIME_NS - limits.OFFER_INTERVAL_NS)
    assert told(world, 3) == []


def test_what_a_newcomer_is_told_is_bounded_and_has_of_every_model_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "OFFERS_SHOWN_MAX", 3)
    world = make_world(0, 1)
    for number in range(5):
        name = "rare" if number == 4 else "common"
        world.add(engine(replace(offer(number + 1), name=name)))
    for peer in world.peers[1:]:
        peer.node.provider.standing_offers = True
        assert peer.engine is not None
        world.give(peer, act.OffersChanged((peer.engine.offer,)))
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    shown = told(world, 0)
    assert len(shown) == 3
    assert {one.model for one in shown} == {"common", "rare"}


@pytest.mark.parametrize("use_offers", [True, False])
@pytest.mark.parametrize(("text_bytes", "fits"), [(8 * 2_047, True), (8 * 2_048, False)])
def test_a_prompt_over_the_context_is_not_awarded(
    text_bytes: int, fits: bool, use_offers: bool
) -> None:
    """Neither on an offer nor on a bid of who offered it; by its least number of tokens."""
    world = make_world(1, 1, standing_offers=True)
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    _, requester = world.peers
    prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", "a" * text_bytes),))
    world.give(requester, make_ask(1, prompt=prompt, use_offers=use_offers))
    world.run(10 * NS_PER_S)
    if fits:
        assert succeeded(requester)
    else:
        assert failure(requester) == "bid.short_context"
