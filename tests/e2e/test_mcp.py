"""The official client against the tools: over HTTP, over stdin and stdout, and as its own node.

Source: peer/gateway/README.md, "MCP".
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.support import (
    NETWORK,
    PATIENCE_S,
    PROMPT,
    Daemon,
    Market,
    command,
    environment,
    provider_flags,
    until,
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks, with its gateway on; a provider sells beside it."""
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("mcp"), stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags(steps_per_s_max=200))
        models = httpx.Client(base_url=market.requester.ready["api"])
        stack.enter_context(models)
        until(lambda: models.get("/models").json()["data"], "the offer is heard")
        yield market.requester


def value(result: Any) -> Any:
    """What a tool gave, by its structured content, which its text repeats."""
    assert not result.is_error, result
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def stdio(*flags: str) -> StdioServerParameters:
    run, *arguments = command("mcp", *flags)
    return StdioServerParameters(command=run, args=arguments, env=environment())


async def use(client: Client) -> None:
    """Every tool once, and the ways to be refused."""
    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(listed) == {"ask", "list_models", "quote", "history", "balance"}
    assert listed["balance"].annotations.read_only_hint
    assert not listed["ask"].annotations.read_only_hint
    (model,) = value(await client.call_tool("list_models", {}))["models"]
    assert model["name"] == "embedded"
    quoted = value(await client.call_tool("quote", {"prompt": PROMPT, "max_tokens": 40}))
    answer = value(await client.call_tool("ask", {"prompt": PROMPT, "max_tokens": 40}))
    assert "Paris" in answer["answer"]
    assert 0 < answer["cost_ucr"] <= quoted["cost_max_ucr"]
    history = value(await client.call_tool("history", {"last": 1}))["jobs"]
    assert [job["receipt_id"] for job in history] == [answer["receipt_id"]]
    assert value(await client.call_tool("balance", {}))["spent_ucr"] >= answer["cost_ucr"]
    for tool, arguments, said in [
        ("quote", {"prompt": "a", "model": "none"}, "request.unknown_model"),
        ("ask", {"prompt": "a", "max_price": "much"}, "config.bad_value"),
        ("ask", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ]:
        refused = await client.call_tool(tool, arguments)
        assert refused.is_error
        assert said in refused.content[0].text


async def test_over_http(api: Daemon) -> None:
    async with Client(api.ready["api"].removesuffix("/v1") + "/mcp") as client:
        await use(client)


async def test_a_key_buys_one_answer(api: Daemon) -> None:
    """As an argument, also in another session, or as the header of all its calls."""
    url = api.ready["api"].removesuffix("/v1") + "/mcp"
    asked = {"prompt": PROMPT, "max_tokens": 20, "idempotency_key": "one"}
    async with Client(url) as client:
        first = value(await client.call_tool("ask", asked))
    due = [channel["due_ucr"] for channel in api.channels()]
    headers = {"Idempotency-Key": "one"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        assert value(await client.call_tool("ask", asked)) == first
        asked.pop("idempotency_key")
        assert value(await client.call_tool("ask", asked)) == first
        refused = await client.call_tool("ask", {**asked, "max_tokens": 21})
    assert "api.key_reused" in refused.content[0].text
    assert [channel["due_ucr"] for channel in api.channels()] == due


async def test_over_stdin_and_stdout(api: Daemon) -> None:
    async with Client(stdio("--data", str(api.directory))) as client:
        await use(client)


async def test_as_a_node_of_its_own(api: Daemon, tmp_path: Path) -> None:
    """Without a key and a daemon; a neighbour tells it at once what is offered."""
    flags = ("--data", str(tmp_path), "--bootstrap", api.address, "--network", NETWORK)
    async with Client(stdio(*flags)) as client:
        with trio.fail_after(PATIENCE_S):
            while not value(await client.call_tool("list_models", {}))["models"]:  # noqa: ASYNC110
                await trio.sleep(0.05)
        await use(client)


def test_a_page_of_another_site_may_not(api: Daemon) -> None:
    url = api.ready["api"].removesuffix("/v1") + "/mcp"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"accept": "application/json, text/event-stream"}
    strange = {**accept, "origin": "http://example.org"}
    assert httpx.post(url, json=call, headers=strange).status_code == 403
    assert httpx.post(url, json=call, headers={**accept, "host": "a.org"}).status_code == 403
