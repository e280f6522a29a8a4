"""Jobs as requests to a server, and streams cut into events; both without a socket.

Source: OpenAI API reference, "Chat completions"; WHATWG HTML, "Server-sent events".
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.completions import Answer, estimated_tokens, request_of
from engine.interface import JobSpec, Tokens
from engine.sse import EventStream
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    FinishReason,
    GenerationParameters,
    InferenceType,
    LogitBias,
    OutputConstraint,
    Prompt,
)

CHAT = Prompt(
    InferenceType.CHAT, (ChatMessage("system", "Be brief."), ChatMessage("user", "Héllo"))
)


def body_of(prompt: Prompt = CHAT, **options: object) -> dict[str, object]:
    values = {"temperature_milli": 0, "top_k": 0, "top_p_milli": 1_000, "seed": 7, "stop": ()}
    parameters = GenerationParameters(9, **{**values, **options})
    return request_of(JobSpec(b"1", "m", prompt, parameters), "the/M")[1]


def test_a_greedy_chat():
    assert body_of(stop=("END",)) == {
        "model": "the/M",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "seed": 7,
        "temperature": 0,
        "stop": ["END"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Héllo"},
        ],
    }


def test_a_completion_is_asked_for_as_one():
    prompt = Prompt(InferenceType.COMPLETION, (ChatMessage("user", "Once"),))
    spec = JobSpec(b"1", "m", prompt, GenerationParameters(9, 0, 0, 1_000, 1, ()))
    path, body = request_of(spec, "M")
    assert (path, body["prompt"]) == ("/completions", "Once")
    assert "messages" not in body


def test_sampling_in_fractions():
    body = body_of(
        temperature_milli=700,
        top_k=40,
        top_p_milli=900,
        min_p_milli=50,
        presence_penalty_milli=-500,
        frequency_penalty_milli=250,
        logit_bias=(LogitBias(5, -100_000),),
    )
    expected = {
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.05,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"5": -100.0},
    }
    assert {key: body[key] for key in expected} == expected


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p_milli": 0}])
def test_one_candidate_is_greedy_as_here(options):
    """As engine.sampling has it; a server may read a top_p of 0 otherwise."""
    body = body_of(temperature_milli=900, **options)
    assert body["temperature"] == 0
    assert not body.keys() & {"top_k", "top_p"}


def test_json_and_schemas():
    any_json = OutputConstraint(ConstraintKind.JSON, "")
    assert body_of(constraint=any_json)["response_format"] == {"type": "json_object"}
    schema = OutputConstraint(ConstraintKind.JSON_SCHEMA, '{"type": "object"}')
    asked = body_of(constraint=schema)["response_format"]
    assert asked["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize(
    "options",
    [
        {"stop_tokens": (2,)},
        {"repeat_penalty_milli": 1_100},
        {"constraint": OutputConstraint(ConstraintKind.GRAMMAR, 'root ::= "a"')},
        {"constraint": OutputConstraint(ConstraintKind.JSON_SCHEMA, "{")},
        {"constraint": OutputConstraint(ConstraintKind.JSON_SCHEMA, "[" * 9_999)},
        {"prompt": Prompt(InferenceType.CHAT, (ChatMessage("user", "\ud83c"),))},
    ],
)
def test_what_can_not_be_asked_for_is_refused(options):
    with pytest.raises(EngineError) as caught:
        body_of(**options)
    assert caught.value.code == "engine.bad_spec"


def test_the_estimate_counts_bytes_and_messages():
    """9 + 6 bytes (é has two) at 4 a token, and 4 tokens a message."""
    assert estimated_tokens(CHAT) == 4 + 8


# --- events --------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=9)),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(1, 7)),
)
def test_events_come_out_however_the_bytes_come_in(payloads, newline, sizes):
    """Comments and other fields between them; cut anywhere, in a character too."""
    lines = [f": hi{newline}event: x{newline}data: {text}{newline}{newline}" for text in payloads]
    raw = "".join(lines).encode()
    stream, found = EventStream(), []
    while raw:
        size = sizes.pop() if sizes else len(raw)
        found += stream.push(raw[:size])
        raw = raw[size:]
    assert found == payloads
    assert list(stream.end()) == []


def test_the_last_event_may_lack_its_empty_line():
    stream = EventStream()
    assert list(stream.push(b"data:a\ndata: b\n\ndata: [DONE]\n")) == ["a\nb"]
    assert list(stream.end()) == ["[DONE]"]


def test_an_event_without_end_is_refused():
    stream = EventStream()
    with pytest.raises(EngineError):
        list(stream.push(b"x" * (limits.REMOTE_EVENT_BYTES_MAX + 1)))


def test_an_event_of_many_lines_is_bounded_as_a_whole():
    stream = EventStream()
    lines = limits.REMOTE_EVENT_BYTES_MAX // 8
    assert list(stream.push(b"data: 3456789\n" * lines)) == []
    with pytest.raises(EngineError):
        list(stream.push(b"data:\ndata:1\n"))


# --- answers -------------------------------------------------------------------------------


def answer_of(*payloads: object, most: int = 16, logprobs: int = 0) -> tuple[Answer, list[Tokens]]:
    found: list[Tokens] = []
    asked = GenerationParameters(most, 0, 0, 1_000, 1, (), logprobs=logprobs)
    answer = Answer(asked, found.append)
    for payload in payloads:
        answer.take(payload if isinstance(payload, str) else json.dumps(payload))
    return answer, found


def test_a_completion_has_its_text_in_the_choice():
    answer, found = answer_of(
        {"choices": [{"text": "a", "finish_reason": None}]},
        {"choices": [{"text": "", "finish_reason": "length"}]},
        "[DONE]",
    )
    assert found == [Tokens("a", 1)]
    assert (answer.is_over, answer.reason) == (True, FinishReason.LENGTH)


def test_hidden_reasoning_counts_and_is_not_shown():
    _, found = answer_of(
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"reasoning": "hm"}}]},
        {"choices": [{"delta": {"content": "a"}}]},
    )
    assert found == [Tokens("", 1), Tokens("", 1), Tokens("a", 1)]


def test_usage_with_every_chunk_is_only_believed_at_the_end():
    """vLLM's continuous usage: the sums so far."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer, found = answer_of(
        {"choices": [{"delta": {"content": "a"}}], "usage": usage},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage},
        "[DONE]",
    )
    assert found == [Tokens("a", 1), Tokens("", 1)]
    assert (answer.input_tokens, answer.output_tokens) == (3, 2)
    assert answer.settings == "tokens=usage"


def test_half_a_character_is_not_passed_on():
    """JSON can escape one half of a pair, which is no text."""
    with pytest.raises(EngineError) as caught:
        answer_of('{"choices": [{"delta": {"content": "a\\ud83d"}}]}')
    assert caught.value.code == "engine.remote_failed"
    _, found = answer_of('{"choices": [{"delta": {"content": "\\ud83d\\ude00"}}]}')
    assert found == [Tokens("😀", 1)]


@pytest.mark.parametrize("usage", [{"completion_tokens": -5}, {"completion_tokens": 0}, {}])
def test_usage_that_says_nothing_is_none(usage):
    answer, found = answer_of(
        {"choices": [{"delta": {"content": "a"}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": None, "usage": usage},
    )
    assert (answer.output_tokens, answer.settings) == (1, "tokens=chunks(estimate)")
    assert found == [Tokens("a", 1)]
