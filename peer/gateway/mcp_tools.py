"""The market as tools for other programs' models: the Model Context Protocol.

Served at /mcp by the gateway, and over stdin and stdout by `peerd mcp`. Rule:
peer/gateway/README.md, "MCP".
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from peer.client import AsyncClient
from peer.gateway.mcp_once import Ask, KeyedAsk
from protocol import limits
from protocol.errors import PeerdError

Json = dict[str, Any]
T = TypeVar("T")

PATH = "/mcp"

_INSTRUCTIONS = (
    "A market for LLM inference among peers. `ask` sends a prompt to the peer that wins and pays"
    " for its answer with this node's credits; `quote` says beforehand what it may cost."
)
_READS = ToolAnnotations(read_only_hint=True)
_PAYS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)

Prompt = Annotated[str, Field(max_length=limits.MESSAGE_TEXT_CHARS_MAX)]
Model = Annotated[str | None, Field(description="The node's default model if unset.")]
MaxTokens = Annotated[int, Field(ge=1, le=limits.OUTPUT_TOKENS_MAX)]
MaxPrice = Annotated[str | None, Field(description='Credits in a string, such as "0.05".')]
Temperature = Annotated[float, Field(ge=0, le=5)]
Key = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=limits.API_KEY_BYTES_MAX,
        description="A name for this question: asked again with it, it is not paid again.",
    ),
]
Last = Annotated[int, Field(ge=1, le=limits.HISTORY_JOBS_MAX)]


def mcp_server(
    client: AsyncClient,
    place: Callable[[], AbstractContextManager[None]] = nullcontext,
    once: Callable[[ASGIApp], ASGIApp] | None = None,
) -> "MCPServer[Any]":
    """The tools over a node; `place` is one among the requests that run at once, `once` what
    remembers those that have a key, where such can be had."""
    server: MCPServer[Any] = MCPServer(
        "peerd", instructions=_INSTRUCTIONS, version=version("peerd"), log_level="ERROR"
    )

    async def answered(**asked: Any) -> Json:
        with place():
            return (await client.ask(**asked)).report()

    _add_ask(server, answered, KeyedAsk(answered, once) if once is not None else None)

    @server.tool(annotations=_READS)
    async def list_models() -> Json:
        """List the models that peers offer now, with their lowest prices a million tokens."""
        return {"models": await _told(client.models())}

    @server.tool(annotations=_READS)
    async def quote(prompt: Prompt, model: Model = None, max_tokens: MaxTokens = 256) -> Json:
        """Say what an answer may cost, with the bids for it; nothing is bought."""
        named: Any = {"model": model}
        return await _told(client.quote(prompt, max_tokens=max_tokens, **named))

    @server.tool(annotations=_READS)
    async def history(last: Last = 20) -> Json:
        """List the last jobs that this node bought and sold, oldest first."""
        return {"jobs": await _told(client.history(last))}

    @server.tool(annotations=_READS)
    async def balance() -> Json:
        """Say what this node spent, earned, and has locked in channels, in ucr: 1,000,000 are a
        credit."""
        return await _told(client.balance())

    return server


def _add_ask(server: "MCPServer[Any]", answered: Ask, keyed: KeyedAsk | None) -> None:
    """The tool that pays; with a key where `keyed` can remember it."""

    async def ask(
        prompt: Prompt,
        model: Model = None,
        system: Prompt | None = None,
        max_tokens: MaxTokens = 256,
        temperature: Temperature = 0.0,
        max_price: MaxPrice = None,
    ) -> Json:
        """Ask a model of the market and pay for the answer; says the cost and the receipt."""
        more = {"model": model, "system": system, "max_price": max_price}
        asked = answered(prompt=prompt, max_tokens=max_tokens, temperature=temperature, **more)
        return await _told(asked)

    async def ask_once(
        context: Context[Any, Any],
        prompt: Prompt,
        model: Model = None,
        system: Prompt | None = None,
        max_tokens: MaxTokens = 256,
        temperature: Temperature = 0.0,
        max_price: MaxPrice = None,
        idempotency_key: Key = None,
    ) -> Json:
        """Ask a model of the market and pay for the answer; says the cost and the receipt."""
        key = idempotency_key or (context.headers or {}).get("idempotency-key")
        if not key or keyed is None:
            return await ask(prompt, model, system, max_tokens, temperature, max_price)
        more = {"model": model, "system": system, "max_price": max_price}
        asked = {"prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, **more}
        status, told = await keyed(key, asked)
        if status != 200:
            raise ToolError(f"{told['error']['code']} ({told['error']['message']})")
        return told

    server.tool(name="ask", annotations=_PAYS)(ask_once if keyed is not None else ask)


async def _told(asked: Awaitable[T]) -> T:
    """A call's result; its error in words that the other model can read."""
    try:
        return await asked
    except PeerdError as error:
        raise ToolError(str(error)) from error


def mcp_routes(server: "MCPServer[Any]", *, guarded: bool) -> list[BaseRoute]:
    """POST, GET and DELETE /mcp, while `server.session_manager` runs.

    `guarded` says that callers have shown a token: else only pages of this machine may call.
    """
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=limits.API_BODY_BYTES_MAX,
        max_sessions=limits.MCP_SESSIONS_MAX,
        session_idle_timeout=limits.MCP_IDLE_S,
        transport_security=security if guarded else None,
    )
    return list(app.routes)
