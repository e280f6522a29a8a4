"""Log-probabilities asked of a server and read from its stream, in both of OpenAI's forms.

Source: OpenAI API reference, "Chat completions" and "Completions".
"""

import json

import pytest

from engine.completions import Answer, request_of
from engine.interface import JobSpec, Tokens
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import (
    ChatMessage,
    GenerationParameters,
    InferenceType,
    Prompt,
    TokenChance,
    TokenLogprob,
)

ASKED = GenerationParameters(4, 0, 0, 1_000, 1, (), logprobs=2)
E_ACUTE = [195, 169]


def answer_of(*payloads: object, asked: GenerationParameters = ASKED) -> list[Tokens]:
    found: list[Tokens] = []
    answer = Answer(asked, found.append)
    for payload in payloads:
        answer.take(json.dumps(payload))
    return found


def body_of(kind: InferenceType) -> dict[str, object]:
    prompt = Prompt(kind, (ChatMessage("user", "Hi"),))
    return request_of(JobSpec(b"1", "m", prompt, ASKED), "M")[1]


def chat(content: object, text: str = "x") -> dict[str, object]:
    return {"choices": [{"delta": {"content": text}, "logprobs": {"content": content}}]}


def test_how_they_are_asked_for():
    assert body_of(InferenceType.COMPLETION)["logprobs"] == 2
    body = body_of(InferenceType.CHAT)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


def test_a_chat_names_tokens_with_their_bytes():
    """A chunk with several tokens counts as so many; alternatives beyond those asked for go."""
    top = [{"token": letter, "logprob": -0.5} for letter in "abc"]
    found = answer_of(
        chat(
            [
                {"token": "\ufffd", "bytes": E_ACUTE[:1], "logprob": -1.5, "top_logprobs": top},
                {"token": "\ufffd", "bytes": E_ACUTE[1:], "logprob": -9999.0, "top_logprobs": []},
            ],
            "é",
        )
    )
    best = tuple(TokenChance(letter, -500_000) for letter in (b"a", b"b"))
    first = TokenLogprob(TokenChance(b"\xc3", -1_500_000), best)
    second = TokenLogprob(TokenChance(b"\xa9", limits.LOGPROB_MICRO_MIN), ())
    assert found == [Tokens("é", 2, (), (first, second))]


def test_a_text_has_columns():
    logprobs = {
        "tokens": ["He", "y"],
        "token_logprobs": [None, -0.25],
        "top_logprobs": [None, {"o": -2.0, "y": -0.25, "a": -3.0}],
    }
    found = answer_of({"choices": [{"text": "Hey", "logprobs": logprobs}]})
    y = TokenChance(b"y", -250_000)
    told = TokenLogprob(y, (y, TokenChance(b"o", -2_000_000)))
    assert found == [Tokens("Hey", 1, (), (told,))]


@pytest.mark.parametrize("said", [None, {}, {"content": None}, {"content": []}])
def test_a_server_that_tells_none(said):
    assert answer_of({"choices": [{"text": "a", "logprobs": said}]}) == [Tokens("a", 1)]


def test_what_was_not_asked_for_is_not_told():
    unasked = GenerationParameters(4, 0, 0, 1_000, 1, ())
    found = answer_of(chat([{"token": "x", "logprob": -1.0}] * 3), asked=unasked)
    assert found == [Tokens("x", 1)]


def test_no_more_tokens_than_asked_for():
    found = answer_of(chat([{"token": "x", "logprob": 1.0}] * 9))
    assert found[0].count == len(found[0].logprobs) == 4
    assert found[0].logprobs[0].chosen.logprob_micro == 0


@pytest.mark.parametrize(
    "content",
    [
        "x",
        [{"token": 5, "logprob": -1}],
        [{"token": "x", "logprob": "y"}],
        [{"token": "x", "logprob": -1, "bytes": [256]}],
        [{"token": "x", "logprob": -1, "top_logprobs": [3]}],
    ],
)
def test_nonsense_is_no_stream(content):
    with pytest.raises(EngineError, match="not of chunks"):
        answer_of(chat(content))
