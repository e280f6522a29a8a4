"""JSON-RPC 2.0 at /rpc: one object or a batch in, results or errors by the specification.

Rule: peer/gateway/README.md, "JSON-RPC"; https://www.jsonrpc.org/specification.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from peer.client import AskFailed, AsyncClient
from peer.gateway.app import read_body
from peer.gateway.bodies import read_json
from peer.gateway.exchange import while_there
from peer.gateway.failures import FORGET_HEADER, ApiError
from protocol import limits
from protocol.errors import ConfigError, PeerdError, StorageError

Json = dict[str, Any]

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# Of the range that servers may use: the market's errors, `data.code` says which.
MARKET_ERROR: Final = -32000

_MEANING: Final = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
}
# Of ours, those that say that the caller's parameters were wrong.
_PARAMETERS: Final = ("config.bad_value", "control.bad_request", "receipt.unknown")


@dataclass(frozen=True, slots=True)
class _Call:
    """A method: what its parameters are called, in order, and what runs it."""

    parameters: tuple[str, ...]
    run: Callable[..., Awaitable[Any]]
    required: int = 0


class Rpc:
    """The methods, over a node; `place` is one among the requests that run at once."""

    def __init__(
        self, client: AsyncClient, place: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._client = client
        self._place = place
        self._calls: dict[str, _Call] = {
            "inferenceRequest": _Call(("input", "model", "parameters"), self._inference, 1),
            "getInferenceHistory": _Call(("last",), self._history),
            "listModels": _Call((), client.models),
            "getReceipt": _Call(("receipt_id",), client.receipt, 1),
            "getChannels": _Call((), self._channels),
        }

    async def _inference(
        self, input: Any, model: str | None = None, parameters: Any = None
    ) -> Json:
        if not isinstance(parameters, dict | None):
            raise ConfigError("config.bad_value", "parameters: an object")
        settings = dict(parameters or {})
        if model is not None:
            settings["model"] = model
        with self._place():
            return (await self._client.ask(input, **settings)).report()

    async def _history(self, last: int = 100) -> list[Json]:
        return await self._client.history(last)

    async def _channels(self) -> Json:
        channels = await self._client.channels()
        return {"channels": channels, "balance": await self._client.balance()}

    async def answer(self, data: bytes) -> Json | list[Json] | None:
        """The answer to a body; None when it asks for none."""
        try:
            value = read_json(data)
        except ApiError as error:
            return _error(None, PARSE_ERROR, error.detail)
        if not isinstance(value, list):
            return await self._one(value)
        if not value:
            return _error(None, INVALID_REQUEST, "an empty batch")
        if len(value) > limits.RPC_BATCH_MAX:
            return _error(None, INVALID_REQUEST, f"over {limits.RPC_BATCH_MAX} calls")
        answers = [await self._one(item) for item in value]
        return [answer for answer in answers if answer is not None] or None

    async def _one(self, value: Any) -> Json | None:
        """The answer to one call; None for a notification, which has no id."""
        said = value.get("id") if isinstance(value, dict) else None
        known = isinstance(said, str | int | float | None) and not isinstance(said, bool)
        wrong = "" if known else "id"
        if not isinstance(value, dict):
            wrong = "no object"
        elif value.get("jsonrpc") != "2.0":
            wrong = 'jsonrpc is not "2.0"'
        elif not isinstance(value.get("method"), str):
            wrong = "method"
        elif not isinstance(value.get("params", {}), dict | list):
            wrong = "params"
        if wrong:
            return _error(said if known else None, INVALID_REQUEST, wrong)
        answer = await self._run(said, value["method"], value.get("params", {}))
        return answer if "id" in value else None

    async def _run(self, said: Any, method: str, params: Json | list[Any]) -> Json:
        call = self._calls.get(method)
        if call is None:
            return _error(said, METHOD_NOT_FOUND, method[:40])
        try:
            named = _named(call, params)
            return {"jsonrpc": "2.0", "id": said, "result": await call.run(**named)}
        except PeerdError as error:
            return _failed(said, error)


def _named(call: _Call, params: Json | list[Any]) -> Mapping[str, Any]:
    """Parameters by name, whichever way they came. ConfigError `config.bad_value`."""
    if isinstance(params, list):
        if len(params) > len(call.parameters):
            raise ConfigError("config.bad_value", f"at most {len(call.parameters)} parameters")
        params = dict(zip(call.parameters, params, strict=False))
    for name in params:
        if name not in call.parameters:
            known = ", ".join(call.parameters) or "none"
            raise ConfigError("config.bad_value", f"no parameter {name[:40]!r}; known: {known}")
    for name in call.parameters[: call.required]:
        if name not in params:
            raise ConfigError("config.bad_value", f"{name} is missing")
    return params


def _failed(said: Any, error: PeerdError) -> Json:
    """One of our errors; the code in `data` is ours."""
    number = INVALID_PARAMS if error.code in _PARAMETERS else MARKET_ERROR
    if isinstance(error, StorageError):
        number = INTERNAL_ERROR
    data: Json = {"code": error.code, "detail": error.detail}
    if isinstance(error, AskFailed):
        data["paid_ucr"] = error.paid_ucr
        data["short_ucr"] = error.short_ucr
    message = _MEANING.get(number, str(error))
    return {
        "jsonrpc": "2.0",
        "id": said,
        "error": {"code": number, "message": message, "data": data},
    }


def _error(said: Any, number: int, detail: str) -> Json:
    error = {"code": number, "message": _MEANING[number], "data": {"detail": detail}}
    return {"jsonrpc": "2.0", "id": said, "error": error}


def _is_worth_keeping(value: Json | list[Json] | None) -> bool:
    """Whether a retry should get this answer again: something in it came, or was paid for."""
    answers = value if isinstance(value, list) else [value]
    errors = [answer.get("error") for answer in answers if answer is not None]
    return not all(error and not error["data"].get("paid_ucr") for error in errors) or not errors


class _Exchange:
    """An ASGI response that runs the calls, no longer than their client is there."""

    def __init__(self, rpc: Rpc, data: bytes) -> None:
        self._rpc = rpc
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer: 200 with a result or an error, 204 where only notifications came."""

        async def run() -> None:
            value = await self._rpc.answer(self._data)
            headers = None if _is_worth_keeping(value) else {FORGET_HEADER: "false"}
            response = (
                Response(status_code=204) if value is None else JSONResponse(value, 200, headers)
            )
            await response(scope, receive, send)

        await while_there(receive, run)


def rpc_route(rpc: Rpc) -> Route:
    """POST /rpc"""

    async def endpoint(request: Request) -> Any:
        return _Exchange(rpc, await read_body(request))

    return Route("/rpc", endpoint, methods=["POST"])
