"""All that bid and were awarded fail before any text: one more auction, for everybody else.

Source: router/README.md, "When a provider fails".
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.fields import AwardRole, Outcome
from protocol.messages import Award, Chunk
from protocol.records import RequestContinued, decode_record
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from router.choosing import Choice
from router.progress import exposed_ucr
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    awarded_to,
    channels,
    counted,
    failure,
    key_of,
    last_end,
    make_ask,
    message_of,
    only,
    retried,
    same_totals,
    succeeded,
    tamper,
    text_of,
)
from tests.router.test_racing import racing_world, tried

WORST = cost_ucr(512, 40, 15_000_000, 60_000_000)


def failing_world(slow: int, choice: Choice, late: int = 1, **changes: Any) -> World:
    """Asked: the `late` dearest sell only later; the rest bid, and take their word back."""
    world = racing_world({}, late + slow)
    *providers, requester = world.peers
    requester.node.requester.explanations._kept = 8
    for peer in providers[:late]:
        world.give(peer, act.OffersChanged(()))
    world.give(requester, make_ask(choice=choice, **changes))
    world.run(150 * NS_PER_MS)
    for peer in providers:
        assert peer.engine is not None
        sells = peer in providers[:late]
        world.give(peer, act.OffersChanged((peer.engine.offer,) if sells else ()))
    return world


@pytest.mark.parametrize("race", [1, 2])
def test_who_did_not_fail_is_found_by_a_second_auction(race: int) -> None:
    """The client reads one answer of one request; log and explanation know both."""
    world = failing_world(2, Choice(race=race))
    world.run(10 * NS_PER_S)
    requester = world.peers[-1]
    assert succeeded(requester)
    assert text_of(requester) == counted(40)
    assert retried(requester) == ["provider.busy"] * 2
    (told,) = requester.heard(events.AuctionedAgain)
    (published,) = requester.heard(events.Published)
    (link,) = [
        record
        for record in (decode_record(*entry) for entry in requester.log)
        if isinstance(record, RequestContinued)
    ]
    assert (link.request_id, link.by) == (published.request_id, told.request_id)
    assert told.code == link.code == "provider.busy"
    first = [AwardRole.RACE, AwardRole.RACE] if race == 2 else [AwardRole.FIRST, AwardRole.RETRY]
    last = AwardRole.RACE if race == 2 else AwardRole.RETRY
    assert [role for _, role, _ in tried(requester)] == [*first, last]
    assert tried(requester)[-1][::2] == (key_of(world.peers[0]), Outcome.DELIVERED)
    assert same_totals(requester, world.peers[0])


def test_who_failed_is_not_asked_again() -> None:
    """They sell again, cheaper than the rest; the second auction refuses them."""
    world = failing_world(2, Choice())
    while not world.peers[-1].heard(events.AuctionedAgain):
        world.run(NS_PER_MS)
    for peer in world.peers[1:3]:
        assert peer.engine is not None
        world.give(peer, act.OffersChanged((peer.engine.offer,)))
    world.run(10 * NS_PER_S)
    requester = world.peers[-1]
    assert awarded_to(requester)[-1] == key_of(world.peers[0])
    assert {bid.code for bid in requester.heard(events.BidSeen)} == {"", "bid.unacceptable"}


@pytest.mark.parametrize(
    ("slow", "choice", "changes", "code"),
    [
        (2, Choice(fallbacks=False), {}, "provider.busy"),
        (4, Choice(), {"early_close_bids": 0}, "request.all_failed"),
        (1, Choice(), {"timeout_ns": 400 * NS_PER_MS, "tokens": 4}, "provider.busy"),
    ],
    ids=["fallbacks are off", "the retries are used up", "no time is left"],
)
def test_when_there_is_none(slow: int, choice: Choice, changes: dict[str, Any], code: str) -> None:
    """The request fails at once, for the reason that it has."""
    world = failing_world(slow, choice, **changes)
    world.run(10 * NS_PER_S)
    requester = world.peers[-1]
    assert failure(requester) == code
    assert not requester.heard(events.AuctionedAgain)


def test_nobody_else_was_asked_for() -> None:
    world = racing_world({})
    _, named, requester = world.peers
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask(choice=Choice(), filters=only(named)))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "award.timeout"
    assert not requester.heard(events.AuctionedAgain)


def test_nobody_else_bids() -> None:
    """After another window the reason is the first auction's, not that nobody bid."""
    world = failing_world(2, Choice(), late=0)
    world.run(10 * NS_PER_S)
    end = last_end(world.peers[-1])
    assert isinstance(end, events.Failed)
    assert (end.code, end.paid_ucr) == ("request.all_failed", 0)
    assert end.detail == "last reason: provider.busy; in a second auction: request.no_bids"
    assert not world.peers[-1].node.requester.open_jobs


def test_there_is_no_third() -> None:
    """Those of the second fail too: it ends, with their reason."""
    world = failing_world(1, Choice())
    tamper(world, world.peers[0], Chunk, lambda chunk: replace(chunk, due_ucr=1), times=9)
    world.run(10 * NS_PER_S)
    requester = world.peers[-1]
    assert len(requester.heard(events.AuctionedAgain)) == limits.AUCTIONS_AGAIN_MAX == 1
    end = last_end(requester)
    assert isinstance(end, events.Failed)
    assert (end.code, end.detail) == ("request.all_failed", "last reason: chunk.wrong_total")


