"""MCP's `ask` under a key: done once, as a POST with an `Idempotency-Key` is, and told again.

A call of the tool is a request of its own behind `Once`: its arguments are the body, whatever the
number of the call and its session. Rule: peer/gateway/README.md, "MCP", "Once".
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peer.client import AskFailed
from peer.gateway.app import error_response
from peer.gateway.failures import COST_HEADER
from peer.gateway.once import KEY_HEADER
from protocol.errors import PeerdError

Json = dict[str, Any]
Ask = Callable[..., Awaitable[Json]]

_PATH: Final = "/mcp/ask"  # keys of other paths are others


class KeyedAsk:
    """`ask` by its keyword arguments, under a key; `once` is what remembers."""

    def __init__(self, ask: Ask, once: Callable[[ASGIApp], ASGIApp]) -> None:
        self._ask = ask
        self._app = once(self._serve)

    async def __call__(self, key: str, arguments: Json) -> tuple[int, Json]:
        """The status and the body of the answer: what `ask` gives, or an error as over HTTP."""
        waiting = [json.dumps(arguments, sort_keys=True).encode()]
        status, body = 0, bytearray()

        async def receive() -> Message:
            if not waiting:
                await trio.sleep_forever()
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            body.extend(message.get("body", b""))

        headers = [(KEY_HEADER, key.encode())]
        scope = {"type": "http", "method": "POST", "path": _PATH, "headers": headers}
        await self._app(scope, receive, send)
        return status, json.loads(body)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        arguments = await Request(scope, receive).json()
        response: Response
        try:
            response = JSONResponse(await self._ask(**arguments))
        except PeerdError as error:
            paid_ucr = error.paid_ucr if isinstance(error, AskFailed) else 0
            # One that was paid for is remembered by this header.
            response = error_response(error, {COST_HEADER: str(paid_ucr)} if paid_ucr else None)
        await response(scope, receive, send)
