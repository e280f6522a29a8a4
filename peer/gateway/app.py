"""The gateway's paths: who may call, what body, which answer.

A page in a browser must not be able to spend this node's money: without a token only the
machine's own addresses are taken as Host, and a body has to be declared as JSON, which no page
of another origin can do unasked. Rule: peer/gateway/README.md.
"""

import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from peer import cheque_headers
from peer.config import RequesterConfig
from peer.gateway.asks import Wanted, chat_asks, completion_asks, embedding_asks
from peer.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody, parse_body
from peer.gateway.exchange import Exchange, Market
from peer.gateway.failures import ApiError, error_headers, error_json, status_of
from peer.gateway.openapi import openapi_document
from peer.offered import Model
from protocol import limits
from protocol.errors import PeerdError

Json = dict[str, Any]

_CONNECT_S = 5.0
CHEQUES_PATH = "/v1/cheques"
_CHEQUE_NAMES = tuple(name.lower().encode() for name in cheque_headers.NAMES)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Gateway:
    """The handlers, over one node."""

    def __init__(
        self, market: Market, models: Callable[[], list[Model]], defaults: RequesterConfig
    ) -> None:
        self._market = market
        self._models = models
        self._defaults = defaults
        self._running = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the requests that run at once. ApiError `api.too_many`."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Take a place. ApiError `api.too_many`."""
        if self._running >= limits.API_REQUESTS_MAX:
            raise ApiError("api.too_many")
        self._running += 1

    def leave(self) -> None:
        """Give it back."""
        self._running -= 1

    async def _exchange(self, wanted: Wanted) -> Exchange:
        if not await self._market.wait_connected(_CONNECT_S):
            raise ApiError("request.not_connected")
        self.enter()
        return Exchange(self._market, wanted, self.leave)

    async def chat(self, request: Request) -> Exchange:
        """POST /v1/chat/completions"""
        body = parse_body(await read_body(request), ChatBody)
        return await self._exchange(chat_asks(body, self._defaults))

    async def completion(self, request: Request) -> Exchange:
        """POST /v1/completions"""
        body = parse_body(await read_body(request), CompletionBody)
        return await self._exchange(completion_asks(body, self._defaults))

    async def embeddings(self, request: Request) -> Exchange:
        """POST /v1/embeddings"""
        body = parse_body(await read_body(request), EmbeddingBody)
        return await self._exchange(embedding_asks(body, self._defaults))

    async def models(self, request: Request) -> JSONResponse:
        """GET /v1/models"""
        listed = [_model_json(model) for model in self._models()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> JSONResponse:
        """GET /v1/models/{name}"""
        name = request.path_params["name"]
        for model in self._models():
            if model.name == name:
                return JSONResponse(_model_json(model))
        raise ApiError("api.unknown_model", name[: limits.MODEL_NAME_CHARS_MAX], param="model")

    async def health(self, request: Request) -> JSONResponse:
        """GET /healthz: the process answers."""
        return JSONResponse({"status": "ok"})

    async def openapi(self, request: Request) -> JSONResponse:
        """GET /openapi.json"""
        return JSONResponse(openapi_document())

    def asking(self) -> dict[str, Callable[[Request], Awaitable[Exchange]]]:
        """The paths to which a job is posted."""
        return {
            "/v1/chat/completions": self.chat,
            "/v1/completions": self.completion,
            "/v1/embeddings": self.embeddings,
        }

    def routes(self) -> list[Route]:
        """All paths."""
        return [
            *(Route(path, handle, methods=["POST"]) for path, handle in self.asking().items()),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]


def _model_json(model: Model) -> Json:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "peerd",
        "providers": model.providers,
        "context_length": model.context_tokens,
        "quantizations": list(model.quantizations),
        "pricing": {
            "prompt_ucr_per_million": model.input_price_ucr,
            "completion_ucr_per_million": model.output_price_ucr,
        },
    }


async def read_body(request: Request) -> bytes:
    """The body, within its bound. ApiError `api.wrong_content_type`, `api.too_large`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError("api.wrong_content_type", kind[:60])
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limits.API_BODY_BYTES_MAX:
            raise ApiError("api.too_large")
    return bytes(data)


class Guard:
    """Lets in who has the token; without one, only who calls this machine by its own name.

    Who pays by cheque needs neither, and gets `cheques` alone, which spend nothing of this node.
    """

    def __init__(self, app: ASGIApp, token: str | None, cheques: ASGIApp | None = None) -> None:
        self._app = app
        self._token = token
        self._cheques = cheques

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            headers = {name.lower(): value for name, value in scope["headers"]}
            if self._cheques is not None and for_cheques(scope["path"], headers):
                await self._cheques(scope, receive, send)
                return
            refused = self._refusal(scope["path"], headers)
            if refused is not None:
                await error_response(refused)(scope, receive, send)
                return
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        if path in ("/healthz", "/readyz"):
            return None
        if self._token is not None:
            sent = headers.get(b"authorization", b"")
            if hmac.compare_digest(sent, b"Bearer " + self._token.encode()):
                return None
            return ApiError("api.bad_token")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return None if name in _LOOPBACK else ApiError("api.forbidden_host", host[:60])


def for_cheques(path: str, headers: dict[bytes, bytes]) -> bool:
    """Whether a request is the cheque desk's: it asks for its terms, or means to pay by one."""
    return path == CHEQUES_PATH or any(name in headers for name in _CHEQUE_NAMES)


def error_response(error: PeerdError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error in OpenAI's shape."""
    status = status_of(error.code)
    param = error.param if isinstance(error, ApiError) else None
    body = error_json(error.code, error.detail, param)
    return JSONResponse(body, status, {**error_headers(error), **(headers or {})})


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PeerdError)
    return error_response(error)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = "api.wrong_method" if error.status_code == 405 else "api.not_found"
    found = ApiError(code, f"{request.method} {request.url.path}"[:120])
    return error_response(found, error.headers)


EXCEPTIONS: dict[Any, Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    PeerdError: _on_error,
    HTTPException: _on_http_error,
}


class Asking:
    """Takes posted jobs past Starlette, whose ten layers each piece of an answer goes through."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._handlers = gateway.asking()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        posted = scope["type"] == "http" and scope["method"] == "POST"
        handle = self._handlers.get(scope["path"]) if posted else None
        if handle is None:
            await self._app(scope, receive, send)
            return
        answer: ASGIApp
        try:
            answer = await handle(Request(scope, receive))
        except PeerdError as error:
            answer = error_response(error)
        await answer(scope, receive, send)


def make_app(
    gateway: Gateway,
    token: str | None,
    more: Sequence[BaseRoute] = (),
    within: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    cheques: ASGIApp | None = None,
) -> ASGIApp:
    """The ASGI application, with `more` paths than OpenAI's, what goes `within` the guard, and
    what is beside it for who pays by cheque."""
    app = Starlette(routes=[*gateway.routes(), *more], exception_handlers=EXCEPTIONS)
    return Guard(within(Asking(app, gateway)), token, cheques)
