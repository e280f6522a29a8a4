"""Which bid a requester takes: strategies, its own filters, breakers, quotes, caps a day.

Source: router/README.md, "Choosing".
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import LocalError, RemoteError
from protocol.fields import Outcome, Strategy
from protocol.machine import apply
from protocol.units import NS_PER_MS, NS_PER_S, format_credits
from router import actions as act
from router import events
from router.auction import ScoredBid, rank
from router.breaker import (
    BREAKER_TRANSITIONS,
    PAUSE_NS,
    PAUSE_NS_MAX,
    BreakerEvent,
    Breakers,
    BreakerState,
)
from router.choosing import Choice, RequesterSettings, weights
from router.context import Context
from router.explaining import Explanations
from router.job import Job
from router.ledger import Ledger
from router.market_prices import RECENT_NS, SELLERS_MIN, MarketPrices
from router.offers import OfferBook
from router.progress import Progress
from router.selection import NEWCOMERS_EVERY, Selection
from simnet.entropy import Entropy
from simnet.peer import Peer
from tests.router.support import (
    MODEL,
    awarded_to,
    complete,
    failure,
    key_of,
    make_ask,
    make_world,
    only,
    stranger,
    succeeded,
    when_job_starts,
)
from tests.router.test_auction import NOW_NS, make_bid, make_request
from tests.router.test_reputation import judged


def selection() -> tuple[Selection, Context]:
    ledger = Ledger("net", stranger(0).public_key)
    context = Context(stranger(0), "net", ledger, Entropy(1, b"choosing").bytes)
    context.now_ns = NOW_NS
    return Selection(context, Breakers(), OfferBook()), context


def job_for(
    choice: Choice,
    strategy: Strategy,
    salt: int = 0,
    favours_newcomers: bool = False,
    **changes: Any,
) -> Job:
    """A job whose request has an id that does not favour newcomers, or does."""
    for number in range(salt, salt + 1_000):
        request = make_request(strategy=strategy, prompt_commitment=number.to_bytes(32, "big"))
        if (request.digest[0] % NEWCOMERS_EVERY == 0) is favours_newcomers:
            ask = make_ask(strategy=strategy, choice=choice, **changes)
            return Job(ask, request, bytes(32), bytes(32), Progress(ask, request.sent_at_ns))
    raise AssertionError


# (price per million output tokens, ttft in ms, good jobs) of three sellers, and who wins.
CHEAP, FAST, KNOWN = (20_000_000, 900, 0), (60_000_000, 10, 0), (40_000_000, 500, 12)


@pytest.mark.parametrize(
    ("name", "price_weight", "reputation_weight", "order"),
    [
        ("cheapest", 0, 0, [0, 2, 1]),
        ("fastest", 1_000, 0, [1, 2, 0]),
        ("reputable", 0, 0, [2, 0, 1]),
        ("weighted", 1_000, 0, [0, 2, 1]),
        ("weighted", 0, 0, [1, 2, 0]),
        ("weighted", 200, 600, [2, 0, 1]),
        ("weighted", 0, 1_000, [2, 0, 1]),
    ],
)
def test_strategies(
    name: str, price_weight: int, reputation_weight: int, order: list[int]
) -> None:
    """Each finds its own best of three; whoever is unknown is no better than another unknown."""
    strategy, weight = weights(name, price_weight, reputation_weight)
    selecting, context = selection()
    job = job_for(Choice(reputation_weight=weight), strategy)
    found = []
    for number, (price, ttft_ms, good) in enumerate((CHEAP, FAST, KNOWN)):
        signer = stranger(number + 1)
        for _ in range(good):
            context.ledger.apply(judged(provider=signer.public_key, model=MODEL))
        bid = make_bid(job.request, signer, output_price_ucr=price, ttft_ns=ttft_ms * NS_PER_MS)
        scored, code = selecting.weigh(job, bid.signed, bid.bid)
        assert code == ""
        found.append(scored)
    assert [found.index(scored) for scored in rank(found)] == order


def test_weights_beyond_the_whole() -> None:
    with pytest.raises(LocalError):
        weights("weighted", 500, 501)
    assert weights("weighted", 200, 600) == (Strategy(500, 500), 600)


OFFER = st.tuples(st.integers(1, 10**8), st.integers(0, 10**10), st.integers(0, 12))


@given(
    st.lists(OFFER, min_size=2, max_size=6),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 10**6),
    st.randoms(),
)
def test_a_dominated_bid_never_wins_and_arrival_does_not_matter(
    offers: list[tuple[int, int, int]], price: int, reputation: int, salt: int, rng: Any
) -> None:
    """Whatever the weights: no loser is at least as cheap, fast and reputable, and one of them
    more."""
    strategy = Strategy(price, 1_000 - price)
    selecting, context = selection()
    job = job_for(Choice(reputation_weight=reputation), strategy, salt)
    bids: list[ScoredBid] = []
    for number, (output_price, ttft_ns, good) in enumerate(offers):
        signer = stranger(number + 1)
        for _ in range(good):
            context.ledger.apply(judged(provider=signer.public_key, model=MODEL))
        bid = make_bid(job.request, signer, output_price_ucr=output_price, ttft_ns=ttft_ns)
        bids.append(selecting.weigh(job, bid.signed, bid.bid)[0])
    first = rank(bids)[0]
    for other in bids:
        no_worse = (
            other.cost_max_ucr <= first.cost_max_ucr
            and other.latency_ns <= first.latency_ns
            and other.reputation >= first.reputation
        )
        same = (other.cost_max_ucr, other.latency_ns, other.reputation) == (
            *(first.cost_max_ucr, first.latency_ns, first.reputation),
        )
        assert same or not no_worse
    rng.shuffle(bids)
    assert rank(bids)[0] is first


@pytest.mark.parametrize(
    ("choice", "good", "bad", "code"),
    [
        (Choice(), 0, 0, ""),
        (Choice(), 0, 3, ""),  # ejected, but for no lie: it comes last
        (Choice(reputation_min=600), 0, 0, "bid.low_reputation"),
        (Choice(reputation_min=600), 3, 0, ""),
        (Choice(completed_min=3), 2, 0, "bid.low_reputation"),
        (Choice(completed_min=3), 3, 0, ""),
    ],
)
def test_filters(choice: Choice, good: int, bad: int, code: str) -> None:
    """Of one's own; nobody is blamed."""
    selecting, context = selection()
    job, signer = job_for(choice, Strategy(500, 500)), stranger(1)
    outcomes = [Outcome.DELIVERED] * good + [Outcome.FAILED] * bad
    for outcome in outcomes:
        context.ledger.apply(judged(outcome, provider=signer.public_key, model=MODEL))
        context.now_ns = NOW_NS
    context.ledger.reputation.standing(signer.public_key, MODEL).updated_at_ns = NOW_NS
    bid = make_bid(job.request, signer)
    assert selecting.weigh(job, bid.signed, bid.bid)[1] == code


