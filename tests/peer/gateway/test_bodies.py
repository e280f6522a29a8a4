"""Bodies are taken as OpenAI has them, and refused by name when they are not.

Source: peer/gateway/README.md, "Parameters".
"""

import json
from typing import Any

import pytest

from peer.config import RequesterConfig
from peer.gateway.asks import chat_asks, completion_asks
from peer.gateway.bodies import ChatBody, CompletionBody, parse_body
from peer.gateway.failures import ApiError
from peer.identity import peer_id, public_key
from protocol.errors import ConfigError
from protocol.fields import ConstraintKind, InferenceType, Strategy
from tests.router.support import stranger

ONE, TWO = (peer_id(stranger(number).public_key) for number in (1, 2))

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chat(**changes: Any) -> Any:
    body = parse_body(json.dumps({**ASKED, **changes}).encode(), ChatBody)
    return chat_asks(body, RequesterConfig())


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"mesages": []}, "mesages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 9}, "n"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"provider": {"sort": "beauty"}}, "provider.sort"),
        ({"provider": {"race": 5}}, "provider.race"),
        ({"provider": {"hedge_percent": -1}}, "provider.hedge_percent"),
        ({"provider": {"only": ["nobody"]}}, "provider"),
        ({"provider": {"onyl": []}}, "provider"),
        ({"provider": {"quantizations": ["int4", "q4"]}}, "provider.quantizations"),
        ({"provider": {"quantizations": ["int4"] * 17}}, "provider.quantizations"),
        ({"provider": {"order": ["nobody"]}}, "provider"),
        (
            {"provider": {"order": [ONE], "only": [TWO], "allow_fallbacks": False}},
            "provider.order",
        ),
        ({"provider": {"max_price": {"prompt": "much"}}}, "provider.max_price"),
        ({"provider": {"sort": "price"}, "peerd": {"price_weight": 1}}, "provider.sort"),
        ({"peerd": {"price_weight": 1_001}}, "peerd.price_weight"),
        ({"peerd": {"max_price": "much"}}, "peerd.max_price"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "other"}}}, "tool_choice"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(**changes)
    assert caught.value.code in ("api.bad_request", "api.unsupported")
    assert caught.value.param == param


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_body(data, ChatBody)
    assert caught.value.code == "api.bad_request"


def test_what_only_serves_the_client_is_passed_over() -> None:
    assert chat(user="me", metadata={"a": "b"}, store=True, reasoning_effort="low").asks


def test_a_chat_becomes_an_ask() -> None:
    wanted = chat(
        messages=[{"role": "developer", "content": [{"type": "text", "text": "be brief"}]}],
        temperature=0.25,
        top_p=0.5,
        max_completion_tokens=7,
        seed=-1,
        stop="END",
        presence_penalty=-1,
        logit_bias={"5": -100},
    )
    (ask,) = wanted.asks
    parameters = ask.parameters
    assert ask.prompt.inference_type is InferenceType.CHAT
    assert [(turn.role, turn.content) for turn in ask.prompt.messages] == [("system", "be brief")]
    assert (parameters.temperature_milli, parameters.top_p_milli) == (250, 500)
    assert (parameters.output_tokens_max, parameters.seed) == (7, 2**32 - 1)
    assert (parameters.stop, parameters.presence_penalty_milli) == (("END",), -1_000)
    assert [(bias.token, bias.bias_milli) for bias in parameters.logit_bias] == [(5, -100_000)]


def test_every_choice_has_its_own_seed() -> None:
    assert [ask.parameters.seed for ask in chat(n=3, seed=2**32 - 1).asks] == [2**32 - 1, 0, 1]


def test_without_a_seed_answers_differ() -> None:
    assert chat().asks[0].parameters.seed != chat().asks[0].parameters.seed


def test_how_many_may_work_on_it_is_in_the_routing_object() -> None:
    """Races, hedges, and whether others take over; what is not said is as configured."""
    routing = {"race": 2, "hedge_percent": 150, "allow_fallbacks": False}
    choice = chat(provider=routing).asks[0].choice
    assert (choice.race, choice.hedge_factor_milli) == (2, 1_500)
    assert not choice.fallbacks
    assert not choice.elsewhere
    assert chat(provider={}).asks[0].choice == chat().asks[0].choice
    assert chat().asks[0].choice.fallbacks
    assert chat(peerd={"early_close_bids": 0}).asks[0].early_close_bids == 0
    assert chat().asks[0].early_close_bids == 3


