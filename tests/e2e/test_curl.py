"""Plain curl on every path of the gateway. Source: peer/gateway/README.md, "Paths"."""

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from peer.gateway.openapi import openapi_document
from tests.e2e.support import PROMPT, Market, provider_flags

Json = dict[str, Any]

QUICK = {"model": "embedded", "max_tokens": 8, "peerd": {"window_ms": 500}}
CHAT = {**QUICK, "messages": [{"role": "user", "content": PROMPT}]}


class Curl:
    """curl as a person runs it, and the paths of the document that it was run on."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.used: set[tuple[str, str]] = set()

    def __call__(
        self, method: str, path: str, body: Json | None = None, *more: str, **names: str
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and body; `names` fill the path's blanks."""
        self.used.add((path, method.lower()))
        command = ["curl", "-siN", "-m", "60", "-X", method, *more]
        if body is not None:
            command += ["-H", "content-type: application/json", "-d", json.dumps(body)]
        done = subprocess.run(
            [*command, self._base + path.format(**names)],
            capture_output=True,
            text=True,
            check=True,
        )
        head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        first, *lines = head.split("\n")
        headers = {
            name.lower(): value for name, _, value in (one.partition(": ") for one in lines)
        }
        return int(first.split()[1]), headers, text

    def json(self, method: str, path: str, body: Json | None = None, **names: str) -> Any:
        """What is answered to one that succeeds."""
        status, _, text = self(method, path, body, **names)
        assert status == 200, text
        return json.loads(text)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_path(tmp_path: Path) -> None:
    with ExitStack() as stack:
        market = Market(tmp_path, stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags(steps_per_s_max=200))
        curl = Curl(market.requester.ready["api"].removesuffix("/v1"))

        assert curl.json("GET", "/healthz") == {"status": "ok"}
        assert curl.json("GET", "/readyz") == {"status": "ready"}
        assert [one["id"] for one in curl.json("GET", "/v1/models")["data"]] == ["embedded"]
        assert curl.json("GET", "/v1/models/{name}", name="embedded")["providers"] == 1
        assert "/v1/models" in curl.json("GET", "/openapi.json")["paths"]
        assert curl.json("POST", "/v1/quote", CHAT)["cost_max_ucr"] > 0

        status, headers, text = curl("POST", "/v1/chat/completions", CHAT)
        assert (status, bool(json.loads(text)["choices"][0]["message"]["content"])) == (200, True)
        explained = curl.json("GET", "/v1/requests/{id}/explain", id=headers["x-request-id"])
        assert explained["paid_ucr"] == int(headers["x-peerd-cost-ucr"])
        receipt = curl.json("GET", "/v1/receipts/{id}", id=headers["x-peerd-receipt"])
        assert receipt["cost_ucr"] == explained["paid_ucr"]
        _, _, text = curl("POST", "/v1/chat/completions", {**CHAT, "stream": True})
        assert text.startswith("data: {")
        assert text.endswith("data: [DONE]\n\n")
        assert curl.json("POST", "/v1/completions", {**QUICK, "prompt": "Paris"})["choices"]
        embedded = {"model": "embedded", "input": "Paris", "peerd": {"window_ms": 500}}
        assert curl.json("POST", "/v1/embeddings", embedded)["data"][0]["embedding"]

        later = ("-H", "Prefer: respond-async")
        status, headers, _ = curl("POST", "/v1/chat/completions", CHAT, *later)
        name = headers["location"].rpartition("/")[2]
        assert status == 202
        assert curl.json("GET", "/v1/requests/{id}/answer", id=name)["choices"]
        assert curl.json("GET", "/v1/requests/{id}", id=name)["status"] == "completed"
        assert curl("DELETE", "/v1/requests/{id}", None, id=name)[0] == 204

        call = {"jsonrpc": "2.0", "id": 1, "method": "listModels"}
        assert curl.json("POST", "/rpc", call)["result"]
        # This node only asks, and a cheque's charge is told to whom a cheque names alone.
        assert curl("GET", "/v1/cheques")[0] == 403
        assert curl("GET", "/v1/cheques/{nonce}", nonce="1")[0] == 404
        assert "peerd_http_requests_total" in curl("GET", "/metrics")[2]

        document = openapi_document()["paths"]
        every = {(path, method) for path, methods in document.items() for method in methods}
        assert curl.used - {("/openapi.json", "get")} == every
