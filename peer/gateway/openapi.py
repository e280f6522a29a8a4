"""The gateway's OpenAPI document, made from the types that check the bodies."""

from importlib.metadata import version
from typing import Any

import msgspec

from peer.gateway.bodies import ChatBody, CompletionBody, EmbeddingBody

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
_RPC: Json = {
    "description": "A JSON-RPC 2.0 request, or a batch of them",
    "type": ["object", "array"],
}


def _answers(*kinds: str) -> Json:
    """What a path answers: 200 in these media types, else an error."""
    return {
        "200": {"description": "The answer", "content": {kind: {} for kind in kinds}},
        "default": {
            "description": "An error in OpenAI's shape",
            "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name="Error")}}},
        },
    }


def _post(summary: str, body: str, *kinds: str) -> Json:
    schema = {"$ref": _REFERENCE.format(name=body)}
    content = {"application/json": {"schema": schema}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": _answers(*kinds),
        }
    }


def _get(summary: str, *names: str, kind: str = "application/json") -> Json:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    return {
        "get": {
            "summary": summary,
            "parameters": parameters,
            "responses": _answers(kind),
        }
    }


def openapi_document() -> Json:
    """The document that /openapi.json serves."""
    (_, schemas) = msgspec.json.schema_components(
        [ChatBody, CompletionBody, EmbeddingBody], ref_template=_REFERENCE
    )
    streams = ("application/json", "text/event-stream")
    return {
        "openapi": "3.1.0",
        "info": {"title": "peerd", "version": version("peerd")},
        "paths": {
            "/v1/chat/completions": _post("A chat's next turn", "ChatBody", *streams),
            "/v1/completions": _post("A text continued", "CompletionBody", *streams),
            "/v1/embeddings": _post("A vector for each text", "EmbeddingBody", "application/json"),
            "/v1/quote": _post("What a chat would cost", "ChatBody", "application/json"),
            "/v1/requests/{id}/explain": _get("Why a request went where it went", "id"),
            "/v1/models": _get("What can be asked for"),
            "/v1/models/{name}": _get("One of them", "name"),
            "/rpc": _post("JSON-RPC 2.0 calls", "Rpc", "application/json"),
            "/healthz": _get("Whether the process answers"),
            "/readyz": _get("Whether somebody can be asked"),
            "/metrics": _get("What Prometheus reads", kind="text/plain"),
        },
        "components": {
            "schemas": {**schemas, "Error": _ERROR, "Rpc": _RPC},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }
