"""A key buys once, also when the node is killed. Source: peer/gateway/README.md, "Once"."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.judging import CHUNK_UCR
from tests.e2e.support import LONG_PROMPT, PROMPT, Daemon, Market, provider_flags, until

CHAT = "/v1/chat/completions"


def post(api: Daemon, path: str, key: str, body: dict[str, Any]) -> httpx.Response:
    """A request under a key."""
    url = api.ready["api"].removesuffix("/v1") + path
    return httpx.post(url, json=body, headers={"Idempotency-Key": key}, timeout=60)


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "embedded", "messages": messages, "peerd": {"window_ms": 500}, **more}


def spent_ucr(api: Daemon) -> int:
    """What is due in all."""
    return sum(int(channel["due_ucr"]) for channel in api.channels())


def test_a_key_survives_a_kill(tmp_path: Path) -> None:
    """An answer is given again; one whose text is gone, or that was running, says what was paid.

    Nothing is bought again, though the provider still sells.
    """
    with ExitStack() as stack:
        market = Market(tmp_path, stack, "--api", "127.0.0.1:0")
        (provider,) = market.sell(provider_flags(steps_per_s_max=60))
        api = market.requester
        short, long = chat(PROMPT, max_tokens=8), chat(LONG_PROMPT, max_tokens=100, stream=True)
        params = {
            "input": PROMPT,
            "model": "embedded",
            "parameters": {"max_tokens": 8, "window_ms": 500},
        }
        call = {"jsonrpc": "2.0", "id": 1, "method": "inferenceRequest", "params": params}
        first = post(api, CHAT, "answered", short)
        assert first.status_code == 200
        streamed = post(api, CHAT, "streamed", {**short, "stream": True})
        assert b"[DONE]" in streamed.content
        known = set((api.directory / "answers").iterdir())
        called = post(api, "/rpc", "forgotten", call).json()["result"]
        (forgotten,) = set((api.directory / "answers").iterdir()) - known
        before_ucr = spent_ucr(api)
        url = api.ready["api"].removesuffix("/v1") + CHAT
        headers = {"Idempotency-Key": "running"}
        with httpx.stream("POST", url, json=long, headers=headers, timeout=60) as answer:
            parts = answer.iter_bytes()  # let go of, it would close the stream
            next(parts)
            # The log knows what was vouched for, at most a chunk less than what came.
            until(lambda: spent_ucr(api) > before_ucr + 2 * CHUNK_UCR, "some of it is paid")
            api.kill()

        forgotten.unlink()
        api.flags = (*api.flags, "--bootstrap", provider.address)
        api.start()
        market.wait_joined()
        after_ucr = spent_ucr(api)
        again = post(api, CHAT, "answered", short)
        assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        assert again.headers["x-peerd-receipt"] == first.headers["x-peerd-receipt"]
        assert post(api, CHAT, "streamed", {**short, "stream": True}).content == streamed.content
        assert post(api, CHAT, "answered", long).status_code == 422
        gone = post(api, "/rpc", "forgotten", call)
        assert (gone.status_code, gone.json()["error"]["code"]) == (410, "api.answer_gone")
        assert called["receipt_id"] in gone.json()["error"]["message"]
        assert gone.headers["x-peerd-cost-ucr"] == str(called["cost_ucr"])
        died = post(api, CHAT, "running", long)
        assert (died.status_code, died.json()["error"]["code"]) == (502, "request.interrupted")
        assert died.headers["x-should-retry"] == "false"
        assert int(died.headers["x-peerd-cost-ucr"]) > 0
        assert spent_ucr(api) == after_ucr
        assert api.log_path.read_text().count('"event": "award.sent"') == 4