def test_who_failed_comes_last_and_who_lied_is_refused() -> None:
    """Regression: an only seller whose engine broke three times was out of reach."""
    for outcome, code in ((Outcome.FAILED, ""), (Outcome.LIED, "bid.low_reputation")):
        selecting, context = selection()
        job, signer = job_for(Choice(), Strategy(500, 500)), stranger(1)
        for _ in range(3):
            context.ledger.apply(judged(outcome, provider=signer.public_key, model=MODEL))
        context.now_ns = NOW_NS
        context.ledger.reputation.standing(signer.public_key, MODEL).updated_at_ns = NOW_NS
        bid = make_bid(job.request, signer)
        scored, found = selecting.weigh(job, bid.signed, bid.bid)
        assert found == code
        assert scored.suspended


def test_an_off_market_price_is_refused() -> None:
    """Against the median of those who asked before; with too few of them nothing is."""
    selecting, _ = selection()
    codes = []
    for number, price in enumerate((9, 10, 11, 12, 36, 300)):
        job = job_for(Choice(market_factor_milli=3_000), Strategy(500, 500))
        selecting.begin(job)
        signer, prices = stranger(number + 1), price * 1_000_000
        bid = make_bid(job.request, signer, output_price_ucr=prices, input_price_ucr=0)
        codes.append(selecting.weigh(job, bid.signed, bid.bid)[1])
    assert codes == ["", "", "", "", "bid.off_market", "bid.off_market"]


