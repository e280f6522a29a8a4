"""The headers of the OpenAPI document: what callers may send, and what answers carry."""

from typing import Any, Final

from peer import cheque_headers
from peer.gateway.failures import COST_HEADER, SHORT_HEADER
from protocol import limits

Json = dict[str, Any]


def _sent(name: str, about: str, **schema: Any) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": about,
        "schema": {"type": "string", **schema},
    }


KEY: Final = _sent(
    "Idempotency-Key", "Do it once: see the answer", maxLength=limits.API_KEY_BYTES_MAX
)
PREFER: Final = _sent("Prefer", "respond-async: answer 202 at once, and keep what comes for GET")

_ABOUT: Final = {
    cheque_headers.USER: "Who pays by cheque, a peer id; the five come together",
    cheque_headers.NODE: "Whom the cheque is for: this node's peer id",
    cheque_headers.NONCE: "When it was written, in Unix ns; good for one call",
    cheque_headers.AMOUNT: "What the call may cost at most, in ucr",
    cheque_headers.SIGNATURE: "The user's ed25519 signature, in hex",
    cheque_headers.BODY: "The SHA-256 of the body that it is good for, in hex; may be left out",
}
CHEQUE: Final = [_sent(name, about) for name, about in _ABOUT.items()]


def _text(about: str) -> Json:
    return {"description": about, "schema": {"type": "string"}}


_UCR: Final[Json] = {"type": "integer", "minimum": 0}
_MADE: Final[Json] = {
    "x-request-id": _text("The request, for /v1/requests/ID/explain"),
    "x-peerd-provider": _text("The peer id of whoever was awarded it last"),
}
_COST: Final[Json] = {"description": "What was paid, in ucr", "schema": _UCR}
# Of an answer that was bought; a stream has the first two alone.
BOUGHT: Final[Json] = {
    **_MADE,
    COST_HEADER: _COST,
    "x-peerd-receipt": _text("The receipts' ids, the answer's first, with commas"),
    "idempotent-replayed": _text("true where this key was answered before"),
}
_SHORT: Final[Json] = {
    "description": "What was lacking, in ucr: 1,000,000 are a credit; absent where it isn't known",
    "schema": {"type": "integer", "minimum": 1},
}
_AGAIN: Final[Json] = {
    "description": "Seconds until it may be tried again",
    "schema": {"type": "integer", "minimum": 1},
}

# Of a request that is not waited for.
BEGUN: Final[Json] = {
    "location": _text("Where it is told what becomes of it: /v1/requests/ID"),
    "retry-after": _AGAIN,
}


def of_error(status: int, *, buys: bool) -> Json:
    """What an error of this status may carry; of a request that was made, its names too."""
    found: Json = {}
    if buys and status in (400, 402, 404, 502, 503, 504):
        found |= {**_MADE, COST_HEADER: _COST}
    if status == 402:
        found[SHORT_HEADER] = _SHORT
    if status in (429, 503):
        found["retry-after"] = _AGAIN
    return found
