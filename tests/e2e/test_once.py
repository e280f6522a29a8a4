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


def test_a_request_that_nobody_waits_for(tmp_path: Path) -> None:
    """Submitted, it runs on; its answer and receipt are there later, also after a kill. One that
    is ended is paid for what had come."""
    with ExitStack() as stack:
        market = Market(tmp_path, stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags(steps_per_s_max=60))
        api = market.requester
        url = api.ready["api"].removesuffix("/v1")
        later = {"Prefer": "respond-async"}
        accepted = httpx.post(url + CHAT, json=chat(PROMPT, max_tokens=8), headers=later)
        assert accepted.status_code == 202
        where = accepted.headers["location"]
        answer = httpx.get(url + where + "/answer", timeout=60)
        assert answer.json()["choices"][0]["message"]["content"]
        status = httpx.get(url + where).json()
        assert (status["status"], status["request_id"]) == (
            "completed",
            answer.headers["x-request-id"],
        )
        (receipt_id,) = status["receipt_ids"]
        receipt = httpx.get(f"{url}/v1/receipts/{receipt_id}").json()
        assert receipt["cost_ucr"] == status["cost_ucr"] == spent_ucr(api)

        long = chat(LONG_PROMPT, max_tokens=100, stream=True)
        running = httpx.post(url + CHAT, json=long, headers=later).headers["location"]
        with httpx.stream("GET", url + running + "/answer", timeout=60) as parts:
            next(parts.iter_bytes())
        assert httpx.delete(url + running).status_code == 204
        ended = httpx.get(url + running).json()
        assert ended["status"] == "cancelled"
        until(lambda: spent_ucr(api) > status["cost_ucr"], "what had come is paid")
        assert spent_ucr(api) < status["cost_ucr"] + 100 * 60

        api.kill()
        api.start()
        url = api.ready["api"].removesuffix("/v1")
        assert httpx.get(url + where + "/answer").content == answer.content
        assert httpx.get(url + "/v1/receipts/" + "0" * 64).status_code == 404
        assert httpx.get(url + "/v1/receipts/12").status_code == 400
        gone = httpx.get(url + running)
        assert (gone.status_code, gone.json()["error"]["code"]) == (502, "request.interrupted")