def test_prices_are_recent_and_bounded() -> None:
    """A seller counts once, old prices not at all, and memory is bounded."""
    prices = MarketPrices()
    for number in range(limits.SELLERS_KEPT * 2):
        prices.saw("m", number.to_bytes(2, "big"), 0, 10**6, 1)
    assert prices.median_ucr("m", 0, 1_000, 1) == 1_000
    assert prices.median_ucr("m", 0, 1_000, 2 + RECENT_NS) == 0
    lone = MarketPrices()
    for _ in range(SELLERS_MIN * 3):
        lone.saw("m", b"one", 0, 10**6, 1)
    assert lone.median_ucr("m", 0, 1_000, 1) == 0


# --- breakers --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", BreakerState)
@pytest.mark.parametrize("event", BreakerEvent)
def test_every_cell_of_the_breaker(state: BreakerState, event: BreakerEvent) -> None:
    """Only an open one cools; a trip opens any, a pass closes any."""
    fixed = {BreakerEvent.TRIP: BreakerState.OPEN, BreakerEvent.PASS: BreakerState.CLOSED}
    moves = {
        (BreakerState.OPEN, BreakerEvent.COOL): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerEvent.AWARD): BreakerState.PROBING,
        (BreakerState.PROBING, BreakerEvent.NOTHING): BreakerState.HALF_OPEN,
    }
    expected = fixed.get(event) or moves.get((state, event), state)
    if event is BreakerEvent.COOL and state is not BreakerState.OPEN:
        with pytest.raises(RemoteError):
            apply(BREAKER_TRANSITIONS, state, event, "session.protocol")
    else:
        assert apply(BREAKER_TRANSITIONS, state, event, "session.protocol") is expected


def test_a_breaker_opens_probes_and_closes() -> None:
    """Three in a row, a pause, one job at a time; failed probes wait twice as long."""
    breakers, peer, now = Breakers(), bytes(32), 1_000
    for _ in range(2):
        breakers.ended(peer, Outcome.FAILED, now)
    assert not breakers.suspended(peer, now)
    breakers.ended(peer, Outcome.UNREACHED, now)
    pause = PAUSE_NS
    while pause < 4 * PAUSE_NS_MAX:
        held = min(pause, PAUSE_NS_MAX)
        assert breakers.suspended(peer, now + held - 1)
        now += held
        assert not breakers.suspended(peer, now)
        breakers.awarded(peer)
        assert breakers.suspended(peer, now)  # one probe at a time
        breakers.ended(peer, Outcome.FAILED, now)
        pause *= 2
    breakers.ended(peer, Outcome.DELIVERED, now)
    assert not breakers.suspended(peer, now)
    assert len(breakers) == 0


def test_a_probe_that_says_nothing_leaves_room_for_another() -> None:
    breakers, peer = Breakers(), bytes(32)
    for _ in range(3):
        breakers.ended(peer, Outcome.FAILED, 0)
    assert not breakers.suspended(peer, PAUSE_NS)
    breakers.awarded(peer)
    breakers.ended(peer, Outcome.WITHDRAWN, PAUSE_NS)
    assert not breakers.suspended(peer, PAUSE_NS)


def test_breakers_are_bounded() -> None:
    breakers = Breakers()
    for number in range(limits.BREAKERS_KEPT + 3):
        breakers.ended(number.to_bytes(32, "big"), Outcome.FAILED, 0)
    assert len(breakers) == limits.BREAKERS_KEPT


def fail_three_times(requester: Peer, provider: Peer) -> None:
    breakers = requester.node.requester.judging.breakers
    for _ in range(3):
        now_ns = requester.node.context.now_ns
        breakers.ended(key_of(provider), Outcome.FAILED, now_ns)


def test_a_suspended_provider_comes_last() -> None:
    """The dearer one gets the job; with nobody else, the suspended one is tried all the same."""
    world = make_world(2)
    dear, best, requester = world.peers
    complete(world, requester, 1)
    fail_three_times(requester, best)
    complete(world, requester, 2)
    fail_three_times(requester, best)
    complete(world, requester, 3, filters=only(best))
    assert awarded_to(requester) == [key_of(best), key_of(dear), key_of(best)]


def test_failures_of_jobs_open_the_breaker() -> None:
    """A provider whose engine always breaks is awarded three times, then not."""
    world = make_world(2)
    good, broken, requester = world.peers

    def broke(job_id: bytes) -> None:
        broken.jobs.pop(job_id, None)
        world.give(broken, act.JobBroke(job_id, "engine.crashed"))

    when_job_starts(world, broken, broke)
    for number in range(1, 7):
        world.give(requester, make_ask(number))
        world.run(3 * NS_PER_S)
        assert succeeded(requester, number)
    assert awarded_to(requester).count(key_of(broken)) < 6
    assert awarded_to(requester)[-1] == key_of(good)


