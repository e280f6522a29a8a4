"""From a job's prompt to the tokens that the model reads.

A chat is rendered by the model's own template, with a placeholder for each message's text.
Control tokens are recognised only in what the template wrote; what a person wrote is plain
text whatever it looks like. Template text and messages between two control tokens are
tokenised together, as llama.cpp would, so that joins come out the same; so is the beginning of
an answer that is to be continued with what the template put before it. Must not know
sequences or pipes. Rule: engine/README.md.

A model without a template gets: `System: ...`, `User: ...`, `Assistant: ...`, each followed by
an empty line, then `Assistant:`; its answer also stops at the next `User:`.
"""

import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from jinja2 import TemplateError
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.units import NS_PER_S

ROLES = frozenset({"system", "user", "assistant"})
FALLBACK_STOP = "\nUser:"


class Tokenizer(Protocol):
    """What of a vocabulary is needed here; `engine.native.Vocabulary` is one."""

    control_tokens: dict[str, int]
    begin_token: int | None
    begins_texts: bool
    begin_text: str
    end_text: str
    longest_piece_bytes: int

    def tokenize(self, text: str) -> list[int]:
        """Plain text to tokens."""
        ...


class PromptReader:
    """Renders and tokenises prompts for one model.

    EngineError `engine.bad_model` when its template can't be parsed.
    """

    def __init__(self, vocabulary: Tokenizer, template: str, context_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        names = sorted(vocabulary.control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, names))) if names else None
        self._formatter: Any = None
        if template:
            try:
                self._formatter = Jinja2ChatFormatter(
                    template, eos_token=vocabulary.end_text, bos_token=vocabulary.begin_text
                )
            except TemplateError as error:
                raise EngineError("engine.bad_model", f"chat template: {error}") from None

    def stop_strings(self, prompt: Prompt) -> tuple[str, ...]:
        """The stop strings that the format itself needs."""
        plain_chat = self._formatter is None and prompt.inference_type == InferenceType.CHAT
        return (FALLBACK_STOP,) if plain_chat else ()

    def read(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt, at least one.

        EngineError: `engine.bad_spec` when the template refuses it or takes too long,
        `engine.prompt_too_long` when it leaves no room for a token of output.
        """
        self._check(prompt)
        messages, begun = prompt.opening().messages, prompt.begun
        if prompt.inference_type == InferenceType.COMPLETION:
            tokens = self._vocabulary.tokenize(messages[0].content + begun)
        elif self._formatter is None:
            tokens = self._vocabulary.tokenize(fallback_text(messages) + begun)
        else:
            tokens = self._read_chat(messages, begun)
        begin = self._vocabulary.begin_token
        if begin is not None and (
            not tokens or (self._vocabulary.begins_texts and tokens[0] != begin)
        ):
            tokens.insert(0, begin)
        if not tokens:
            raise EngineError("engine.bad_spec", "the prompt is empty")
        if len(tokens) >= self._context_tokens:
            raise EngineError(
                "engine.prompt_too_long", f"{len(tokens)} tokens, context {self._context_tokens}"
            )
        return tokens

    def begun_tokens(self, prompt: Prompt) -> int:
        """How many tokens of a prompt are its answer's beginning. EngineError: as `read`."""
        if not prompt.continues:
            return 0
        return max(0, len(self.read(prompt)) - len(self.read(prompt.opening())))

    def _check(self, prompt: Prompt) -> None:
        if prompt.inference_type == InferenceType.EMBEDDING:
            raise EngineError("engine.bad_spec", "texts to embed are no prompt")
        completion = prompt.inference_type == InferenceType.COMPLETION
        given = len(prompt.messages) - prompt.continues
        if given < 1 or (completion and given != 1):
            raise EngineError("engine.bad_spec", "the number of messages does not fit the type")
        if prompt.continues and prompt.messages[-1].role != "assistant":
            raise EngineError("engine.bad_spec", "only the assistant's message can be continued")
        size = 0
        for message in prompt.messages:
            if not completion and message.role not in ROLES:
                raise EngineError("engine.bad_spec", "a role is not system, user or assistant")
            try:
                size += len(message.content.encode("utf-8"))
            except UnicodeEncodeError:
                raise EngineError("engine.bad_spec", "a message is not valid text") from None
        # No token holds more bytes than the longest, so this needs no tokenising to refuse.
        if size > self._context_tokens * self._vocabulary.longest_piece_bytes:
            raise EngineError("engine.prompt_too_long", f"{size} bytes of text")

    def _read_chat(self, messages: tuple[ChatMessage, ...], begun: str) -> list[int]:
        # Unguessable, so that no message can contain another one's placeholder.
        secret = secrets.token_hex(16)
        marks = [f"{secret}x{index}x" for index in range(len(messages))]
        turns = [
            {"role": message.role, "content": mark}
            for message, mark in zip(messages, marks, strict=True)
        ]
        rendered = self._render(turns)
        for index, mark in enumerate(marks):
            if mark not in rendered:
                raise EngineError("engine.bad_spec", f"the template drops message {index + 1}")
        tokens: list[int] = []
        plain = ""
        # Odd parts are the numbers that the placeholders' group captured.
        for odd, part in enumerate(re.split(f"{secret}x([0-9]+)x", rendered)):
            if odd % 2:
                plain += messages[int(part)].content
                continue
            for text, control in self._split_control(part):
                plain += text
                if control is not None:
                    tokens += self._vocabulary.tokenize(plain)
                    tokens.append(control)
                    plain = ""
        return tokens + self._vocabulary.tokenize(plain + begun)

    def _split_control(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Template text as (plain text, the control token after it or None at the end)."""
        start = 0
        for match in self._control.finditer(text) if self._control else ():
            yield text[start : match.start()], self._vocabulary.control_tokens[match[0]]
            start = match.end()
        yield text[start:], None

    def _render(self, turns: list[dict[str, str]]) -> str:
        try:
            with _alarm(limits.ENGINE_TEMPLATE_NS_MAX):
                text = str(self._formatter(messages=turns).prompt)
        except _TemplateTimeout:
            raise EngineError("engine.bad_spec", "the chat template takes too long") from None
        # A template is a program: it raises what it likes, `raise_exception` of its own too.
        except (
            TemplateError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            MemoryError,
        ) as error:
            reason = " ".join(str(error).split())[:120]
            raise EngineError("engine.bad_spec", f"chat template: {reason}") from None
        if len(text) > limits.ENGINE_TEMPLATE_CHARS_MAX:
            raise EngineError("engine.prompt_too_long", "the chat template's output is too long")
        return text


def fallback_text(messages: tuple[ChatMessage, ...]) -> str:
    """The plain format for models without a template; described at the top."""
    turns = [f"{message.role.capitalize()}: {message.content}\n\n" for message in messages]
    return "".join(turns) + "Assistant:"


class _TemplateTimeout(BaseException):
    """Not an Exception, so that nothing between here and the template swallows it."""


@contextmanager
def _alarm(duration_ns: int) -> Iterator[None]:
    """Interrupt the block after a time; for a main thread that owns SIGALRM, as a worker's."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TemplateTimeout

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, duration_ns / NS_PER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
