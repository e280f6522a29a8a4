"""What is served keeps to the document that says what is served: statuses, types and shapes.

Requests are drawn from /openapi.json and against it. Half of those that buy name a model that is
sold, and some of them are answered. Source: peer/gateway/README.md, "Paths".
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from peer.gateway.openapi import openapi_document
from tests.e2e.support import Daemon, Market, provider_flags

CHECKS = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,  # 500 is documented nowhere
]
# Of the fields, those that every model can follow.
PLAIN = {"prompt", "input", "n", "seed", "temperature", "top_p", "stream", "stop", "peerd"}
BUYS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/quote")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks, with its gateway on; a provider sells beside it."""
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("openapi"), stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags())
        yield market.requester


@pytest.fixture(scope="module")
def document(api: Daemon) -> Any:
    return schemathesis.openapi.from_url(api.ready["api"].removesuffix("/v1") + "/openapi.json")


Case = schemathesis.Case[Any]


def bought(body: dict[str, Any], path: str) -> None:
    """Make of what was drawn something that a provider can sell, and quickly."""
    for name in body.keys() - PLAIN:
        del body[name]
    if path not in ("/v1/completions", "/v1/embeddings"):
        body["messages"] = [{"role": "user", "content": "a"}]
    if path == "/v1/embeddings":
        body["input"] = "a"
    else:
        body["max_tokens"] = 1
    body["model"] = "embedded"


def check(case: Case, *, valid: bool) -> int:
    """Send it, half of what is drawn from the document for what is sold; the answer's status."""
    body, path = case.body, case.operation.path
    if path in BUYS and isinstance(body, dict) and valid:
        # So that drawing many takes seconds, and a busy machine's bids are heard all the same.
        body["peerd"] = {"window_ms": 500, "early_close_bids": 1}
        if len(str(body)) % 2:
            bought(body, path)
            case.headers = {
                name: value
                for name, value in (case.headers or {}).items()
                if not name.lower().startswith("x-peerd-")  # no cheque is good here
            }
    status = int(case.call_and_validate(checks=CHECKS).status_code)
    assert valid or path not in BUYS or 400 <= status < 500
    return status


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(
    ("path", "method"),
    [(path, m) for path, methods in openapi_document()["paths"].items() for m in methods],
)
def test_it_is_as_the_document_says(
    document: Any, path: str, method: str, mode: GenerationMode
) -> None:
    valid = mode is GenerationMode.POSITIVE
    statuses = set()

    @seed(1)
    @settings(
        max_examples=12 if path in BUYS else 4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(document[path][method].as_strategy(generation_mode=mode))
    def run(case: Case) -> None:
        statuses.add(check(case, valid=valid))

    try:
        run()
    except Unsatisfiable:  # nothing can be against a document that asks for nothing
        assert not valid
    if valid and path in BUYS:
        assert 200 in statuses
