"""What Prometheus reads: the format, base units, and labels that nobody can make many of.

Source: peer/gateway/metrics.py; https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

import re
from typing import Any

import pytest

from peer.gateway.metrics import Counted, HttpCounts, exposition

STATUS: dict[str, Any] = {
    "peers": ["a", "b"],
    "topic_peers": 1,
    "running_jobs": 3,
    "bids": {"sent": 8, "withheld": 9, "not_made": {"bid.too_slow": 2}},
    "open_requests": 4,
    "records": 5,
    "balance": {
        "spent_ucr": 1_500_000,
        "earned_ucr": 1,
        "cheques_ucr": 7,
        "locked_ucr": 0,
        "unpaid_ucr": 0,
        "net_ucr": 0,
    },
    "served": {
        'a"\\\nb': {"jobs": 7, "failed": 1, "input_tokens": 20, "output_tokens": 30},
    },
}
LINE = re.compile(
    r"# (HELP|TYPE) peerd_[a-z_]+ \S.*|"
    r'peerd_[a-z_]+(\{[a-z]+="([^"\\\n]|\\.)*"(,[a-z]+="([^"\\\n]|\\.)*")*\})? [0-9.e+-]+'
)


async def answer(counts: HttpCounts, path: str, status: int | None) -> None:
    """One request of a path that answers with this status; None: the client leaves."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if status is None:
            raise ConnectionError
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def nothing(*_: Any) -> None:
        return None

    counted = Counted(app, ["/v1/models", "/rpc"], counts)
    await counted({"type": "http", "path": path}, nothing, nothing)  # type: ignore[arg-type]


async def test_every_line_is_of_the_format() -> None:
    counts = HttpCounts()
    await answer(counts, "/rpc", 200)
    text = exposition(STATUS, counts)
    assert text.endswith("\n")
    for line in text.splitlines():
        assert LINE.fullmatch(line), line
    assert "peerd_peers 2\n" in text
    assert "peerd_bids_withheld_total 9\n" in text
    assert 'peerd_bids_not_made_total{code="bid.too_slow"} 2\n' in text
    assert "peerd_spent_credits_total 1.5\n" in text
    assert 'peerd_served_jobs_total{model="a\\"\\\\\\nb"} 7\n' in text


async def test_counters_say_so_in_their_names() -> None:
    for line in exposition(STATUS, HttpCounts()).splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert (kind == "counter") == name.endswith("_total")
            assert not re.search(r"_(ms|ns|ucr)(_|$)", name)


async def test_strange_paths_are_one() -> None:
    counts = HttpCounts()
    for path in ("/a", "/b", "/v1/models/x"):
        await answer(counts, path, 404)
    await answer(counts, "/v1/models", 200)
    with pytest.raises(ConnectionError):
        await answer(counts, "/v1/models", None)
    assert dict(counts.requests) == {
        ("other", 404): 3,
        ("/v1/models", 200): 1,
        ("/v1/models", 0): 1,
    }
    assert set(counts.spent_ns) == {"other", "/v1/models"}
