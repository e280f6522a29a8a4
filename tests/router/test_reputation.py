"""What this node's own jobs say of providers: the fold, its numbers, and who earns which.

Source: router/README.md, "Reputation".
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol import records as r
from protocol.fields import Outcome
from protocol.job import JobState
from protocol.messages import Chunk
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.attempt import said_outcome
from router.fold import Fold
from router.judging import outcome_of
from router.ledger import Ledger
from router.pace import Pace
from router.reputation import (
    DAY_NS,
    EVIDENCE_MAX,
    HALF_LIFE_NS,
    UNIT,
    Reputation,
    Standing,
    decayed,
    kept_share,
)
from router.snapshot import restore, snapshot_parts
from simnet.peer import Peer
from tests.router.support import (
    MODEL,
    break_engine,
    complete,
    key_of,
    make_ask,
    make_world,
    tamper,
    when_job_starts,
)

NOW_NS = 1_760_000_000 * NS_PER_S
PEER = bytes([7]) * 32


def judged(outcome: Outcome = Outcome.DELIVERED, **changes: Any) -> r.AwardJudged:
    """An award that kept its promises, unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "request_id": bytes(32),
        "provider": PEER,
        "model": "m",
        "outcome": outcome,
        "code": "",
        "receipt_id": b"",
        "promised_ttft_ns": 100 * NS_PER_MS,
        "ttft_ns": 90 * NS_PER_MS,
        "promised_tokens_per_s_milli": 50_000,
        "tokens_per_s_milli": 50_000,
        "cost_max_ucr": 500,
        "paid_ucr": 300,
        "judged_at_ns": NOW_NS,
    }
    return r.AwardJudged(**(values | changes))


def standing_after(*outcomes: Outcome) -> Standing:
    book = Reputation()
    for outcome in outcomes:
        book.apply(judged(outcome))
    return book.standing(PEER, "m")


D, F, L = Outcome.DELIVERED, Outcome.FAILED, Outcome.LIED


@pytest.mark.parametrize(
    ("outcomes", "score", "ejected"),
    [
        ((), 500, False),
        ((D,), 666, False),
        ((D,) * 8, 900, False),
        ((F,), 333, False),
        ((F, F), 250, False),
        ((F, F, F), 200, True),
        ((L,), 100, True),
        ((*((D,) * 20), L), 100, True),  # an earned name is no licence
        ((*((D,) * 20), F), 913, False),
        ((Outcome.REFUSED,) * 4, 333, False),
        ((Outcome.WITHDRAWN,) * 40, 500, False),
        ((Outcome.UNREACHED,) * 2, 310, False),
    ],
)
def test_scores(outcomes: tuple[Outcome, ...], score: int, ejected: bool) -> None:
    """Beta with one good and one bad job before any; a liar loses what it had."""
    standing = standing_after(*outcomes)
    assert standing.score(NOW_NS) == score
    assert standing.is_ejected(NOW_NS) is ejected


