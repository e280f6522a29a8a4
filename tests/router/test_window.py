"""The bid window: asks without bids, and when waiting ends.

Source: router/README.md, "Life of a job", 1 to 3.
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    GenerationParameters,
    InferenceType,
    Outcome,
    OutputConstraint,
    Prompt,
)
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.bidding import EARLY_CLOSE_GAP_NS
from router.breaker import FAILURES_IN_A_ROW
from tests.router.bids import ask_alone, deliver, ignored, request_of
from tests.router.support import (
    ANYBODY,
    failure,
    make_ask,
    make_world,
    stranger,
    succeeded,
)

PARAMETERS = GenerationParameters(40, 0, 0, 1000, 1, ())
LONG_GRAMMAR = OutputConstraint(ConstraintKind.GRAMMAR, "\U0001f600" * limits.CONSTRAINT_CHARS_MAX)

# --- nothing to choose from ----------------------------------------------------------------


def test_a_model_that_nobody_serves() -> None:
    """`request.no_bids` when the window ends, not before; nobody is blamed."""
    world = make_world(2)
    provider, _, requester = world.peers
    world.give(requester, make_ask(model="other"))
    world.run(199 * NS_PER_MS)
    assert not requester.heard(events.Failed)
    world.run(2 * NS_PER_MS)
    assert failure(requester) == "request.no_bids"
    assert ignored(provider) == ["engine.unknown_model"]
    assert not provider.penalized


def test_a_model_that_nobody_serves_where_others_are_sold() -> None:
    """Known by bids, as nobody offers here. One that was sold lately is only not to be had."""
    world = make_world(1)
    provider, requester = world.peers
    world.give(requester, make_ask(1))
    world.give(requester, make_ask(2, model="other"))
    world.run(5 * NS_PER_S)
    assert succeeded(requester, 1)
    assert failure(requester, 2) == "request.unknown_model"
    world.give(provider, act.Drain())
    world.give(requester, make_ask(3))
    world.run(5 * NS_PER_S)
    assert failure(requester, 3) == "request.no_bids"
    world.run(600 * NS_PER_S)
    world.give(requester, make_ask(4, model="other"))
    world.run(5 * NS_PER_S)
    assert failure(requester, 4) == "request.no_bids", "nobody is known any more"


def test_a_price_cap_under_every_offer() -> None:
    """Honest providers stay silent; the asker hears that nobody bid."""
    world = make_world(2)
    provider, _, requester = world.peers
    world.give(requester, make_ask(price_max_ucr=1))
    world.run(NS_PER_S)
    assert failure(requester) == "request.no_bids"
    assert ignored(provider) == ["request.price_too_low"]


def test_bids_over_the_price_cap() -> None:
    """A bid over the cap is shown with its code, never awarded, and no offence."""
    world, requester, _ = ask_alone(price_max_ucr=100)
    deliver(world, requester, 1)
    world.run(NS_PER_S)
    assert failure(requester) == "request.price_too_low"
    assert [bid.code for bid in requester.heard(events.BidSeen)] == ["request.price_too_low"]
    assert not requester.penalized
    assert not requester.heard(events.Awarded)


def test_no_provider_is_there() -> None:
    """A dead provider and an empty network look the same: `request.no_bids`."""
    world = make_world()
    provider, requester = world.peers
    world.crash(provider)
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    assert failure(requester) == "request.no_bids"


@pytest.mark.parametrize(
    "changes",
    [
        {"price_max_ucr": -1},
        {"bid_window_ns": 0},
        {"bid_window_ns": limits.BID_WINDOW_NS_MAX + 1},
        {"model": ""},
        {"prompt": Prompt(InferenceType.CHAT, ())},
        {
            "prompt": Prompt(
                InferenceType.CHAT, (ChatMessage("user", "x" * limits.MESSAGE_TEXT_CHARS_MAX),) * 4
            )
        },
        {"parameters": replace(PARAMETERS, stop=("\ud800",))},
        {"parameters": replace(PARAMETERS, stop=("",) * (limits.STOP_STRINGS_MAX + 1))},
        {
            "prompt": Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * 240_000),) * 2),
            "parameters": replace(PARAMETERS, constraint=LONG_GRAMMAR),
        },
    ],
    ids=[
        *("price", "window short", "window long", "model", "no prompt", "prompt over a frame"),
        *("text that is none", "too many stops", "prompt and parameters over a frame"),
    ],
)
def test_an_ask_that_cannot_be_published(changes: dict[str, Any]) -> None:
    """The asker is told `request.invalid` at once, and nothing goes out.

    Regression: a prompt too long for a frame was published, and its award brought the node down.
    So did stop texts that UTF-8 does not have, and parameters beside a prompt that just fits.
    """
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask(**changes))
    assert failure(requester) == "request.invalid"
    world.run(NS_PER_S)
    assert not requester.heard(events.Published)


def test_open_requests_are_bounded() -> None:
    """REQUESTS_OPEN_MAX, then `request.too_many`; room comes back when they end."""
    world = make_world(0)
    (requester,) = world.peers
    for number in range(limits.REQUESTS_OPEN_MAX + 1):
        world.give(requester, make_ask(number))
    assert failure(requester, limits.REQUESTS_OPEN_MAX) == "request.too_many"
    world.run(NS_PER_S)
    assert failure(requester, 0) == "request.no_bids"
    world.give(requester, make_ask(999))
    assert len(requester.heard(events.Published)) == limits.REQUESTS_OPEN_MAX + 1


# --- when the window closes ----------------------------------------------------------------


def run_bids(
    arrivals: list[tuple[int, int]], window_ms: int = 1_000, early_close_bids: int = 3
) -> float:
    """Bids at (ms, output price in credits), each by a stranger; when the window closed, ms."""
    world, requester, _ = ask_alone(
        bid_window_ns=window_ms * NS_PER_MS,
        timeout_ns=90 * NS_PER_S,
        early_close_bids=early_close_bids,
    )
    start_ns = world.clock.now_ns
    for number, (at_ms, price) in enumerate(arrivals):
        world.run(start_ns + at_ms * NS_PER_MS - world.clock.now_ns)
        deliver(world, requester, number, output_price_ucr=price * 10**6)
    state = request_of(requester).digest
    while True:
        job = requester.node.requester.job(state)
        assert job is not None
        if job.candidate is not None:
            return (world.clock.now_ns - start_ns) / NS_PER_MS
        world.run(NS_PER_MS)


def test_two_bids_wait_for_the_whole_window() -> None:
    """Fewer than three are not enough to choose from."""
    assert run_bids([(10, 60), (20, 50)]) == 1_000


def test_three_bids_and_no_better_one_close_the_window_early() -> None:
    """30 ms after the best came, waiting longer is not worth it."""
    gap_ms = EARLY_CLOSE_GAP_NS / NS_PER_MS
    assert run_bids([(10, 50), (20, 60), (25, 70)]) == 10 + gap_ms


def test_a_better_bid_restarts_the_early_close() -> None:
    """While bids still get better, it waits."""
    gap_ms = EARLY_CLOSE_GAP_NS / NS_PER_MS
    assert run_bids([(10, 90), (20, 80), (30, 70), (55, 60)]) == 55 + gap_ms


def test_the_early_close_waits_for_the_third_bid() -> None:
    """Which ends it at once when the gap is over by then."""
    assert run_bids([(10, 50), (20, 60), (95, 70)]) == 95
    assert run_bids([(10, 50), (20, 60), (25, 70)]) == 40


@pytest.mark.parametrize(("bids", "closed_ms"), [(0, 1_000), (1, 40), (2, 40), (3, 1_000)])
def test_an_asker_says_how_many_bids_are_enough(bids: int, closed_ms: int) -> None:
    """None is the whole window, one is the first and the gap."""
    assert run_bids([(10, 50), (20, 60)], early_close_bids=bids) == closed_ms


def test_bids_of_suspended_sellers_do_not_close_the_window() -> None:
    """Many that failed before and bid at once would keep everybody else out."""
    world, requester, request = ask_alone(early_close_bids=2)
    breakers = requester.node.requester.judging.breakers
    for number in (1, 2, 3):
        for _ in range(FAILURES_IN_A_ROW):
            breakers.ended(stranger(number).public_key, Outcome.FAILED, world.clock.now_ns)
        deliver(world, requester, number)
    job = requester.node.requester.job(request.digest)
    assert job is not None
    world.run(EARLY_CLOSE_GAP_NS)
    assert job.candidate is None
    deliver(world, requester, 4)
    deliver(world, requester, 5)
    world.run(EARLY_CLOSE_GAP_NS)
    assert job.candidate is not None
    assert job.candidate.signed.sender in (stranger(4).public_key, stranger(5).public_key)


def test_all_who_were_asked_have_answered() -> None:
    """With a closed list there is nobody left to wait for."""
    asked = replace(ANYBODY, providers_only=(stranger(1).public_key, stranger(2).public_key))
    world, requester, request = ask_alone(filters=asked)
    deliver(world, requester, 1)
    job = requester.node.requester.job(request.digest)
    assert job is not None
    assert job.candidate is None
    deliver(world, requester, 2)
    assert job.candidate is not None


def test_outsiders_do_not_close_the_window() -> None:
    """Regression: bids of peers that were not asked counted as answers of those who were."""
    asked = replace(ANYBODY, providers_only=(stranger(1).public_key, stranger(2).public_key))
    world, requester, request = ask_alone(filters=asked)
    deliver(world, requester, 3)
    deliver(world, requester, 4)
    deliver(world, requester, 1)
    job = requester.node.requester.job(request.digest)
    assert job is not None
    assert job.candidate is None
    deliver(world, requester, 2, output_price_ucr=1)
    assert job.candidate is not None
    assert job.candidate.signed.sender == stranger(2).public_key


def test_who_leads_has_a_stream_before_the_window_ends() -> None:
    """From the bid on that leaves one to wait for; the award then waits for no dial."""
    world, requester, _ = ask_alone(early_close_bids=3, bid_window_ns=NS_PER_S)
    dialled = requester.node.requester.awarding._sessions
    deliver(world, requester, 1, output_price_ucr=50_000_000)
    assert not dialled
    deliver(world, requester, 2)
    assert list(dialled) == [stranger(1).public_key]
    deliver(world, requester, 3)
    assert list(dialled) == [stranger(1).public_key]


@pytest.mark.parametrize(("enough", "streams"), [(3, limits.SESSIONS_WARM_MAX), (0, 0)])
def test_bids_that_get_better_do_not_have_everybody_dialled(enough: int, streams: int) -> None:
    """A few at most; none in a window that is waited out, as who leads then says little."""
    world, requester, _ = ask_alone(early_close_bids=enough, bid_window_ns=NS_PER_S)
    for number in range(1, 12):
        deliver(world, requester, number, output_price_ucr=(60 - number) * 1_000_000)
    assert len(requester.node.requester.awarding._sessions) == streams