def test_both_auctions_fit_the_cap() -> None:
    """What an award that nobody answered may cost yet is not offered again."""
    world = racing_world({})
    late, _, requester = world.peers
    assert late.engine is not None
    world.give(late, act.OffersChanged(()))
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask(price_max_ucr=2 * WORST))
    world.run(NS_PER_S)
    world.give(late, act.OffersChanged((late.engine.offer,)))
    while not requester.heard(events.AuctionedAgain):
        world.run(NS_PER_MS)
    job = requester.node.requester.job(requester.heard(events.AuctionedAgain)[0].request_id)
    assert job is not None
    (lost,) = job.progress.attempts
    assert exposed_ucr(lost) > 0
    assert job.request.message.price_max_ucr == 2 * WORST - exposed_ucr(lost)
    assert job.request.message.deadline_ns <= job.progress.began_at_ns + 60 * NS_PER_S
    world.run(10 * NS_PER_S)
    assert succeeded(requester)


# --- whatever happens ------------------------------------------------------------------------

FATES = ("serves", "refuses", "lost", "crashes", "vanishes", "stalls", "comes later")


class Fates:
    """What becomes of each provider's awards, and what must hold at each step."""

    def __init__(self, world: World, fates: list[str], race: int, cap_ucr: int) -> None:
        self.world, self.race, self.cap_ucr = world, race, cap_ucr
        self.fate = dict(zip((peer.index for peer in world.peers), fates, strict=False))
        self.started = 0
        self.requester = world.peers[-1]
        world.after_step = self.look
        world.frame_filter = self.lose

    def lose(self, _source: Peer, target: Peer, data: bytes) -> bytes | None:
        lost = self.fate.get(target.index) == "lost" and isinstance(message_of(data), Award)
        return None if lost else data

    def look(self, peer: Peer, actions: list[act.Action]) -> None:
        for action in actions:
            if isinstance(action, act.StartJob):
                self.started += 1
                self.world.clock.after(0, self.befall, peer, action.job_id)
        assert self.started <= len(awarded_to(self.requester))
        failed = {event.provider for event in self.requester.heard(events.Retrying)}
        if not self.requester.heard(events.Text):
            others = [one for one in self.world.peers[:-1] if key_of(one) not in failed]
            assert sum(len(one.jobs) for one in others) <= self.race
        for contest in self.requester.node.requester._contests.values():
            assert contest.runs[0].progress.exposed_ucr <= self.cap_ucr

    def befall(self, peer: Peer, job_id: bytes) -> None:
        fate = self.fate.get(peer.index)
        if fate == "vanishes":
            self.world.crash(peer)
        elif fate in ("crashes", "stalls"):
            peer.jobs.pop(job_id, None)
            if fate == "crashes":
                self.world.give(peer, act.JobBroke(job_id, "engine.crashed"))


@settings(deadline=None, max_examples=25)
@given(
    fates=st.lists(st.sampled_from(FATES), min_size=2, max_size=6),
    race=st.integers(1, 3),
    cap_ucr=st.sampled_from([WORST, 2 * WORST, 4 * WORST, 100 * WORST]),
)
def test_no_more_runs_than_was_awarded_and_no_more_is_paid_than_the_cap(
    fates: list[str], race: int, cap_ucr: int
) -> None:
    """One answer or one reason; at most the awards and auctions that are allowed, each provider
    once; and while the dearest serves in time and price, the answer is there."""
    world = racing_world({}, len(fates))
    *providers, requester = world.peers
    watched = Fates(world, fates, race, cap_ucr)
    for peer, fate in zip(providers, fates, strict=True):
        if fate == "comes later":
            world.give(peer, act.OffersChanged(()))
    choice = Choice(race=race, elsewhere=False)
    world.give(requester, make_ask(choice=choice, price_max_ucr=cap_ucr))
    world.run(150 * NS_PER_MS)
    for peer, fate in zip(providers, fates, strict=True):
        assert peer.engine is not None
        if fate in ("refuses", "comes later"):
            world.give(peer, act.OffersChanged((peer.engine.offer,) * (fate != "refuses")))
    world.run(60 * NS_PER_S)
    ends = [event for _, event in requester.told if isinstance(event, events.TERMINAL)]
    assert len(ends) == 1
    awards = awarded_to(requester)
    assert len(awards) == len(set(awards)) <= choice.awards_max
    assert len(requester.heard(events.AuctionedAgain)) <= limits.AUCTIONS_AGAIN_MAX
    assert watched.started <= len(awards)
    assert sum(channel.due_ucr for channel in channels(requester)) <= cap_ucr
    assert not requester.node.requester.open_jobs
    if cap_ucr > len(fates) * WORST and "serves" in fates and len(fates) <= choice.awards_max:
        assert isinstance(ends[0], events.Done), ends[0]
        assert text_of(requester) == counted(40)
