"""A chat's turns: what is sent with a question, and what is forgotten first.

Source: peer/client/conversation.py.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from peer.client.answer import Answer
from peer.client.conversation import Conversation
from protocol import limits


def answered(text: str, input_tokens: int = 10) -> Answer:
    receipt: dict[str, Any] = {"input_tokens": input_tokens, "cost_ucr": 1, "receipt_id": "00"}
    return Answer(pieces=[text], receipt=receipt)


def roles(prompt: list[dict[str, str]]) -> list[str]:
    return [turn["role"] for turn in prompt]


def test_a_question_comes_with_the_turns_before_it() -> None:
    chat = Conversation("Be brief.")
    assert roles(chat.prompt("a", 10)) == ["system", "user"]
    chat.add("a", answered("b"))
    assert roles(chat.prompt("c", 10)) == ["system", "user", "assistant", "user"]
    chat.clear()
    assert roles(chat.prompt("c", 10)) == ["system", "user"]


def test_the_oldest_turns_are_forgotten_and_the_system_s_never() -> None:
    chat = Conversation("s" * 20, context_tokens=200)
    for number in range(5):
        sent = 20 + 100 * number + 50  # two bytes a token
        chat.add(f"{number}" * 50, answered("x" * 50, input_tokens=sent // 2))
    prompt = chat.prompt("now", 50)
    assert prompt[0]["role"] == "system"
    assert prompt[-1]["content"] == "now"
    assert 0 < chat.pruned_turns < 10
    assert [turn["content"][0] for turn in prompt if turn["role"] == "user"][-2] == "4"


def test_a_receipt_says_how_long_texts_are() -> None:
    """A tokenizer of one token a byte leaves room for half of what was thought."""
    few, many = Conversation(context_tokens=250), Conversation(context_tokens=250)
    few.add("q" * 100, answered("a" * 100, input_tokens=20))
    many.add("q" * 100, answered("a" * 100, input_tokens=100))
    few.prompt("next", 50)
    many.prompt("next", 50)
    assert (few.pruned_turns, many.pruned_turns) == (0, 2)


def test_a_question_that_never_fits_is_sent_alone() -> None:
    chat = Conversation(context_tokens=64)
    chat.add("a", answered("b"))
    assert roles(chat.prompt("q" * 1_000, 60)) == ["user"]
    assert not chat.forget()


@given(
    st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=40),
    st.integers(0, 400),
)
def test_what_is_sent_ends_with_the_newest_turns(
    turns: list[tuple[str, str]], context_tokens: int
) -> None:
    chat = Conversation(context_tokens=context_tokens)
    said = []
    for question, text in turns:
        chat.add(question, answered(text))
        said += [question, text]
    prompt = chat.prompt("last", 10)
    sent = [turn["content"] for turn in prompt[:-1]]
    assert sent == said[len(said) - len(sent) :]
    assert len(prompt) <= limits.CHAT_MESSAGES_MAX
    assert len(sent) % 2 == 0
