"""What a request would cost, why one went where it went, and its receipt: beside OpenAI's.

Rule: peer/gateway/README.md, "Quotes and explanations".
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from peer.config import RequesterConfig
from peer.control import Method
from peer.gateway.app import read_body
from peer.gateway.asks import chat_asks, completion_asks
from peer.gateway.bodies import ChatBody, CompletionBody, parse_body, read_json
from peer.gateway.exchange import Market
from peer.gateway.failures import ApiError, failure
from peer.reports import event_json
from protocol.units import format_credits
from router import events

Json = dict[str, Any]

_CONNECT_S = 5.0


class Insight:
    """The three handlers, over a node and its control methods."""

    def __init__(
        self,
        market: Market,
        methods: dict[str, Method],
        defaults: RequesterConfig,
        place: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._market = market
        self._methods = methods
        self._defaults = defaults
        self._place = place

    async def explain(self, request: Request) -> JSONResponse:
        """GET /v1/requests/{id}/explain"""
        return JSONResponse(await self._call("explain", request_id=request.path_params["id"]))

    async def receipt(self, request: Request) -> JSONResponse:
        """GET /v1/receipts/{id}: signed by both ends."""
        return JSONResponse(await self._call("receipt", receipt_id=request.path_params["id"]))

    async def _call(self, method: str, **params: Any) -> Json:
        found: list[Json] = []

        async def answer(value: Json) -> None:
            found.append(value)

        await self._methods[method](params, answer)
        return found[0]

    async def quote(self, request: Request) -> JSONResponse:
        """POST /v1/quote: the body of a chat or a completion."""
        data = await read_body(request)
        value = read_json(data)
        if isinstance(value, dict) and "prompt" in value:
            wanted = completion_asks(parse_body(data, CompletionBody), self._defaults)
        else:
            wanted = chat_asks(parse_body(data, ChatBody), self._defaults)
        if not await self._market.wait_connected(_CONNECT_S):
            raise ApiError("request.not_connected")
        first = wanted.asks[0]
        ask = replace(
            first, ask_id=self._market.new_ask_id(), choice=replace(first.choice, quote=True)
        )
        request_id, quoted = b"", None
        with self._place():
            async with self._market.ask(ask) as stream:
                async for event in stream:
                    if isinstance(event, events.Published):
                        request_id = event.request_id
                    elif isinstance(event, events.Quoted):
                        quoted = event
                    elif isinstance(event, events.Failed):
                        raise failure(event)
        assert quoted is not None
        most_ucr = len(wanted.asks) * quoted.bids[0].cost_max_ucr
        answer = {
            "object": "quote",
            "model": wanted.model,
            "request_id": request_id.hex(),
            "choices": len(wanted.asks),
            "cost_max_ucr": most_ucr,
            "cost_max": format_credits(most_ucr),
            "bids": event_json(quoted)["bids"],
        }
        return JSONResponse(answer)

    def routes(self) -> list[Route]:
        """All three."""
        return [
            Route("/v1/receipts/{id}", self.receipt, methods=["GET"]),
            Route("/v1/requests/{id}/explain", self.explain, methods=["GET"]),
            Route("/v1/quote", self.quote, methods=["POST"]),
        ]
