"""OpenAI's client and plain HTTP against a requester's daemon with `--api`.

Source: README, "Any OpenAI client".
"""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.support import Daemon, Market, provider_flags, until

ASKED: Any = [{"role": "user", "content": "What is the capital of France?"}]
LONG: Any = [{"role": "user", "content": "word " * 40_000}]
QUICK: Any = {"peerd": {"window_ms": 200}}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A daemon that asks, with its gateway on; a provider sells beside it."""
    home = tmp_path_factory.mktemp("api")
    (home / "requester").mkdir(mode=0o700)
    (home / "requester" / "config.toml").write_text('[requester]\nday_max = "100"\n')
    with ExitStack() as stack:
        market = Market(home, stack, "--api", "127.0.0.1:0")
        market.sell(provider_flags(steps_per_s_max=200))
        models = market.requester.ready["api"] + "/models"
        until(lambda: httpx.get(models).json()["data"], "the provider's offer is known")
        yield market


@pytest.fixture(scope="module")
def api(market: Market) -> Daemon:
    return market.requester


@pytest.fixture(scope="module")
def client(api: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=api.ready["api"], api_key="none", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    arguments = {"model": "embedded", "messages": ASKED, "temperature": 0, "max_tokens": 40}
    extra = changes.pop("extra_body", {})
    return client.chat.completions.create(
        **{**arguments, **changes}, extra_body={**QUICK, **extra}
    )


def test_a_whole_answer_with_its_cost_and_receipt(client: openai.OpenAI, api: Daemon) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="embedded", messages=ASKED, temperature=0, max_tokens=40, extra_body=QUICK
    )
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason in ("stop", "length")
    (report,) = answer.model_extra["peerd"]
    assert raw.headers["x-peerd-receipt"] == report["receipt_id"]
    assert raw.headers["x-peerd-cost-ucr"] == str(report["cost_ucr"])
    assert raw.headers["x-request-id"] == report["request_id"]
    spent = sum(channel["due_ucr"] for channel in api.channels())
    assert spent >= report["cost_ucr"] > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_whole_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = chat(client).choices[0].message.content
    parts = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert parts[0].choices[0].delta.role == "assistant"
    texts = [part.choices[0].delta.content or "" for part in parts if part.choices]
    assert "".join(texts) == whole
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "stop"
    assert parts[-1].choices == []
    assert parts[-1].usage.completion_tokens > 0


def test_choices_and_a_json_answer(client: openai.OpenAI) -> None:
    answer = chat(client, n=2, seed=7, temperature=0.8)
    assert [choice.index for choice in answer.choices] == [0, 1]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    content = chat(client, response_format=form).choices[0].message.content
    assert 1 <= json.loads(content)["a"] <= 9


def test_a_forced_tool_is_called(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"celsius": {"type": "boolean"}},
        "required": ["celsius"],
        "additionalProperties": False,
    }
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    (choice,) = chat(client, tools=[tool], tool_choice="required", max_tokens=200).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "weather"
    streamed = list(
        chat(client, tools=[tool], tool_choice="required", max_tokens=200, stream=True)
    )
    calls = [part.choices[0].delta.tool_calls for part in streamed if part.choices]
    assert [call[0].function.name for call in calls if call] == ["weather"]


def test_log_probabilities(client: openai.OpenAI) -> None:
    """Of every token, the chosen one's and as many of the likeliest as were asked for."""
    (choice,) = chat(client, logprobs=True, top_logprobs=3, max_tokens=6).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens).startswith(choice.message.content)
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)
    (bare,) = chat(client, logprobs=True, max_tokens=6).choices
    assert all(token.top_logprobs == [] for token in bare.logprobs.content)
    parts = list(chat(client, logprobs=True, top_logprobs=1, max_tokens=6, stream=True))
    streamed = [
        token for part in parts for c in part.choices if c.logprobs for token in c.logprobs.content
    ]
    assert len(streamed) == len(tokens)


def test_the_openapi_document_describes_what_is_served(api: Daemon) -> None:
    document = httpx.get(api.ready["api"].removesuffix("/v1") + "/openapi.json").json()
    assert "/v1/chat/completions" in document["paths"]
    assert {"ChatBody", "CompletionBody", "Error"} <= document["components"]["schemas"].keys()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert "X-Peerd-Signature" in [one["name"] for one in chat["parameters"]]
    assert {"x-request-id", "x-peerd-receipt"} <= chat["responses"]["200"]["headers"].keys()
    assert "x-request-id" in chat["responses"]["402"]["headers"]
    assert "409" in chat["responses"]


