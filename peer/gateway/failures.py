"""What a client is told when something is wrong: OpenAI's error shape and a real status.

Each of our codes has one status. Rule: peer/gateway/README.md, "Errors".
"""

from typing import Any, Final

from protocol.errors import CODES, PeerdError
from protocol.units import format_credits
from router import events

# Ours first: the longest prefix decides, so a code of its own line overrides its area's.
_STATUS: Final[dict[str, int]] = {
    "api.bad_request": 400,
    "api.unsupported": 400,
    "api.bad_token": 401,
    "api.forbidden_host": 403,
    "api.not_found": 404,
    "api.unknown_model": 404,
    "api.wrong_method": 405,
    "api.too_large": 413,
    "api.wrong_content_type": 415,
    "api.answer_gone": 410,
    "api.key_reused": 422,
    "api.too_many": 429,
    "cheque.malformed": 400,
    "cheque.wrong_node": 400,
    "cheque.expired": 400,
    "cheque.wrong_body": 400,
    "cheque.bad_signature": 401,
    "cheque.not_taken": 403,
    "cheque.unknown_user": 403,
    "cheque.unknown": 404,
    "cheque.short": 402,
    "cheque.over_limit": 402,
    "cheque.replayed": 409,
    "request.price_too_low": 402,
    "channel.advance_limit": 402,
    "channel.over_limit": 402,
    "channel.over_deposit": 402,
    "request.day_limit": 402,
    "request.unknown": 404,
    "request.cancelled": 410,
    "receipt.unknown": 404,
    "bid.low_reputation": 503,
    "bid.off_market": 402,
    "bid.over_price": 402,
    "bid.short_context": 400,
    "bid.too_slow": 504,
    "bid.other_quantization": 503,
    "request.too_many": 429,
    "request.no_bids": 503,
    "request.unknown_model": 404,
    "request.not_connected": 503,
    "request.deadline": 504,
    "request.expired": 504,
    "request.invalid": 400,
    "engine.bad_spec": 400,
    "engine.prompt_too_long": 400,
    "award.prompt_too_large": 400,
    "award.wrong_parameters": 400,
    "config.bad_value": 400,
    "provider.busy": 503,
    "provider.draining": 503,
    "engine.overloaded": 503,
    "engine.too_late": 503,
    "engine.unknown_model": 404,
    "engine.no_embeddings": 400,
}
_OTHER: Final = 502  # the market was there and failed: a provider, its engine, its money

_TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    402: "insufficient_funds",
    403: "permission_error",
    429: "rate_limit_error",
}
# In the list, on the market, and here.
_NO_MODEL: Final = ("api.unknown_model", "request.unknown_model", "engine.unknown_model")
RETRY_AFTER_S: Final = 2
COST_HEADER: Final = "x-peerd-cost-ucr"
# With "false": an answer of status 200 that says of a failure, and bought nothing.
FORGET_HEADER: Final = "idempotent-kept"
SHORT_HEADER: Final = "x-peerd-short-ucr"  # what was lacking, where that is known


class ApiError(PeerdError):
    """A request that is answered with an error; `param` names the field at fault.

    `paid_ucr` is what it cost nevertheless; with `again` False a retry would get the same.
    """

    def __init__(self, code: str, detail: str = "", *, param: str | None = None) -> None:
        super().__init__(code, detail)
        self.param = param
        self.paid_ucr = 0
        self.again = True


def status_of(code: str) -> int:
    """The HTTP status for one of our codes."""
    return _STATUS.get(code, _OTHER)


def error_headers(error: PeerdError) -> dict[str, str]:
    """What goes with an error: when to try again, or not to, and what was paid."""
    status = status_of(error.code)
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.code.startswith("cheque."):
        headers["x-should-retry"] = "false"  # with the same cheque it would be refused again
    if status == 402 and error.short_ucr:
        headers[SHORT_HEADER] = str(error.short_ucr)
    if isinstance(error, ApiError):
        if error.paid_ucr or not error.again:
            headers[COST_HEADER] = str(error.paid_ucr)
        if not error.again:
            headers["x-should-retry"] = "false"  # OpenAI's clients heed it
    return headers


def error_json(code: str, detail: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object; `code` is ours, except where clients look for one of theirs."""
    status = status_of(code)
    meaning = CODES.get(code, "")
    default = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {
            "message": f"{detail}: {meaning}" if detail else meaning,
            "type": _TYPES.get(status, default),
            "param": param,
            "code": "model_not_found" if code in _NO_MODEL else code,
        }
    }


def failure(event: events.Failed) -> ApiError:
    """A failed request as an error; what arrived before it was paid is said."""
    detail = event.detail
    if event.paid_ucr:
        detail = f"{detail}; " if detail else ""
        detail += f"{format_credits(event.paid_ucr)} credits were paid for what arrived"
    param = "model" if event.code in _NO_MODEL else None
    known = event.code if event.code in CODES else "provider.refused"
    error = ApiError(known, detail, param=param)
    error.paid_ucr, error.short_ucr = event.paid_ucr, event.short_ucr
    return error
