"""Explanations, standings and choices as a local program sees them, and what it may say.

Source: router/README.md, "Choosing" and "Reputation".
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from peer.choices import choice_of, choosing
from peer.config import RequesterConfig
from peer.identity import peer_id
from peer.insight import (
    explain_from_log,
    explanation_json,
    id_prefix,
    standings_json,
)
from protocol.errors import ConfigError, LocalError
from protocol.fields import Outcome, Strategy
from router.choosing import Choice, StrategyName
from router.counting import Counts
from router.explaining import Considered, Explanation, Explanations, Tried
from router.reputation import Reputation
from tests.router.support import make_ask
from tests.router.test_reputation import NOW_NS, PEER, judged

OTHER = bytes([8]) * 32


def considered(provider: bytes, score: int, code: str = "") -> Considered:
    return Considered(
        *(provider, False, 15, 60, 10**6, 50_000, 900, 1_350, Counts(1_000, 1_500)),
        *(10**9, score, 500),
        *(False, 5_000_000, code, "why" if code else ""),
    )


def test_an_explanation_reads_best_first_refused_last() -> None:
    """Plain JSON, with peer ids, and nothing of the prompt."""
    found = Explanation(bytes([3]) * 32, make_ask(choice=Choice(600, 300)), NOW_NS, 800)
    found.add(considered(PEER, 1, "bid.off_market"))
    found.add(considered(PEER, 9))
    found.add(considered(OTHER, 5))
    found.tried = [Tried(OTHER, 7, Outcome.FAILED, "award.timeout", 3), Tried(PEER, 9)]
    told = json.loads(json.dumps(explanation_json(found)))
    assert [(bid["score"], bid["refused"]) for bid in told["bids"]] == [
        (5, None),
        (9, None),
        (1, "bid.off_market"),
    ]
    assert told["awards"][0]["outcome"] == "failed"
    assert told["awards"][1]["outcome"] is None
    assert (told["paid_ucr"], told["ended"], told["median_ucr"]) == (3, False, 800)
    assert told["weights"]["reputation"] == 600
    assert (told["bids"][0]["output_count"], told["bids"][0]["effective_ucr"]) == (1.5, 1_350)
    assert "hi" not in json.dumps(told).split('"')


def test_explanations_are_bounded_and_found_by_a_beginning() -> None:
    kept = Explanations(2)
    for number in range(3):
        kept.begin(bytes([number, 9]) + bytes(30), make_ask(), NOW_NS)
    assert kept.find(bytes([0, 9])) is None
    assert kept.find(bytes([2])) is not None
    assert kept.find(b"") is None  # of several, none
    assert Explanations(0).begin(bytes(32), make_ask(), NOW_NS) is None


def test_standings_are_listed_best_first() -> None:
    book = Reputation()
    book.apply(judged(Outcome.LIED))
    book.apply(judged(provider=OTHER))
    listed = standings_json(book, NOW_NS)
    assert [one["provider"] for one in listed] == [peer_id(OTHER), peer_id(PEER)]
    assert [one["ejected"] for one in listed] == [False, True]


@pytest.mark.parametrize("text", ["", "abcd", "xyzxyz", "ab" * 33, None, 5])
def test_what_is_no_id(text: Any) -> None:
    with pytest.raises(ConfigError):
        id_prefix(text, "request")


def test_a_node_that_never_ran_knows_no_request(tmp_path: Any) -> None:
    with pytest.raises(LocalError) as caught:
        explain_from_log(tmp_path, bytes(4))
    assert caught.value.code == "request.unknown"


@pytest.mark.parametrize(
    ("configured", "said", "strategy", "choice"),
    [
        ({}, {}, Strategy(500, 500), Choice(0, 0, 0, 5_000)),
        (
            {"strategy": "cheapest"},
            {},
            Strategy(1_000, 0),
            Choice(0, 0, 0, 5_000, strategy=StrategyName.CHEAPEST),
        ),
        (
            {"strategy": "cheapest"},
            {"price_weight": 100},
            Strategy(100, 900),
            Choice(0, 0, 0, 5_000),
        ),
        (
            {},
            {"strategy": "reputable", "completed_min": 2},
            Strategy(500, 500),
            Choice(1_000, 0, 2, 5_000, strategy=StrategyName.REPUTABLE),
        ),
        (
            {"market_factor_percent": 0},
            {"price_weight": 200, "reputation_weight": 600},
            Strategy(500, 500),
            Choice(600, 0, 0, 0),
        ),
        (
            {"strategy": "race"},
            {},
            Strategy(500, 500),
            Choice(0, 0, 0, 5_000, race=2, strategy=StrategyName.RACE),
        ),
        (
            {},
            {"strategy": "race", "race": 3},
            Strategy(500, 500),
            Choice(0, 0, 0, 5_000, race=3, strategy=StrategyName.RACE),
        ),
        (
            {"race": 4, "fallbacks": True},
            {"strategy": "fastest", "fallbacks": False},
            Strategy(0, 1_000),
            Choice(
                0,
                0,
                0,
                5_000,
                race=4,
                elsewhere=False,
                fallbacks=False,
                strategy=StrategyName.FASTEST,
            ),
        ),
    ],
)
def test_what_is_said_goes_before_what_is_configured(
    configured: dict[str, Any], said: dict[str, Any], strategy: Strategy, choice: Choice
) -> None:
    """Weights mean `weighted`, whatever is configured."""
    hedged = replace(choice, hedge_factor_milli=2_000, hedge_floor_ns=10**9)
    assert choice_of(**choosing(RequesterConfig(**configured), said)) == (strategy, hedged)
    said = {**said, "hedge_percent": 0}
    plain = replace(hedged, hedge_factor_milli=0)
    assert choice_of(**choosing(RequesterConfig(**configured), said)) == (strategy, plain)


def test_weights_over_the_whole_are_refused() -> None:
    with pytest.raises(ConfigError, match="1000"):
        choice_of(**choosing(RequesterConfig(), {"price_weight": 600, "reputation_weight": 600}))


def test_an_explanation_is_no_error_to_the_control_socket() -> None:
    """A line with `error` ends a call, one with `end` too: neither is a name in it."""
    found = explanation_json(Explanation(bytes(32), make_ask(), NOW_NS))
    assert not {"error", "end"} & found.keys()