def test_raw_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="embedded", prompt="The capital of", max_tokens=5, extra_body=QUICK
    )
    assert answer.choices[0].text
    parts = client.completions.create(
        model="embedded", prompt="The capital of", max_tokens=5, stream=True, extra_body=QUICK
    )
    assert any(part.choices[0].text for part in parts)
    asked: Any = {"model": "embedded", "prompt": "The capital of", "max_tokens": 5, "logprobs": 1}
    scored = client.completions.create(**asked, extra_body=QUICK).choices[0]
    assert scored.logprobs is not None
    offsets, tokens = scored.logprobs.text_offset or [], scored.logprobs.tokens or []
    assert offsets[0] == 0
    for offset, token in zip(offsets, tokens, strict=True):
        assert scored.text[offset:].startswith(token)


def test_embeddings(client: openai.OpenAI) -> None:
    """Over two jobs, in the order of the texts; base64, which the client asks for, and numbers."""
    texts = ["Paris", "London", "Paris", *map(str, range(15))]
    found = client.embeddings.create(model="embedded", input=texts, extra_body=QUICK)
    vectors = [item.embedding for item in found.data]
    assert [item.index for item in found.data] == list(range(18))
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1, rel=1e-3)
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    assert len(found.model_extra["peerd"]) == 2
    one = client.embeddings.create(
        model="embedded", input="Paris", encoding_format="float", extra_body=QUICK
    )
    assert one.data[0].embedding == pytest.approx(vectors[0], rel=1e-3, abs=1e-6)
    for wrong in ({"input": []}, {"input": [1, 2]}, {"input": "a", "dimensions": 8}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": "embedded", **wrong})


def test_models_are_listed(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == ("embedded", "model")
    assert client.models.retrieve("embedded").model_dump() == model.model_dump()
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_nobody_sells_it(client: openai.OpenAI) -> None:
    """Others are sold, so it is the name that is wrong; it was asked for all the same."""
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="no-such-model")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "x-request-id" in caught.value.response.headers


def test_a_price_that_nobody_sells_at_is_402(client: openai.OpenAI, api: Daemon) -> None:
    """With the request's id, by which it is explained."""
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client, extra_body={"peerd": {"max_price": "0.000001", "window_ms": 500}})
    assert caught.value.status_code == 402
    headers = caught.value.response.headers
    assert int(headers["x-peerd-short-ucr"]) > 0
    url = f"{api.ready['api']}/requests/{headers['x-request-id']}/explain"
    assert httpx.get(url).json()["code"] == "request.price_too_low"