def test_what_was_long_ago_counts_less() -> None:
    """Halved each week; an ejected provider gets another chance, and a good name fades."""
    ejected, good = standing_after(F, F, F), standing_after(*[D] * 10)
    assert ejected.is_ejected(NOW_NS)
    assert not ejected.is_ejected(NOW_NS + HALF_LIFE_NS)
    scores = [good.score(NOW_NS + weeks * HALF_LIFE_NS) for weeks in range(30)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 500


@given(st.integers(0, EVIDENCE_MAX), st.integers(0, 10 * HALF_LIFE_NS), st.integers(0, DAY_NS))
def test_decay_never_rises(value: int, age_ns: int, more_ns: int) -> None:
    """Not at the seams between half-lives either."""
    assert 0 <= decayed(value, age_ns + more_ns) <= decayed(value, age_ns) <= value


@given(st.lists(st.sampled_from(list(Outcome)), max_size=150))
def test_bounds(outcomes: list[Outcome]) -> None:
    """The score stays in 0..1000 and evidence under its maximum, whatever happens."""
    standing = standing_after(*outcomes)
    assert 0 <= standing.score(NOW_NS) <= UNIT
    assert standing.good + standing.bad <= EVIDENCE_MAX


def test_a_broken_promise_costs_points() -> None:
    """Late first tokens and slow streams weigh a tenth each; a round trip is forgiven."""
    kept, late, slow = Reputation(), Reputation(), Reputation()
    for _ in range(20):
        kept.apply(judged(ttft_ns=220 * NS_PER_MS))  # 125 allowed and 100 of grace
        late.apply(judged(ttft_ns=2_250 * NS_PER_MS))
        slow.apply(judged(tokens_per_s_milli=5_000))
    scores = [book.standing(PEER, "m").score(NOW_NS) for book in (kept, late, slow)]
    assert scores[0] == 954
    assert all(scores[0] - 100 < score < scores[0] - 75 for score in scores[1:])
    assert kept_share(0, 0) == UNIT
    assert kept_share(5, 10) == 500


def test_feedback_counts_once_and_can_change() -> None:
    """The last verdict of a receipt counts; one of a receipt that is not kept does nothing."""
    book = Reputation()
    book.apply(judged(receipt_id=bytes([1]) * 32))
    before = book.standing(PEER, "m").score(NOW_NS)
    for _ in range(3):
        book.apply(r.FeedbackGiven(bytes([1]) * 32, 2, NOW_NS))
    standing = book.standing(PEER, "m")
    assert (standing.disliked, standing.liked) == (1, 0)
    assert standing.score(NOW_NS) < before
    assert (standing.good, standing.bad) == (0, UNIT)  # as if it had failed
    book.apply(r.FeedbackGiven(bytes([1]) * 32, 1, NOW_NS))
    assert (standing.disliked, standing.liked) == (0, 1)
    assert standing.score(NOW_NS) > before
    book.apply(r.FeedbackGiven(bytes([2]) * 32, 1, NOW_NS))
    assert standing.liked == 1


def test_memory_is_bounded() -> None:
    """Those met last stay; days and receipts likewise."""
    book = Reputation()
    for number in range(limits.STANDINGS_KEPT + 5):
        key = number.to_bytes(32, "big")
        book.apply(judged(provider=key, receipt_id=key, judged_at_ns=NOW_NS + number * DAY_NS))
    assert len(book.standings) == limits.STANDINGS_KEPT
    assert len(book.rated) == limits.RATED_KEPT
    assert len(book.spent_by_day) <= 32
    assert book.standing(bytes(32), "m") == Standing()
    assert book.spent_ucr(NOW_NS + (limits.STANDINGS_KEPT + 4) * DAY_NS) == 300


RECORDS = st.lists(
    st.builds(
        lambda outcome, peer, verdict, age: (
            r.FeedbackGiven(bytes([peer]) * 32, verdict, NOW_NS + age)
            if verdict
            else judged(
                outcome,
                provider=bytes([peer]) * 32,
                receipt_id=bytes([peer]) * 32,
                judged_at_ns=NOW_NS + age,
            )
        ),
        *(st.sampled_from(list(Outcome)), st.integers(0, 3), st.integers(0, 2)),
        st.integers(0, 20 * DAY_NS),
    ),
    max_size=40,
)


@given(RECORDS)
def test_a_snapshot_holds_all_of_it(records: list[Any]) -> None:
    """Restored and continued, it is what the records alone make, in the same order."""
    ledger, restored = Ledger("net", PEER), Ledger("net", PEER)
    for record in records[: len(records) // 2]:
        ledger.apply(record)
    restore(restored, list(snapshot_parts(ledger)))
    for record in records[len(records) // 2 :]:
        ledger.apply(record)
        restored.apply(record)
    assert list(snapshot_parts(restored)) == list(snapshot_parts(ledger))


@pytest.mark.parametrize(
    ("code", "state", "outcome"),
    [
        ("chunk.wrong_hash", JobState.STREAMING, Outcome.LIED),
        ("receipt.mismatch", JobState.STREAMING, Outcome.LIED),
        ("chunk.stalled", JobState.STREAMING, Outcome.FAILED),
        ("award.timeout", JobState.AWARDED, Outcome.FAILED),
        ("request.deadline", JobState.STREAMING, Outcome.FAILED),
        ("request.cancelled", JobState.STREAMING, Outcome.WITHDRAWN),
        ("channel.advance_limit", JobState.STREAMING, Outcome.WITHDRAWN),
        ("provider.unreachable", JobState.CONNECTING, Outcome.UNREACHED),
        ("channel.over_limit", JobState.CONNECTING, Outcome.WITHDRAWN),
    ],
)
def test_whose_fault_it_was(code: str, state: JobState, outcome: Outcome) -> None:
    """By this side's own reasons."""
    assert outcome_of(code, state) is outcome


@pytest.mark.parametrize(
    ("code", "chunks", "outcome"),
    [
        ("engine.crashed", 0, Outcome.FAILED),
        ("engine.overloaded", 0, Outcome.REFUSED),
        ("engine.overloaded", 1, Outcome.FAILED),
        ("request.cancelled", 0, Outcome.FAILED),
        ("channel.advance_limit", 3, Outcome.FAILED),
    ],
)
def test_a_provider_can_not_excuse_itself(code: str, chunks: int, outcome: Outcome) -> None:
    """Not with a code of ours either."""
    assert said_outcome(code, chunks) is outcome


def test_pace() -> None:
    """From the award to the first chunk, and from there to the last."""
    pace = Pace(1_000)
    assert (pace.ttft_ns, pace.tokens_per_s_milli) == (0, 0)
    pace.saw(1, 1_000 + NS_PER_S)
    assert (pace.ttft_ns, pace.tokens_per_s_milli) == (NS_PER_S, 0)
    pace.saw(41, 1_000 + 3 * NS_PER_S)
    assert pace.tokens_per_s_milli == 20_000


# --- in a market -----------------------------------------------------------------------------


def standing_of(requester: Peer, provider: Peer) -> Standing:
    return requester.node.context.ledger.reputation.standing(key_of(provider), MODEL)


def test_a_delivered_job_is_logged_with_what_it_was_like() -> None:
    """Promises against measurements, and the price; a replay knows the same."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    standing = standing_of(requester, provider)
    assert (standing.completed, standing.failed) == (1, 0)
    assert 0 < standing.paid_ucr <= standing.cost_max_ucr
    assert standing.ttft_kept > 900
    assert standing.speed_kept > 900
    fold = Fold("sim", key_of(requester))
    for number, payload in requester.log:
        fold.replay(number, payload)
    assert fold.ledger.reputation.standings == requester.node.context.ledger.reputation.standings


def test_feedback_through_the_node() -> None:
    """Logged when the receipt is known, else nothing."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    (done,) = requester.heard(events.Done)
    world.give(requester, act.GiveFeedback(bytes(32), 1))
    world.give(requester, act.GiveFeedback(done.receipt_id, 2))
    world.run(NS_PER_S)
    assert standing_of(requester, provider).disliked == 1


def test_each_failure_is_held_against_who_did_it() -> None:
    """A liar, one that never answers, and the one that served in the end."""
    world = make_world(3)
    good, silent, liar, requester = world.peers
    tamper(world, liar, Chunk, lambda chunk: replace(chunk, due_ucr=chunk.due_ucr + 1))
    when_job_starts(world, silent, lambda _: world.crash(silent))
    world.give(requester, make_ask())
    world.run(30 * NS_PER_S)
    counts = [
        (one.completed, one.failed, one.lied)
        for one in (standing_of(requester, peer) for peer in (good, silent, liar))
    ]
    assert counts == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_a_crash_in_mid_stream_is_a_failure() -> None:
    """And what was paid for its text is in the record."""
    world = make_world()
    provider, requester = world.peers
    break_engine(world, provider, 500 * NS_PER_MS)
    world.give(requester, make_ask(tokens=200))
    world.run(10 * NS_PER_S)
    standing = standing_of(requester, provider)
    assert (standing.failed, standing.completed) == (1, 0)
    assert standing.paid_ucr == requester.node.context.ledger.balance().spent_ucr > 0
