"""`peerd demo --json`: the whole market on this machine, judged by what it prints.

Source: README, "Two commands".
"""

import json

import pytest

from tests.e2e.support import Json, run

FIELDS = (
    *("bids", "award", "answer", "input_tokens", "output_tokens", "cost_ucr"),
    *("receipt_ok", "logs_ok", "balances", "timings_ms"),
)
TIMINGS = ("request_to_first_bid", "request_to_award", "request_to_first_token", "total")


@pytest.fixture(scope="module")
def result() -> Json:
    """What one run of the demo prints; its exit status is 0."""
    done = run("demo", "--json", "--max-tokens", "48")
    assert done.returncode == 0, (done.stdout, done.stderr)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_every_check_holds(result: Json) -> None:
    """All that the demo checks of itself, and the two verdicts that stand beside the checks."""
    assert result["checks"]
    assert all(result["checks"].values()), result["checks"]
    assert (result["ok"], result["receipt_ok"], result["logs_ok"]) == (True, True, True)
    assert result["error"] is None


def test_every_field_is_there(result: Json) -> None:
    """The object has each field, and none is empty."""
    for field in FIELDS:
        assert result[field] not in (None, "", [], {}), field
    assert set(result["timings_ms"]) == set(TIMINGS)


def test_bids_and_award(result: Json) -> None:
    """Three providers bid at different prices; the award goes to the lowest score."""
    bids = result["bids"]
    assert len({bid["provider"] for bid in bids}) == 3
    assert len({bid["output_price_ucr"] for bid in bids}) == 3
    best = min(bids, key=lambda bid: bid["score"])
    assert result["award"]["provider"] == best["provider"] == result["receipt"]["payee"]


def test_cost_follows_from_tokens_and_bid(result: Json) -> None:
    """The price is exactly the tokens at the winner's prices, rounded up, and is all paid."""
    winner = result["award"]["provider"]
    (bid,) = [bid for bid in result["bids"] if bid["provider"] == winner]
    exact = (
        result["input_tokens"] * bid["input_price_ucr"]
        + result["output_tokens"] * bid["output_price_ucr"]
    )
    assert result["cost_ucr"] == -(-exact // 1_000_000) > 0
    assert result["vouchers"][-1]["total_ucr"] >= result["cost_ucr"]
    totals = [voucher["total_ucr"] for voucher in result["vouchers"]]
    assert totals == sorted(set(totals))
    assert 0 < result["output_tokens"] <= 48


def test_balances_are_a_sum_of_zero(result: Json) -> None:
    """What the requester spent is what one provider earned, and nothing is locked."""
    balances = result["balances"]
    assert len(balances) == 4
    assert balances["requester"]["spent_ucr"] == result["cost_ucr"]
    assert sorted(one["earned_ucr"] for one in balances.values()) == [0, 0, 0, result["cost_ucr"]]
    assert sum(one["net_ucr"] for one in balances.values()) == 0
    assert all(one["locked_ucr"] == one["unpaid_ucr"] == 0 for one in balances.values())


def test_timings_are_in_order(result: Json) -> None:
    """A bid before the award, the award before text, text before the end."""
    timings = [result["timings_ms"][name] for name in TIMINGS]
    assert timings == sorted(timings)
    assert timings[0] > 0
