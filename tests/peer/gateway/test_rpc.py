"""JSON-RPC 2.0: the specification's cases, over a node of a few scripted methods.

Source: peer/gateway/rpc.py; https://www.jsonrpc.org/specification.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from peer.client import AsyncClient
from peer.client.lines import DirectLine
from peer.config import RequesterConfig
from peer.control import Answer
from peer.gateway.failures import ApiError
from peer.gateway.rpc import Rpc
from protocol import limits
from protocol.errors import LocalError, StorageError

Json = dict[str, Any]
RECEIPT = {"receipt_id": "ab" * 32, "cost_ucr": 7, "input_tokens": 3, "output_tokens": 2}


async def ask(params: Json, answer: Answer) -> None:
    """Says the question back; a question "fail" fails and costs 5, "nobody" costs nothing."""
    text = params["messages"][-1][1]
    await answer({"event": "published", "request_id": "01"})
    if text in ("fail", "nobody"):
        paid_ucr = 5 if text == "fail" else 0
        code = "chunk.stalled" if paid_ucr else "request.no_bids"
        await answer({"event": "failed", "code": code, "detail": "", "paid_ucr": paid_ucr})
        return
    await answer({"event": "text", "text": text, "at_ms": 1.0})
    await answer({"event": "done", "receipt": RECEIPT})


async def models(params: Json, answer: Answer) -> None:
    await answer({"models": [{"name": "embedded"}]})


async def receipt(params: Json, answer: Answer) -> None:
    raise LocalError("receipt.unknown", str(params["receipt_id"]))


async def history(params: Json, answer: Answer) -> None:
    raise StorageError("storage.corrupt")


METHODS = {"ask": ask, "models": models, "receipt": receipt, "history": history}


async def call(data: bytes, *, full: bool = False) -> Any:
    """What a body is answered with."""

    @contextmanager
    def place() -> Iterator[None]:
        if full:
            raise ApiError("api.too_many")
        yield

    async with trio.open_nursery() as nursery:
        client = AsyncClient(line=DirectLine(METHODS, nursery), defaults=RequesterConfig())
        return await Rpc(client, place).answer(data)


def request(method: str, params: Any = None, **more: Any) -> Json:
    value = {"jsonrpc": "2.0", "id": 1, "method": method}
    return {**value, **({} if params is None else {"params": params}), **more}


async def said(value: Any) -> Any:
    return await call(json.dumps(value).encode())


@pytest.mark.parametrize("params", [{"input": "hello"}, ["hello"], ["hello", "embedded", {}]])
async def test_a_result_by_name_and_by_place(params: Any) -> None:
    answer = await said(request("inferenceRequest", params, id="x"))
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", "x")
    assert answer["result"]["answer"] == "hello"
    assert answer["result"]["cost_ucr"] == 7


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", -32700),
        (b'{"jsonrpc": "2.0", "method"', -32700),
        (b'{"jsonrpc": "2.0", "id": NaN, "method": "listModels"}', -32700),
        (b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "listModels"}', -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b'{"jsonrpc": "2.0"}', -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "listModels"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "listModels"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "listModels"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "listModels", "params": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "nothing"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "listModels", "params": [1]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "inferenceRequest"}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "inferenceRequest", "params": [5]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getReceipt", "params": ["00"]}', -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "getInferenceHistory"}', -32603),
    ],
)
async def test_an_error_has_its_code(data: bytes, code: int) -> None:
    answer = await call(data)
    assert answer["error"]["code"] == code
    assert answer["id"] == (1 if code > -32600 else answer["id"])
    assert "result" not in answer


async def test_a_market_s_failure_says_what_was_paid() -> None:
    answer = await said(request("inferenceRequest", ["fail"]))
    assert answer["error"]["code"] == -32000
    said_so = {"code": "chunk.stalled", "detail": "", "paid_ucr": 5, "short_ucr": 0}
    assert answer["error"]["data"] == said_so
    full = await call(json.dumps(request("inferenceRequest", ["a"])).encode(), full=True)
    assert full["error"]["data"]["code"] == "api.too_many"


async def test_wrong_parameters_name_the_one_that_was_meant() -> None:
    answer = await said(request("inferenceRequest", ["a", None, {"max_token": 1}]))
    assert "did you mean max_tokens?" in answer["error"]["data"]["detail"]
    assert answer["error"]["code"] == -32602


async def test_a_batch_is_answered_in_order_without_its_notifications() -> None:
    notice = {"jsonrpc": "2.0", "method": "inferenceRequest", "params": ["told"]}
    answers = await said([request("listModels"), notice, 1, request("nothing", id=None)])
    assert [answer["id"] for answer in answers] == [1, None, None]
    assert [answer.get("error", {}).get("code") for answer in answers] == [None, -32600, -32601]
    assert await said([notice, notice]) is None
    assert await said(notice) is None
    many = [request("listModels")] * (limits.RPC_BATCH_MAX + 1)
    assert (await said(many))["error"]["code"] == -32600


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
CALLS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "method": st.sampled_from(["inferenceRequest", "getReceipt", "listModels", "nothing"]),
    },
    optional={"id": VALUES, "params": VALUES},
)


@given(VALUES | CALLS | st.lists(CALLS, max_size=3))
def test_any_value_is_answered_by_the_specification(value: Any) -> None:
    answer = trio.run(said, value)
    for one in answer if isinstance(answer, list) else [answer]:
        if one is not None:
            assert one["jsonrpc"] == "2.0"
            assert ("result" in one) != ("error" in one)
            assert "id" in one
