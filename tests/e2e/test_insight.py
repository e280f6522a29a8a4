"""Quotes, explanations, feedback and idempotency against real daemons.

Source: peer/gateway/README.md, "Quotes and explanations" and "Once".
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.e2e.support import Daemon, Market, provider_flags, run_json

ASKED: Any = {
    "model": "embedded",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 20,
    "peerd": {"window_ms": 200},
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("insight"), stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags(steps_per_s_max=200))
        yield market.requester


@pytest.fixture(scope="module")
def http(api: Daemon) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.ready["api"], timeout=60) as client:
        yield client


def test_a_quote_costs_nothing_and_holds(http: httpx.Client, api: Daemon) -> None:
    """The job costs no more than was quoted; the quote moved no money."""
    quote = http.post("/quote", json=ASKED).json()
    assert quote["bids"][0]["cost_max_ucr"] == quote["cost_max_ucr"] > 0
    assert api.channels() == []
    answer = http.post("/chat/completions", json=ASKED).json()
    assert 0 < answer["peerd"][0]["cost_ucr"] <= quote["cost_max_ucr"]


def test_a_cap_that_is_too_low_says_by_how_much(http: httpx.Client) -> None:
    most = http.post("/quote", json=ASKED).json()["cost_max_ucr"]
    body = {**ASKED, "peerd": {"window_ms": 200, "max_price": f"0.{most - 3:06}"}}
    answer = http.post("/chat/completions", json=body)
    assert answer.status_code == 402, answer.text
    said = f"{most / 1e6:.6f}".rstrip("0") + " credits are asked, 0.000003 over the cap"
    assert said in answer.json()["error"]["message"]
    assert answer.headers["x-peerd-short-ucr"] == "3"


def test_the_same_key_is_billed_once(http: httpx.Client, api: Daemon) -> None:
    """Whole and as a stream: the same bytes, and the channel's due does not move again."""
    for stream in (False, True):
        body = {**ASKED, "stream": stream}
        key = {"Idempotency-Key": f"order-{stream}"}
        first = http.post("/chat/completions", json=body, headers=key)
        due = [channel["due_ucr"] for channel in api.channels()]
        again = http.post("/chat/completions", json=body, headers=key)
        assert (first.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert [channel["due_ucr"] for channel in api.channels()] == due
    other = http.post("/chat/completions", json={**ASKED, "max_tokens": 3}, headers=key)
    assert other.status_code == 422


def test_why_and_what_came_of_it(http: httpx.Client, api: Daemon) -> None:
    """By HTTP, by the command, and after a restart by the log; feedback moves the score."""
    cheapest = {**ASKED, "provider": {"sort": "price"}}
    answer = http.post("/chat/completions", json=cheapest)
    request = answer.headers["x-request-id"]
    found = http.get(f"/requests/{request}/explain").json()
    (award,) = found["awards"]
    assert (award["outcome"], found["paid_ucr"]) == ("delivered", award["paid_ucr"])
    assert found["bids"][0]["provider"] == award["provider"]
    assert http.get("/requests/abcdef01/explain").status_code == 404
    data = ("--data", str(api.directory))
    assert run_json("explain", request[:12], *data) == found
    (before,) = run_json("reputation", *data)["providers"]
    receipt = answer.headers["x-peerd-receipt"]
    after = run_json("feedback", receipt[:16], "bad", *data)["score"]
    assert after < before["score"]
    api.kill()
    lasting = run_json("explain", request[:12], *data)
    assert (lasting["source"], lasting["awards"][0]["outcome"]) == ("log", "delivered")
    rows = run_json("history", "--by", "strategy", *data)["by"]
    assert {"strategy": "cheapest", "jobs": 1}.items() <= rows[0].items()
    (kept,) = run_json("reputation", *data)["providers"]
    assert abs(kept["score"] - after) <= 1
