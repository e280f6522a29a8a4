"""The tool that pays, under a key. Source: peer/gateway/README.md, "MCP", "Once"."""

from functools import partial
from pathlib import Path
from typing import Any

import trio

from peer.client import AskFailed
from peer.gateway.mcp_once import KeyedAsk
from peer.gateway.once import Once
from peer.gateway.recordings import Recordings
from protocol.errors import NetworkError
from tests.peer.gateway.test_once import Keys

ASKED = {"prompt": "a", "max_tokens": 5}


class Market:
    """Answers with the number of the call, or fails as `error` says; behind Once."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        once = partial(Once, recordings=Recordings(nursery.start_soon, Keys(directory)))
        self.ask = KeyedAsk(self.answer, once)

    async def answer(self, **asked: Any) -> dict[str, Any]:
        self.calls.append(asked)
        if self.error is not None:
            raise self.error
        return {"answer": len(self.calls)}


async def test_a_key_is_answered_once(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The same answer, in whatever order the arguments come; other arguments are refused."""
    market = Market(nursery, tmp_path)
    for asked in (ASKED, {"max_tokens": 5, "prompt": "a"}):
        assert await market.ask("k", asked) == (200, {"answer": 1})
    status, told = await market.ask("k", {**ASKED, "max_tokens": 6})
    assert (status, told["error"]["code"]) == (422, "api.key_reused")
    assert await market.ask("other", ASKED) == (200, {"answer": 2})
    assert market.calls == [ASKED, ASKED]


async def test_after_a_restart_it_is_on_disk(nursery: trio.Nursery, tmp_path: Path) -> None:
    first = Market(nursery, tmp_path)
    await first.ask("k", ASKED)
    again = Market(nursery, tmp_path)
    assert await again.ask("k", ASKED) == (200, {"answer": 1})
    assert again.calls == []


async def test_what_was_paid_is_remembered_and_what_cost_nothing_is_not(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    market = Market(nursery, tmp_path)
    market.error = NetworkError("request.not_connected")
    for _ in range(2):
        assert (await market.ask("k", ASKED))[1]["error"]["code"] == "request.not_connected"
    assert len(market.calls) == 2
    market.error = AskFailed("chunk.stalled", "", 7)
    for _ in range(2):
        assert (await market.ask("k", ASKED))[1]["error"]["code"] == "chunk.stalled"
    assert len(market.calls) == 3
