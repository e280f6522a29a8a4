"""The gateway's OpenAPI document, made from the types that check the bodies."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import msgspec

from peer.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody
from peer.gateway.openapi_headers import BEGUN, BOUGHT, CHEQUE, KEY, PREFER, of_error

Json = dict[str, Any]

_REFERENCE = "#/components/schemas/{name}"
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
# JSON-RPC says itself, with status 200, what is wrong with a call.
_RPC: Json = {"description": "A JSON-RPC 2.0 request, or a batch of them"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_OBJECT: Json = {"type": "object"}


def _object(**properties: Json) -> Json:
    """An object that has all of these, and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _or_null(kind: str) -> Json:
    return {"type": [kind, "null"]}


_USAGE = _object(prompt_tokens=_COUNT, total_tokens=_COUNT)
_REPORT = _object(
    request_id=_TEXT,
    provider=_TEXT,
    cost=_TEXT,
    cost_ucr=_COUNT,
    receipt_id=_TEXT,
    model_sha256=_TEXT,
)
_MODEL = _object(
    id=_TEXT,
    object={"const": "model"},
    created=_COUNT,
    owned_by=_TEXT,
    providers=_COUNT,
    context_length=_COUNT,
    quantizations=_list(_TEXT),
    pricing=_object(prompt_ucr_per_million=_COUNT, completion_ucr_per_million=_COUNT),
)


def _made(kind: str, **choice: Json) -> Json:
    """A chat's or a completion's whole answer."""
    each = _object(index=_COUNT, finish_reason=_TEXT, logprobs=_or_null("object"), **choice)
    return _object(
        id=_TEXT,
        object={"const": kind},
        created=_COUNT,
        model=_TEXT,
        choices=_list(each),
        usage=_USAGE,
        peerd=_list(_REPORT),
    )


_MESSAGE = _object(role={"const": "assistant"}, content=_or_null("string"))
_ANSWERS: Final[dict[str, Json]] = {
    "ChatAnswer": _made("chat.completion", message=_MESSAGE),
    "CompletionAnswer": _made("text_completion", text=_TEXT),
    "EmbeddingAnswer": _object(
        object={"const": "list"},
        model=_TEXT,
        data=_list(_object(index=_COUNT, embedding={"type": ["string", "array"]})),
        usage=_USAGE,
        peerd=_list(_REPORT),
    ),
    "Quote": _object(
        object={"const": "quote"},
        model=_TEXT,
        request_id=_TEXT,
        choices=_COUNT,
        cost_max_ucr=_COUNT,
        cost_max=_TEXT,
        bids=_list(_object(provider=_TEXT, cost_max_ucr=_COUNT, score=_COUNT)),
    ),
    "Explanation": _object(
        request_id=_TEXT, model=_TEXT, bids=_list(_OBJECT), awards=_list(_OBJECT), paid_ucr=_COUNT
    ),
    "Request": _object(
        id=_TEXT,
        object={"const": "request"},
        status={"enum": ["running", "completed", "failed", "cancelled"]},
        http_status=_or_null("integer"),
        request_id=_or_null("string"),
        cost_ucr=_or_null("integer"),
        receipt_ids=_list(_TEXT),
    ),
    "Receipt": _object(receipt_id=_TEXT),
    "Cheques": _object(
        object={"const": "cheques"},
        node=_TEXT,
        network=_TEXT,
        newcomer_ucr=_COUNT,
        models=_list(_object(id=_TEXT, context_length=_COUNT, pricing=_OBJECT)),
    ),
    "Charge": _object(
        object={"const": "charge"},
        nonce=_COUNT,
        cost_ucr=_COUNT,
        cost=_TEXT,
        error=_or_null("string"),
        receipt_id=_or_null("string"),
        receipt=_or_null("string"),
        signature=_or_null("string"),
    ),
    "Model": _MODEL,
    "Models": _object(object={"const": "list"}, data=_list(_MODEL)),
    "Status": _object(status=_TEXT),
    "RpcAnswer": {"type": ["object", "array"]},
    "Error": _ERROR,
    "Rpc": _RPC,
}
# What may be wrong with any request, with one that has a body, and with one that buys.
_ANY: Final = {401: "No token, or a wrong one", 403: "Called by a name that is not this machine's"}
_BODY: Final = {
    400: "A field is wrong",
    410: "Paid before under this Idempotency-Key, and not kept",
    413: "The body is too large",
    415: "Not declared as JSON",
    422: "The Idempotency-Key came with another body before",
    429: "Too many at once",
    502: "Of what this Idempotency-Key began, only the cost is known",
}
_BUYS: Final = {
    402: "Over a cap",
    404: "Nobody offers or bids on the model, and others are sold",
    409: "The cheque's nonce was used",
    502: "Providers were there and failed",
    503: "Nobody bids now, or all are busy",
    504: "Not finished in time",
}


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(name=name)}


