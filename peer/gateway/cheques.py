"""Answers of this node's own models for who pays by cheque, without the gateway's token.

The cheque is checked before the body is read, again with what it is for, and kept before any of
the answer leaves. Rule: peer/gateway/README.md, "Cheques".
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from peer.cheque_headers import has_cheque, read_headers
from peer.config import RequesterConfig
from peer.gateway.app import CHEQUES_PATH, EXCEPTIONS, read_body
from peer.gateway.asks import Wanted, chat_asks, completion_asks, embedding_asks
from peer.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody, parse_body, read_json
from peer.gateway.exchange import Exchange, Market
from peer.gateway.failures import ApiError
from peer.identity import peer_id
from protocol import signing, wire
from protocol.cheque import check_body
from protocol.errors import RemoteError
from protocol.fields import Cheque
from protocol.quantization import known
from protocol.records import ChequeCharged
from protocol.units import format_credits
from router import actions
from router.cheques import Cheques

Json = dict[str, Any]

_NONCE_DIGITS_MAX = 19


class Till(Market, Protocol):
    """What is needed of a node; `peer.daemon.Daemon` is one.

    It is not to stop in order before the `answering` are 0.
    """

    answering: int

    @property
    def cheques(self) -> Cheques:
        """What it takes, and for what."""
        ...

    def now_ns(self) -> int:
        """Unix time."""
        ...

    def ask(
        self, ask: actions.Ask | actions.ServeCheque
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Any]]:
        """As the market's; for a cheque, this node's own answer."""
        ...


class PaidByCheque:
    """The market as an `Exchange` has it, for one cheque: this node alone."""

    def __init__(self, till: Till, cheque: Cheque) -> None:
        self._till = till
        self._cheque = cheque

    def new_ask_id(self) -> int:
        """A number for the next question."""
        return self._till.new_ask_id()

    def ask(self, ask: actions.Ask) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Any]]:
        """The events of its answer."""
        return self._till.ask(
            actions.ServeCheque(
                ask.ask_id, self._cheque, ask.model, ask.prompt, ask.parameters, ask.timeout_ns
            )
        )

    async def wait_connected(self, timeout_s: float) -> bool:
        """At once: nobody else is asked."""
        return True


class ChequeDesk:
    """The paths that a cheque opens."""

    def __init__(
        self,
        till: Till,
        defaults: RequesterConfig,
        enter: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        self._till = till
        self._defaults = defaults
        self._enter = enter
        self._leave = leave

    def _cheque(self, headers: Mapping[str, str]) -> Cheque:
        """A request's cheque, as far as it is good by itself. RemoteError `cheque.` codes."""
        till = self._till
        cheque = read_headers(headers)
        till.cheques.check(cheque, till.now_ns())
        return cheque

    def _exchange(self, cheque: Cheque, wanted: Wanted) -> Exchange:
        _check_one(wanted)
        self._enter()
        self._till.answering += 1
        return Exchange(PaidByCheque(self._till, cheque), wanted, self._left)

    def _left(self) -> None:
        self._till.answering -= 1
        self._leave()

    async def chat(self, request: Request) -> Any:
        """POST /v1/chat/completions"""
        cheque = self._cheque(request.headers)
        body = parse_body(await _read(request, cheque), ChatBody)
        return self._exchange(cheque, chat_asks(body, self._defaults))

    async def completion(self, request: Request) -> Any:
        """POST /v1/completions"""
        cheque = self._cheque(request.headers)
        body = parse_body(await _read(request, cheque), CompletionBody)
        return self._exchange(cheque, completion_asks(body, self._defaults))

    async def embeddings(self, request: Request) -> Any:
        """POST /v1/embeddings"""
        cheque = self._cheque(request.headers)
        body = parse_body(await _read(request, cheque), EmbeddingBody)
        return self._exchange(cheque, embedding_asks(body, self._defaults))

    async def quote(self, request: Request) -> JSONResponse:
        """POST /v1/quote: what a cheque for this body has to be for; this one is not used up."""
        cheque = self._cheque(request.headers)
        data = await _read(request, cheque)
        value = read_json(data)
        kinds = value.keys() if isinstance(value, dict) else ()
        if "input" in kinds:
            wanted = embedding_asks(parse_body(data, EmbeddingBody), self._defaults)
        elif "prompt" in kinds:
            wanted = completion_asks(parse_body(data, CompletionBody), self._defaults)
        else:
            wanted = chat_asks(parse_body(data, ChatBody), self._defaults)
        _check_one(wanted)
        (ask,) = wanted.asks
        cheques = self._till.cheques
        most_ucr = cheques.quote(ask.model, ask.prompt, ask.parameters)
        bid = {"provider": peer_id(cheques.node), "cost_max_ucr": most_ucr, "score": 0}
        answer = {
            "object": "quote",
            "model": ask.model,
            "request_id": signing.cheque_id(cheques.network, cheque).hex(),
            "choices": 1,
            "cost_max_ucr": most_ucr,
            "cost_max": format_credits(most_ucr),
            "bids": [bid],
        }
        return JSONResponse(answer)

    async def terms(self, request: Request) -> JSONResponse:
        """GET /v1/cheques: who this node is, and its tariff, for anybody; with a cheque, which is
        not used up, what its user owes and may."""
        cheques = self._till.cheques
        user = None
        if has_cheque(request.headers):
            user = self._cheque(request.headers).user
        if not cheques.terms.total_ucr:
            raise RemoteError("cheque.not_taken", penalize=False)
        answer: Json = {
            "object": "cheques",
            "node": peer_id(cheques.node),
            "network": cheques.network,
            "newcomer_ucr": cheques.terms.newcomer_ucr,
            "models": [
                {
                    "id": offer.name,
                    "context_length": offer.context_tokens,
                    "quantization": known(offer.quantization),
                    "pricing": {
                        "prompt_ucr_per_million": offer.input_price_ucr,
                        "completion_ucr_per_million": offer.output_price_ucr,
                    },
                }
                for offer in cheques.offers()
            ],
        }
        if user is not None:
            account = cheques.account(user)
            answer["account"] = {
                "owed_ucr": account.owed_ucr,
                "running_ucr": account.at_risk_ucr - account.owed_ucr,
                "limit_ucr": cheques.limit_ucr(user),
            }
        return JSONResponse(answer)

    async def receipt(self, request: Request) -> JSONResponse:
        """GET /v1/cheques/{nonce}: what the user's cheque of this nonce was charged for.

        Asked with another cheque of the same key, which is not used up, over any amount. It has to
        be bound to the path, so that who read it on its way learns nothing else by it.
        """
        asked = request.path_params["nonce"]
        cheque = self._cheque(request.headers)
        if not cheque.body:
            raise RemoteError("cheque.wrong_body", "bind it to the path", penalize=False)
        check_body(cheque, request.url.path.encode())
        known_nonce = asked.isascii() and asked.isdigit() and len(asked) <= _NONCE_DIGITS_MAX
        charged = self._till.cheques.charged(cheque.user, int(asked)) if known_nonce else None
        if charged is None:
            raise RemoteError("cheque.unknown", asked[:_NONCE_DIGITS_MAX], penalize=False)
        return JSONResponse(_charge_json(charged))

    def app(self) -> ASGIApp:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completion, methods=["POST"]),
                Route("/v1/embeddings", self.embeddings, methods=["POST"]),
                Route("/v1/quote", self.quote, methods=["POST"]),
                Route(CHEQUES_PATH, self.terms, methods=["GET"]),
                Route(f"{CHEQUES_PATH}/{{nonce}}", self.receipt, methods=["GET"]),
            ],
            exception_handlers=EXCEPTIONS,
        )


def _charge_json(charged: ChequeCharged) -> Json:
    """What an answer cost, with the receipt as its answer had it; or why it has none."""
    receipt = charged.receipt
    return {
        "object": "charge",
        "nonce": charged.nonce,
        "cost_ucr": charged.cost_ucr,
        "cost": format_credits(charged.cost_ucr),
        "error": charged.code or None,
        "receipt_id": signing.receipt_id(receipt).hex() if receipt else None,
        "receipt": wire.encode(receipt).hex() if receipt else None,
        "signature": charged.payee_signature.hex() or None,
    }


async def _read(request: Request, cheque: Cheque) -> bytes:
    """The body, which has to be the cheque's. ApiError; RemoteError `cheque.wrong_body`."""
    data = await read_body(request)
    check_body(cheque, data)
    return data


def _check_one(wanted: Wanted) -> None:
    if len(wanted.asks) != 1:
        raise ApiError("api.unsupported", "one cheque pays for one answer: n = 1, or 16 texts")
