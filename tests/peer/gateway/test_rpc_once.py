"""JSON-RPC under an Idempotency-Key. Source: peer/gateway/README.md, "Once"."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.applications import Starlette

from peer.client import AsyncClient
from peer.client.lines import DirectLine
from peer.config import RequesterConfig
from peer.gateway.once import Once
from peer.gateway.recordings import Recordings
from peer.gateway.rpc import Rpc, rpc_route
from tests.peer.gateway.test_once import Keys
from tests.peer.gateway.test_rpc import METHODS, request


async def post(once: Once, value: Any) -> bytes:
    """The body of the answer to a call under a key."""
    waiting, got = [json.dumps(value).encode()], bytearray()

    async def receive() -> dict[str, Any]:
        if not waiting:
            await trio.sleep_forever()
        return {"type": "http.request", "body": waiting.pop(), "more_body": False}

    async def send(message: Any) -> None:
        got.extend(message.get("body", b""))

    headers = [(b"idempotency-key", b"k"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/rpc", "headers": headers}
    await once({**scope, "query_string": b"", "root_path": ""}, receive, send)
    return bytes(got)


@pytest.mark.parametrize(
    ("value", "runs"),
    [
        (request("inferenceRequest", ["a"]), 1),
        (request("inferenceRequest", ["fail"]), 1),  # paid for
        (request("inferenceRequest", ["nobody"]), 2),
        ([request("inferenceRequest", ["nobody"]), request("inferenceRequest", ["nobody"])], 4),
        ([request("inferenceRequest", ["nobody"]), request("inferenceRequest", ["a"])], 2),
    ],
)
async def test_a_failure_that_cost_nothing_is_forgotten(
    value: Any, runs: int, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Though its status is 200. A batch is kept if anything in it was bought."""
    asked: list[Any] = []

    async def counted(params: Any, answer: Any) -> None:
        asked.append(params)
        await METHODS["ask"](params, answer)

    line = DirectLine({**METHODS, "ask": counted}, nursery)
    rpc = Rpc(AsyncClient(line=line, defaults=RequesterConfig()), nullcontext)
    app = Starlette(routes=[rpc_route(rpc)])
    once = Once(app, Recordings(nursery.start_soon, Keys(tmp_path)))
    first = await post(once, value)
    assert await post(once, value) == first
    assert len(asked) == runs