def test_an_order_has_others_after_it_unless_it_may_not() -> None:
    """Without fallbacks nobody else is asked; those of the order stand in for each other."""
    one, two = public_key(ONE), public_key(TWO)
    (ask,) = chat(provider={"order": [TWO, ONE]}).asks
    assert (ask.choice.order, ask.filters.providers_only) == ((two, one), ())
    (ask,) = chat(provider={"order": [TWO, ONE], "allow_fallbacks": False}).asks
    assert ask.filters.providers_only == (two, one)
    assert ask.choice.fallbacks
    (ask,) = chat(provider={"order": [TWO, ONE], "only": [ONE], "allow_fallbacks": False}).asks
    assert ask.filters.providers_only == (one,)


def test_weights_are_as_of_the_command_line() -> None:
    """Those given mean the weighted strategy; together they are at most the whole."""
    (ask,) = chat(peerd={"price_weight": 200, "reputation_weight": 600}).asks
    assert (ask.choice.strategy.value, ask.choice.reputation_weight) == ("weighted", 600)
    assert ask.strategy == Strategy(500, 500)
    with pytest.raises(ConfigError):
        chat(peerd={"price_weight": 600, "reputation_weight": 600})


def test_quantisations_are_openrouter_s_or_a_file_s() -> None:
    routing = {"quantizations": ["int4", "FP8", "q8_0"]}
    assert chat(provider=routing).asks[0].choice.quantizations == ("int4", "fp8", "Q8_0")
    assert chat(provider={}).asks[0].choice.quantizations == ()


def test_prices_a_token_cap_the_whole_job() -> None:
    """512 tokens is the least prompt bucket: 512 at 15 and 100 at 60 credits a million."""
    (ask,) = chat(max_tokens=100, provider={"max_price": {"prompt": 15, "completion": "60"}}).asks
    assert ask.price_max_ucr == 512 * 15 + 100 * 60
    assert ask.choice.input_price_max_ucr == 15_000_000
    (ask,) = chat(max_tokens=100, peerd={"max_price": "0.5"}).asks
    assert ask.price_max_ucr == 500_000
    assert (ask.choice.input_price_max_ucr, ask.choice.output_price_max_ucr) == (None, None)
    (half,) = chat(provider={"max_price": {"completion": "60"}}).asks
    assert (half.choice.input_price_max_ucr, half.choice.output_price_max_ucr) == (
        None,
        60 * 10**6,
    )
    assert half.price_max_ucr == chat().asks[0].price_max_ucr


def test_a_schema_constrains_the_output() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (ask,) = chat(response_format=form).asks
    assert ask.parameters.constraint.kind is ConstraintKind.JSON_SCHEMA
    assert json.loads(ask.parameters.constraint.text) == schema


def test_a_forced_tool_constrains_and_instructs() -> None:
    wanted = chat(tools=[TOOL], tool_choice="required")
    (ask,) = wanted.asks
    assert wanted.tool_names == ("weather",)
    assert ask.parameters.constraint.kind is ConstraintKind.JSON_SCHEMA
    assert "weather" in ask.prompt.messages[0].content
    assert chat(tools=[TOOL], tool_choice="none").tool_names == ()


def test_a_tool_s_result_is_a_turn() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    wanted = chat(
        messages=[
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ]
    )
    turns = wanted.asks[0].prompt.messages
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert json.loads(turns[1].content)["name"] == "weather"
    assert "sunny" in turns[2].content


def test_a_completion_is_raw_text() -> None:
    body = parse_body(b'{"model": "m", "prompt": ["once"], "max_tokens": 3}', CompletionBody)
    (ask,) = completion_asks(body, RequesterConfig()).asks
    assert ask.prompt.inference_type is InferenceType.COMPLETION
    assert ask.prompt.messages[0].content == "once"
