"""Answers that one provider begins and another finishes: one text, one bill, within the caps.

Source: router/README.md, "When a provider fails".
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.fields import ChatMessage, InferenceType, Prompt, RequestFilter
from protocol.messages import Chunk
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from router.choosing import Choice
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import (
    awarded_to,
    break_engine,
    channels,
    counted,
    engine,
    failure,
    key_of,
    last_end,
    make_ask,
    make_world,
    offer,
    same_totals,
    succeeded,
    tamper,
    text_of,
)

ELSEWHERE = Choice()
FIRST = make_world().peers[0].signer.public_key  # as in every world
SECOND_PRICE, BEST_PRICE = 60_000_000, 50_000_000


def counting_world(providers: int = 2, **settings: Any) -> World:
    """Providers that count, each cheaper than the one before it; then a requester."""
    world = World(WorldSettings(**settings))
    for number in range(providers):
        model = offer(number + 1, output_price=SECOND_PRICE - number * 10_000_000)
        world.add(replace(engine(model), counts=True))
    world.add()
    return world


def ask(world: World, tokens: int = 40, seconds: int = 20, **changes: Any) -> Peer:
    """Ask, to the end; the requester."""
    requester = world.peers[-1]
    changes = {"choice": ELSEWHERE, **changes}
    world.give(requester, make_ask(tokens=tokens, **changes))
    world.run(seconds * NS_PER_S)
    return requester


def crash_engine(world: World, best: Peer) -> None:
    break_engine(world, best, 510 * NS_PER_MS)


def kill(world: World, best: Peer) -> None:
    world.clock.after(800 * NS_PER_MS, world.crash, best)


def stall(world: World, best: Peer) -> None:
    world.clock.after(800 * NS_PER_MS, best.jobs.clear)


def lie(world: World, best: Peer) -> None:
    def late(chunk: Chunk) -> Chunk:
        return replace(chunk, due_ucr=chunk.due_ucr + 1) if chunk.sequence == 9 else chunk

    tamper(world, best, Chunk, late, times=9)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (crash_engine, "engine.crashed"),
        (kill, "provider.vanished"),
        (stall, "chunk.stalled"),
        (lie, "chunk.wrong_total"),
    ],
)
def test_another_provider_goes_on(trouble: Callable[[World, Peer], None], code: str) -> None:
    """Whatever the first one dies of: no token twice, none lost; the bill has both parts."""
    world = counting_world()
    second, best = world.peers[:2]
    trouble(world, best)
    requester = ask(world, seconds=50)
    done = last_end(requester)
    assert isinstance(done, events.Done), done
    assert text_of(requester) == counted(40)
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    (told,) = requester.heard(events.Continuing)
    assert (told.provider, told.code) == (key_of(best), code)
    assert 0 < told.output_tokens < 40
    (part,) = done.others
    assert (part.code, part.output_tokens) == (code, told.output_tokens)
    assert part.cost_ucr == cost_ucr(12, told.output_tokens, 15_000_000, BEST_PRICE)
    assert done.receipt.output_tokens == 40 - told.output_tokens
    assert done.cost_ucr == sum(channel.due_ucr for channel in channels(requester))
    last = requester.heard(events.Text)[-1]
    assert (last.output_tokens, last.due_ucr) == (40, done.cost_ucr)
    assert same_totals(requester, second)


def test_a_standing_offer_takes_over() -> None:
    """Without an auction: the best offer of those that did not break off."""
    world = counting_world(3, standing_offers=True)
    world.run(NS_PER_S)
    kill(world, world.peers[2])
    requester = ask(world, tokens=70, use_offers=True)
    assert succeeded(requester)
    assert text_of(requester) == counted(70)
    assert awarded_to(requester) == [key_of(world.peers[2]), key_of(world.peers[1])]
    assert not requester.heard(events.BidSeen)


@pytest.mark.parametrize(
    ("changes", "soon"),
    [
        ({}, True),
        ({"choice": Choice(elsewhere=False)}, False),
        ({"filters": RequestFilter(b"", (), (FIRST,))}, False),
    ],
)
def test_a_dead_provider_is_not_waited_for_where_others_offer(
    changes: dict[str, Any], soon: bool
) -> None:
    """It has RESUME_ALONE_NS to come back then, else RESUME_TIMEOUT_NS."""
    world = counting_world(2, standing_offers=True)
    assert key_of(world.peers[0]) == FIRST
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)  # until the requester has heard of both
    world.clock.after(800 * NS_PER_MS, world.crash, world.peers[1])
    requester = ask(world, tokens=70, use_offers=True, **changes)
    told = [*requester.heard(events.Continuing), *requester.heard(events.Failed)]
    waited_ns = told[0].at_ns - 800 * NS_PER_MS
    assert (waited_ns < limits.RESUME_TIMEOUT_NS // 2) is soon
    assert succeeded(requester) is soon


def test_three_providers_may_take_over_and_no_more() -> None:
    """Everybody crashes at every job: CONTINUATIONS_MAX, then the last reason."""
    world = counting_world(5)
    for provider in world.peers[:5]:
        assert provider.engine is not None

    def broke(peer: Peer, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.StartJob):
                world.clock.after(150 * NS_PER_MS, _break, world, peer, action.job_id)

    world.after_step = broke
    requester = ask(world, tokens=70)
    assert failure(requester) == "engine.crashed"
    assert len(requester.heard(events.Continuing)) == limits.CONTINUATIONS_MAX
    end = last_end(requester)
    assert isinstance(end, events.Failed)
    assert "3 providers" in end.detail
    assert end.paid_ucr == sum(channel.due_ucr for channel in channels(requester))
    assert counted(70).startswith(text_of(requester))


def _break(world: World, provider: Peer, job_id: bytes) -> None:
    if provider.jobs.pop(job_id, None):
        world.give(provider, act.JobBroke(job_id, "engine.crashed"))


def test_nobody_else() -> None:
    """The failure is that of the provider that broke off, not of the search for another."""
    world = counting_world(1)
    kill(world, world.peers[0])
    requester = ask(world)
    assert failure(requester) == "provider.vanished"
    assert "request.no_bids" in last_end(requester).detail  # type: ignore[union-attr]


def test_an_only_provider_may_go_on_itself() -> None:
    """Its engine crashed once, and it is the only seller: better than no answer."""
    world = counting_world(1)
    crash_engine(world, world.peers[0])
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=ELSEWHERE))
    world.run(900 * NS_PER_MS)
    world.after_step = None
    world.run(20 * NS_PER_S)
    assert succeeded(requester)
    assert text_of(requester) == counted(40)


@pytest.mark.parametrize("named", [False, True])
def test_a_liar_does_not_go_on_itself(named: bool) -> None:
    """Not even where it was asked for by name, which lets others be taken that are ejected."""
    world = counting_world(1)
    liar = world.peers[0]
    lie(world, liar)
    requester = ask(world, filters=RequestFilter(b"", (key_of(liar),) if named else (), ()))
    assert failure(requester) == "chunk.wrong_total"
    assert len(awarded_to(requester)) == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"choice": Choice(elsewhere=False)}, "no other provider"),
        ({"price_max_ucr": cost_ucr(512, 40, 15_000_000, BEST_PRICE)}, "price_too_low"),
        ({"timeout_ns": 1_100 * NS_PER_MS, "bid_window_ns": 400 * NS_PER_MS}, "no time"),
    ],
)
def test_what_is_not_continued(changes: dict[str, Any], why: str) -> None:
    """It fails with the reason of the break, and says why nobody went on."""
    world = counting_world()
    crash_engine(world, world.peers[1])
    requester = ask(world, **changes)
    assert failure(requester) == "engine.crashed"
    assert why in last_end(requester).detail  # type: ignore[union-attr]


def test_scores_have_no_seam() -> None:
    """Logprobs are those of one run of tokens: such an answer is not put together."""
    world = counting_world()
    crash_engine(world, world.peers[1])
    parameters = replace(make_ask().parameters, logprobs=2)
    requester = ask(world, parameters=parameters)
    assert failure(requester) == "engine.crashed"
    assert "scores" in last_end(requester).detail  # type: ignore[union-attr]


def test_an_answer_that_was_begun_by_the_asker_is_begun_once() -> None:
    """A prompt that continues, continued: one beginning, longer."""
    world = counting_world()
    crash_engine(world, world.peers[1])
    turns = (ChatMessage("user", "hi"), ChatMessage("assistant", "1 2 3 "))
    requester = ask(world, prompt=Prompt(InferenceType.CHAT, turns, 1))
    assert succeeded(requester)
    assert "1 2 3 " + text_of(requester) == counted(43)


def test_cancel_while_another_is_sought() -> None:
    """Nothing more is bought, and the first part is paid."""
    world = counting_world()
    crash_engine(world, world.peers[1])
    requester = world.peers[-1]
    world.give(requester, make_ask(choice=ELSEWHERE))
    world.run(900 * NS_PER_MS)
    assert requester.heard(events.Continuing)
    world.give(requester, act.CancelAsk(1))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.cancelled"
    assert len(awarded_to(requester)) == 1
    assert not requester.node.requester.open_jobs