def test_a_client_that_leaves_stops_paying(client: openai.OpenAI, api: Daemon) -> None:
    with chat(client, stream=True, max_tokens=100) as stream:
        next(iter(stream))
    until(lambda: api.status()["open_requests"] == 0, "the request is cancelled")


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/chat/completions", {}, b'{"\\ud800": 1}', 400),
        ("POST", "/chat/completions", {"content-type": "text/plain"}, b"{}", 415),
        ("POST", "/chat/completions", {"host": "example.org"}, b"{}", 403),
        ("GET", "/chat/completions", {}, b"", 405),
        ("GET", "/nowhere", {}, b"", 404),
        ("GET", "/models/none", {}, b"", 404),
    ],
)
def test_bad_requests_have_their_status_and_openai_s_shape(
    api: Daemon, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    headers = {"content-type": "application/json", **headers}
    answer = httpx.request(method, api.ready["api"] + path, headers=headers, content=content)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["message"]


def post(api: Daemon, content: Any) -> httpx.Response:
    """A chat of raw bytes, or as these changes make it."""
    body = {"model": "embedded", "messages": ASKED, "max_tokens": 8}
    if isinstance(content, dict):
        own = {**QUICK["peerd"], **content.get("peerd", {})}
        content = json.dumps({**body, **content, "peerd": own}).encode()
    headers = {"content-type": "application/json"}
    url = api.ready["api"] + "/chat/completions"
    return httpx.post(url, headers=headers, content=content, timeout=60)


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an error in OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize(
    ("content", "status", "code", "says"),
    [
        (b"{", 400, "api.bad_request", "not JSON"),
        (b"[1]", 400, "api.bad_request", "not a JSON object"),
        (b" " * 10_000_000, 413, "api.too_large", "over 4 MiB"),
        ({"messages": []}, 400, "api.bad_request", "messages: "),
        ({"messages": "hello"}, 400, "api.bad_request", "messages: "),
        ({"max_tokens": "8"}, 400, "api.bad_request", "max_tokens: "),
        ({"max_token": 8}, 400, "api.bad_request", "did you mean 'max_tokens'?"),
        ({"messages": LONG, "peerd": {"max_price": 9}}, 400, "bid.short_context", "shorten it"),
        ({"model": "no-such-model"}, 404, "model_not_found", "peerd models"),
        ({"peerd": {"max_price": "101"}}, 402, "request.day_limit", "day_max"),
        ({"peerd": {"max_price": "0.000001"}}, 402, "request.price_too_low", "raise --max-price"),
        ({"provider": {"max_price": {"completion": 59}}}, 402, "bid.over_price", "at most 59 "),
    ],
)
def test_bad_input_is_refused_and_costs_nothing(
    api: Daemon, content: Any, status: int, code: str, says: str
) -> None:
    """What is wrong, and what to do."""
    until(lambda: api.status()["open_requests"] == 0, "what was asked before is over")
    spent_ucr = api.status()["balance"]["spent_ucr"]
    found, named, message = refused(post(api, content))
    assert (found, named) == (status, code)
    assert says in message
    assert api.status()["balance"]["spent_ucr"] == spent_ucr


def test_json_rpc(api: Daemon) -> None:
    """As the README's curl has it."""
    url = api.ready["api"].removesuffix("/v1") + "/rpc"
    parameters = {"max_tokens": 20, "window_ms": 200}
    request = {"jsonrpc": "2.0", "method": "inferenceRequest"}
    params = {"input": ASKED, "model": "embedded", "parameters": parameters}
    answer = httpx.post(url, json={**request, "id": 1, "params": params}, timeout=60).json()
    assert answer["result"]["answer"]
    wanted = {"receipt_id": answer["result"]["receipt_id"]}
    calls = [("getReceipt", wanted), ("getInferenceHistory", {"last": 1}), ("getChannels", {})]
    batch = [{"jsonrpc": "2.0", "id": name, "method": name, "params": p} for name, p in calls]
    receipt, history, channels = (item["result"] for item in httpx.post(url, json=batch).json())
    assert receipt["cost_ucr"] == answer["result"]["cost_ucr"]
    assert history[0]["receipt_id"] == receipt["receipt_id"]
    assert receipt["channel"] in [channel["channel"] for channel in channels["channels"]]
    assert httpx.post(url, json=[{**batch[2], "id": None}]).status_code == 200
    notification = {"jsonrpc": "2.0", "method": "listModels"}
    assert httpx.post(url, json=notification).status_code == 204


def test_watching(api: Daemon) -> None:
    """What a supervisor and Prometheus ask for."""
    base = api.ready["api"].removesuffix("/v1")
    assert httpx.get(f"{base}/readyz").json() == {"status": "ready"}
    httpx.get(f"{base}/nowhere")
    answer = httpx.get(f"{base}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'peerd_http_requests_total{path="other",status="404"}' in answer.text
    assert "peerd_topic_peers 1\n" in answer.text


def test_providers_that_fail_and_then_none(market: Market) -> None:
    """The last of this file, as it ends the provider: one that falls silent, and nobody."""
    api, (provider,) = market.requester, market.providers
    assert post(api, {}).status_code == 200
    spent_ucr = api.status()["balance"]["spent_ucr"]
    provider.signal(signal.SIGSTOP)
    answer = post(api, {})
    status, code, message = refused(answer)
    assert (status, code) == (502, "award.timeout")
    assert "nobody bid" in message
    assert answer.headers["x-peerd-provider"] == provider.peer_id
    provider.kill()
    until(lambda: api.status()["topic_peers"] == 0, "it is missed")
    answer = post(api, {})
    assert refused(answer)[:2] == (503, "request.not_connected")
    assert "--bootstrap" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) > 0
    assert api.status()["balance"]["spent_ucr"] == spent_ucr
