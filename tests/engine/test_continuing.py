"""An answer that one job began and another goes on with: as if nothing had happened.

Source: engine/README.md, "Continuing an answer".
"""

from dataclasses import replace

import pytest

from engine.completions import request_of
from engine.interface import JobSpec
from engine.prompts import PromptReader
from protocol.errors import EngineError
from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    InferenceType,
    OutputConstraint,
    Prompt,
)

FORM = 'root ::= "{a:" ("xy" | "xz") "," [0-9] [0-9] [0-9] "}"'


def continued(prompt: Prompt, begun: str) -> Prompt:
    """The prompt, whose answer began so."""
    return replace(
        prompt, messages=(*prompt.messages, ChatMessage("assistant", begun)), continues=1
    )


@pytest.mark.parametrize("options", [{}, {"temperature_milli": 1_500, "seed": 7}])
@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_the_rest_is_what_it_would_have_been(bench, request, parameters, options, kind):
    """Greedy, and with a seed: the noise goes on where the first job stopped."""
    prompt = request.getfixturevalue(kind)("Once upon a time")
    whole = bench()
    whole.submit(1, prompt, parameters(tokens=24, **options))
    whole.run()
    for made in (1, 9, 23):
        first = bench()
        first.submit(1, prompt, parameters(tokens=made, **options))
        first.run()
        begun, made = first.text(1), first.counted(1)
        rest = bench()
        rest.submit(2, continued(prompt, begun), parameters(tokens=24 - made, **options))
        rest.run()
        assert begun + rest.text(2) == whole.text(1)


@pytest.mark.parametrize("template", ["", "{{ bos_token }}{{ messages[0]['content'] }} ->"])
def test_the_answer_begins_behind_what_the_format_puts_before_it(model, template):
    """Read as one text with it; how many of the tokens are the answer's is known."""
    plain = PromptReader(model.vocabulary, template, 512)
    asked = Prompt(InferenceType.CHAT, (ChatMessage("user", "Hi"),))
    prompt = continued(asked, " Hello there")
    opening, tokens = plain.read(asked), plain.read(prompt)
    assert tokens[: len(opening)] == opening
    assert plain.begun_tokens(prompt) == len(tokens) - len(opening) > 0
    assert plain.begun_tokens(asked) == 0


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(InferenceType.CHAT, (ChatMessage("assistant", "alone"),), 1),
        Prompt(InferenceType.CHAT, (ChatMessage("user", "a"), ChatMessage("user", "b")), 1),
        Prompt(InferenceType.COMPLETION, (ChatMessage("user", "no answer"),), 1),
    ],
)
def test_what_is_no_beginning_of_an_answer(prompts, prompt):
    with pytest.raises(EngineError) as caught:
        prompts.read(prompt)
    assert caught.value.code == "engine.bad_spec"


def test_a_form_goes_on_where_the_answer_stopped(bench, chat, parameters):
    """The grammar reads the beginning first, and what does not begin so is refused."""
    form = OutputConstraint(ConstraintKind.GRAMMAR, FORM)
    wanted = replace(parameters(tokens=24), constraint=form)
    whole = bench()
    whole.submit(1, chat("Say it"), wanted)
    whole.run()
    text = whole.text(1)
    assert text.endswith("}")
    for cut in (1, len(text) // 2, len(text) - 1, len(text)):
        rest = bench()
        rest.submit(2, continued(chat("Say it"), text[:cut]), wanted)
        rest.run()
        assert text[:cut] + rest.text(2) == text
    wrong = bench()
    wrong.submit(3, continued(chat("Say it"), "{b"), wanted)
    wrong.run()
    assert wrong.end(3).code == "engine.bad_spec"


def test_a_remote_server_is_asked_to_continue_raw_text_alone(chat, completion, parameters):
    """Whether a server goes on in a chat's last message or answers it is not the same anywhere."""
    raw = JobSpec(b"1", "m", continued(completion("One, two"), ", three"), parameters())
    assert request_of(raw, "m")[1]["prompt"] == "One, two, three"
    with pytest.raises(EngineError) as caught:
        request_of(JobSpec(b"1", "m", continued(chat("Hi"), "Hel"), parameters()), "m")
    assert caught.value.code == "engine.bad_spec"
