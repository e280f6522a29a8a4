"""Requests that are done once (`Idempotency-Key`), or later (`Prefer: respond-async`).

The first request with a key runs to its end, whether its client stays or not; later ones, and
those that come meanwhile, are played the recording. Who would rather not wait is told at once
where the answer will be. Rule: peer/gateway/README.md, "Once", "Later".
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from peer.gateway.app import error_response
from peer.gateway.exchange import while_there
from peer.gateway.failures import COST_HEADER, RETRY_AFTER_S, ApiError
from peer.gateway.recordings import Recording, Recordings
from protocol import limits
from protocol.errors import PeerdError

Json = dict[str, Any]

KEY_HEADER: Final = b"idempotency-key"
_REPLAYED: Final = (b"idempotent-replayed", b"true")
# Its sessions outlive the call that began them; its tool that buys has a Once of its own.
_WITHOUT: Final = ("/mcp",)
LATER: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_NAME_BYTES: Final = 32


class Once:
    """Records requests that have a key or can wait; passes on all others."""

    def __init__(self, app: ASGIApp, recordings: Recordings) -> None:
        self._app = app
        self._recordings = recordings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        key, later = b"", False
        post = scope["type"] == "http" and scope["method"] == "POST"
        if post and scope["path"] not in _WITHOUT:
            headers = {name.lower(): value for name, value in scope["headers"]}
            key = headers.get(KEY_HEADER, b"")
            later = scope["path"] in LATER and _can_wait(headers.get(b"prefer", b""))
        if not key and not later:
            await self._app(scope, receive, send)
            return
        try:
            body = await _whole_body(receive)
            if body is None:
                return
            made = self._recordings.key(scope["path"], key or secrets.token_bytes(16), body)
            recording, known = await self._recordings.begin(self._app, scope, made, body)
        except PeerdError as error:
            await error_response(error)(scope, receive, send)
            return
        if later:
            await _accepted(made.name, recording)(scope, receive, send)
        else:
            extra = (_REPLAYED,) if known else ()
            await Played(recording, extra)(scope, receive, send)


class Later:
    """What became of a request that nobody waits for: three paths."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    async def status(self, request: Request) -> Response:
        """GET /v1/requests/{id}"""
        name = _name(request)
        return JSONResponse(_status(name, await self._recordings.find(name)))

    async def answer(self, request: Request) -> "Response | Played":
        """GET /v1/requests/{id}/answer: as it was, or as it is made."""
        return Played(await self._recordings.find(_name(request)), (_REPLAYED,))

    async def drop(self, request: Request) -> Response:
        """DELETE /v1/requests/{id}"""
        name = _name(request)
        await self._recordings.find(name)
        await self._recordings.drop(name)
        return Response(status_code=204)

    def routes(self) -> list[Route]:
        """All three."""
        return [
            Route("/v1/requests/{id}", self.status, methods=["GET"]),
            Route("/v1/requests/{id}", self.drop, methods=["DELETE"]),
            Route("/v1/requests/{id}/answer", self.answer, methods=["GET"]),
        ]


class Played:
    """A recording as an ASGI response."""

    def __init__(self, recording: Recording, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._recording = recording
        self._extra = extra

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, to the end of what is recorded; an error if it ended before it began."""

        async def play() -> None:
            if not await self._recording.play(send, self._extra):
                await error_response(ApiError("request.cancelled"))(scope, receive, send)

        await while_there(receive, play)


def _can_wait(prefer: bytes) -> bool:
    """Whether a Prefer header (RFC 7240) has `respond-async`."""
    return any(
        part.partition(b";")[0].strip().lower() == b"respond-async" for part in prefer.split(b",")
    )


def _name(request: Request) -> bytes:
    """What a path's id stands for. ApiError `request.unknown`."""
    text = request.path_params["id"]
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != _NAME_BYTES:
        raise ApiError("request.unknown", text[:12])
    return name


def _status(name: bytes, recording: Recording) -> Json:
    status = recording.status
    if not recording.done:
        state = "running"
    elif status is None:
        state = "cancelled"
    else:
        state = "completed" if status < 400 else "failed"
    cost, receipts = recording.header(COST_HEADER.encode()), recording.header(b"x-peerd-receipt")
    return {
        "id": name.hex(),
        "object": "request",
        "status": state,
        "http_status": status,
        "request_id": recording.header(b"x-request-id"),
        "cost_ucr": None if cost is None else int(cost),
        "receipt_ids": receipts.split(", ") if receipts else [],
    }


def _accepted(name: bytes, recording: Recording) -> JSONResponse:
    headers = {
        "location": f"/v1/requests/{name.hex()}",
        "preference-applied": "respond-async",
        "retry-after": str(RETRY_AFTER_S),
    }
    return JSONResponse(_status(name, recording), 202, headers)


async def _whole_body(receive: Receive) -> bytes | None:
    """The body; None when the client left. ApiError `api.too_large`."""
    data = bytearray()
    more: Any = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > limits.API_BODY_BYTES_MAX:
            raise ApiError("api.too_large")
    return bytes(data)