# --- quotes, caps, explanations ----------------------------------------------------------------


def test_a_quote_awards_nothing() -> None:
    """Bids, best first, and no channel, record or job."""
    world = make_world(3)
    *providers, requester = world.peers
    world.give(requester, make_ask(choice=Choice(quote=True)))
    world.run(2 * NS_PER_S)
    (quoted,) = requester.heard(events.Quoted)
    assert [bid.provider for bid in quoted.bids] == [key_of(peer) for peer in reversed(providers)]
    assert requester.log == []
    assert requester.node.requester.open_jobs == 0
    assert not any(peer.jobs for peer in providers)


def test_a_quote_from_offers_publishes_nothing() -> None:
    world = make_world(2, standing_offers=True)
    requester = world.peers[-1]
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    bids_before = len(requester.heard(events.BidSeen))
    world.give(requester, make_ask(use_offers=True, choice=Choice(quote=True)))
    world.run(NS_PER_S)
    (quoted,) = requester.heard(events.Quoted)
    assert len(quoted.bids) == 2
    assert len(requester.heard(events.BidSeen)) == bids_before


def test_a_quote_that_nobody_answers_fails() -> None:
    world = make_world(0)
    (requester,) = world.peers
    world.give(requester, make_ask(choice=Choice(quote=True)))
    world.run(2 * NS_PER_S)
    assert failure(requester) == "request.no_bids"


def test_the_days_cap() -> None:
    """Counts what was spent today and what runs at its worst; the next day is new."""
    world = make_world()
    requester = world.peers[-1]
    complete(world, requester, 1)
    spent_ucr = requester.node.context.ledger.balance().spent_ucr
    settings = RequesterSettings(day_max_ucr=spent_ucr + 1_000_000)
    requester.node.requester._settings = settings
    complete(world, requester, 2)  # at its worst it would have filled the day
    world.give(requester, make_ask(3))
    assert failure(requester, 3) == "request.day_limit"
    (told,) = list(requester.heard(events.Failed))
    assert told.detail.startswith(f"{format_credits(spent_ucr)} credits over")
    assert told.short_ucr == spent_ucr
    assert told.paid_ucr == 0
    requester.node.requester._settings = replace(settings, day_max_ucr=0)
    complete(world, requester, 4)


def test_an_explanation_says_all_of_it() -> None:
    """Every bid with its score, every award with its outcome, and the end."""
    world = make_world(2)
    second, best, requester = world.peers
    requester.node.requester.explanations = Explanations(2)
    when_job_starts(world, best, lambda _: world.crash(best))
    world.give(requester, make_ask(1))
    world.run(10 * NS_PER_S)
    request_id = requester.heard(events.Published)[0].request_id
    found = requester.node.requester.explanations.find(request_id[:6])
    assert found is not None
    assert {one.provider: one.code for one in found.considered} == {
        key_of(best): "",
        key_of(second): "",
    }
    assert [(one.provider, one.outcome, one.code) for one in found.tried] == [
        (key_of(best), Outcome.FAILED, "provider.vanished"),
        (key_of(second), Outcome.DELIVERED, ""),
    ]
    assert found.paid_ucr == requester.node.context.ledger.balance().spent_ucr > 0
    assert found.receipt_id == requester.heard(events.Done)[0].receipt_id
    assert found.ended_at_ns > found.started_at_ns


def test_a_cap_under_all_known_prices_says_by_how_much() -> None:
    """Providers that would be over the cap are silent; what they asked before says why."""
    world = make_world()
    requester = world.peers[-1]
    complete(world, requester, 1)
    cost_ucr = requester.heard(events.BidSeen)[0].cost_max_ucr
    world.give(requester, make_ask(2, price_max_ucr=cost_ucr - 4))
    world.run(NS_PER_S)
    assert failure(requester, 2) == "request.price_too_low"
    told = requester.heard(events.Failed)[-1]
    most, cap = format_credits(cost_ucr), format_credits(cost_ucr - 4)
    assert told.detail == f"up to {most} credits are asked, 0.000004 over the cap of {cap}"
    assert told.short_ucr == 4