def _responses(answer: Json, *wrong: dict[int, str]) -> Json:
    """200 in these media types, and the errors."""
    found: Json = {"200": {"description": "The answer", "content": answer}}
    buys = _BUYS in wrong
    error = {"application/json": {"schema": _reference("Error")}}
    for status, about in sorted({k: v for one in wrong for k, v in one.items()}.items()):
        found[str(status)] = {"description": about, "content": error}
        headers = of_error(status, buys=buys)
        if headers:
            found[str(status)]["headers"] = headers
    return found


def _post(
    summary: str,
    body: str,
    answer: str,
    *wrong: dict[int, str],
    stream: bool = False,
    later: bool = True,
) -> Json:
    content: Json = {"application/json": {"schema": _reference(answer)}}
    if stream:
        content["text/event-stream"] = {}
    responses = _responses(content, _ANY, _BODY, *wrong)
    parameters = [KEY, *CHEQUE] if _BUYS in wrong else [KEY]
    if body == "Rpc":
        responses["204"] = {"description": "There were notifications alone"}
    if later:
        running = {"application/json": {"schema": _reference("Request")}}
        responses["202"] = {
            "description": "It runs: see Location",
            "headers": BEGUN,
            "content": running,
        }
        responses["200"]["headers"] = BOUGHT
        parameters.append(PREFER)
    return {
        "post": {
            "summary": summary,
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _reference(body)}},
            },
            "responses": responses,
        }
    }


def _get(summary: str, answer: str, *names: str, **wrong: str) -> Json:
    """`wrong` are the statuses of its own, as s404; without an `answer` it is text."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    content: Json = {"application/json": {"schema": _reference(answer)}}
    own = {int(status[1:]): about for status, about in wrong.items()}
    responses = _responses(content if answer else {"text/plain": {}}, _ANY, own)
    return {"get": {"summary": summary, "parameters": parameters, "responses": responses}}


def _delete(wrong: Mapping[str, str]) -> Json:
    described = _get("End it, if it runs; its answer is not kept", "", "id", **wrong)["get"]
    described["responses"]["204"] = {"description": "It ends"}
    del described["responses"]["200"]
    return {"delete": described}


def openapi_document() -> Json:
    """The document that /openapi.json serves."""
    (_, schemas) = msgspec.json.schema_components(
        [ChatBody, CompletionBody, EmbeddingBody], ref_template=_REFERENCE
    )
    ready = _get("Whether somebody can be asked", "Status")
    ready["get"]["responses"]["503"] = ready["get"]["responses"]["200"]
    chat, completion = ("ChatBody", "ChatAnswer"), ("CompletionBody", "CompletionAnswer")
    charge = ("What a cheque was charged for, for its user", "Charge", "nonce")
    no_charge = {"s400": "No cheque of 0 for this path", "s404": "No such cheque was charged"}
    charged = _get(*charge, **no_charge)
    charged["get"]["parameters"] += CHEQUE
    begun = ("What became of a request that was not waited for", "Request")
    lost = {
        "s404": "No such request is known, or it cost nothing and is forgotten",
        "s410": "It was cancelled, or paid and its answer is not kept",
        "s502": "The node died while it ran",
    }
    answer = _get("Its answer, as it was or is made", "", "id", **lost)
    kinds = ("application/json", "text/event-stream")
    answer["get"]["responses"]["200"]["content"] = {kind: {} for kind in kinds}
    no_receipt = {"s400": "The id is no hex of 6 digits or more", "s404": "The log has none"}
    no_id = {"s400": "The id is no hex of 6 digits or more", "s404": "No such request is known"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "peerd", "version": version("peerd")},
        "paths": {
            "/v1/chat/completions": _post("A chat's next turn", *chat, _BUYS, stream=True),
            "/v1/completions": _post("A text continued", *completion, _BUYS, stream=True),
            "/v1/embeddings": _post(
                "A vector for each text", "EmbeddingBody", "EmbeddingAnswer", _BUYS
            ),
            "/v1/quote": _post("What a chat would cost", "ChatBody", "Quote", _BUYS, later=False),
            "/v1/requests/{id}": {**_get(*begun, "id", **lost), **_delete(lost)},
            "/v1/requests/{id}/answer": answer,
            "/v1/receipts/{id}": _get(
                "A receipt, signed by both ends", "Receipt", "id", **no_receipt
            ),
            "/v1/requests/{id}/explain": _get(
                "Why a request went where it went", "Explanation", "id", **no_id
            ),
            "/v1/models": _get("What can be asked for", "Models"),
            "/v1/models/{name}": _get("One of them", "Model", "name", s404="Nobody offers it"),
            "/v1/cheques": _get("Whom a cheque has to name, and the prices", "Cheques"),
            "/v1/cheques/{nonce}": charged,
            "/rpc": _post("JSON-RPC 2.0 calls", "Rpc", "RpcAnswer", later=False),
            "/healthz": _get("Whether the process answers", "Status"),
            "/readyz": ready,
            "/metrics": _get("What Prometheus reads", ""),
        },
        "components": {
            "schemas": {**schemas, **_ANSWERS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }
