"""A job as an OpenAI-compatible server wants it, and its answer as an engine gives it.

Pure: no sockets, no time. What the server can't be asked for is refused, never left out.
Source: OpenAI API reference, "Chat completions" and "Completions", which vLLM, llama-server
and Ollama follow. Rule: engine/README.md, "Remote".
"""

from collections.abc import Callable
from typing import Any

import msgspec

from engine.interface import JobSpec, Tokens
from engine.remote_logprobs import Logprobs, read_logprobs
from protocol.errors import EngineError
from protocol.fields import (
    ConstraintKind,
    FinishReason,
    GenerationParameters,
    InferenceType,
    OutputConstraint,
    Prompt,
    TokenLogprob,
)

Json = dict[str, Any]

CHAT_PATH = "/chat/completions"
TEXT_PATH = "/completions"
DONE = "[DONE]"
# English is about 4 bytes a token; a template adds a few to each message.
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4


def estimated_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has: the server says it only at the end."""
    size = sum(len(message.content.encode("utf-8", "replace")) for message in prompt.messages)
    return -(-size // BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(prompt.messages)


def request_of(spec: JobSpec, model: str) -> tuple[str, Json]:
    """The path under the server's base, and the body. EngineError `engine.bad_spec`."""
    prompt, parameters = spec.prompt, spec.parameters
    body: Json = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": parameters.output_tokens_max,
        **_sampling(parameters),
    }
    if parameters.stop_tokens:
        raise EngineError("engine.bad_spec", "stop_tokens is not supported by this engine")
    if parameters.stop:
        body["stop"] = list(parameters.stop)
    if parameters.constraint is not None:
        body["response_format"] = _response_format(parameters.constraint)
    if any(not _is_text(message.content) for message in prompt.messages):
        raise EngineError("engine.bad_spec", "a message is not valid text")
    if prompt.inference_type is InferenceType.EMBEDDING:
        raise EngineError("engine.bad_spec", "texts to embed are no prompt")
    if prompt.continues and (
        prompt.inference_type is InferenceType.CHAT or parameters.constraint is not None
    ):
        # Servers differ in whether they go on in the last message, or answer it.
        raise EngineError("engine.bad_spec", "this engine can't continue an answer")
    if prompt.inference_type is InferenceType.COMPLETION:
        if parameters.logprobs:
            body["logprobs"] = parameters.logprobs
        text = prompt.messages[0].content + prompt.begun
        return TEXT_PATH, {**body, "prompt": text}
    if parameters.logprobs:
        body |= {"logprobs": True, "top_logprobs": parameters.logprobs}
    turns = [{"role": message.role, "content": message.content} for message in prompt.messages]
    return CHAT_PATH, {**body, "messages": turns}


def _sampling(parameters: GenerationParameters) -> Json:
    if parameters.repeat_penalty_milli != 1_000:
        raise EngineError(
            "engine.bad_spec", "repeat_penalty_milli is not supported by this engine"
        )
    greedy = 0 in (parameters.temperature_milli, parameters.top_p_milli) or parameters.top_k == 1
    body: Json = {"seed": parameters.seed, "temperature": 0}
    if not greedy:
        body["temperature"] = parameters.temperature_milli / 1_000
        body["top_p"] = parameters.top_p_milli / 1_000
        # Not OpenAI's own: a server that does not know these answers 400.
        if parameters.top_k:
            body["top_k"] = parameters.top_k
        if parameters.min_p_milli:
            body["min_p"] = parameters.min_p_milli / 1_000
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(parameters, f"{name}_milli"):
            body[name] = value / 1_000
    if parameters.logit_bias:
        body["logit_bias"] = {
            str(bias.token): bias.bias_milli / 1_000 for bias in parameters.logit_bias
        }
    return body


def _response_format(constraint: OutputConstraint) -> Json:
    if constraint.kind is ConstraintKind.GRAMMAR:
        raise EngineError("engine.bad_spec", "grammars are not supported by this engine")
    if constraint.kind is ConstraintKind.JSON:
        return {"type": "json_object"}
    try:
        schema = msgspec.json.decode(constraint.text)
    except (msgspec.DecodeError, RecursionError):
        raise EngineError("engine.bad_spec", "the schema is not JSON") from None
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": schema},
    }


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- the answer ----------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Answer:
    """One stream's events in, Tokens out; knows how many tokens it has made.

    A chunk with text counts as one token, or as many as it has logprobs, until the server says
    how many there were.
    """

    def __init__(self, parameters: GenerationParameters, emit: Callable[[Tokens], None]) -> None:
        self._most = parameters.output_tokens_max
        self._alternatives = parameters.logprobs
        self._emit = emit
        self._has_usage = False
        self.output_tokens = 0
        self.input_tokens = 0
        self.reason: FinishReason | None = None
        self.is_over = False

    @property
    def settings(self) -> str:
        """How the tokens were counted, for the receipt."""
        return "tokens=usage" if self._has_usage else "tokens=chunks(estimate)"

    def take(self, data: str) -> None:
        """One event; sets `is_over` after the last. EngineError `engine.remote_failed`."""
        if data == DONE:
            self.end()
            return
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise EngineError("engine.remote_failed", "its stream is not of chunks") from None
        if chunk.error is not None:
            raise EngineError("engine.remote_failed", "it reported an error in its stream")
        for choice in (chunk.choices or ())[:1]:
            self._take_choice(choice)
        if chunk.usage is not None and not self.is_over:
            self._take_usage(chunk.usage)

    def end(self) -> None:
        """The stream has ended. EngineError `engine.remote_failed` when it was cut off."""
        if self.reason is None:
            raise EngineError("engine.remote_failed", "its stream ended in the middle")
        self.is_over = True

    def _take_choice(self, choice: _Choice) -> None:
        delta = choice.delta or _Delta()
        text = choice.text or delta.content or ""
        # Tokens that it made and does not show are tokens all the same.
        if text or delta.reasoning_content or delta.reasoning:
            if self.output_tokens >= self._most:
                # It was told how many; what is over is neither shown nor counted.
                self.reason, self.is_over = FinishReason.LENGTH, True
                return
            logprobs: tuple[TokenLogprob, ...] = ()
            if self._alternatives and choice.logprobs is not None:
                logprobs = read_logprobs(choice.logprobs, self._alternatives)
            count = min(max(1, len(logprobs)), self._most - self.output_tokens)
            self.output_tokens += count
            self._emit(Tokens(text, count, (), logprobs[:count]))
        if choice.finish_reason == "content_filter":
            raise EngineError("engine.remote_failed", "its filter cut the answer off")
        if choice.finish_reason:
            length = choice.finish_reason == "length"
            self.reason = FinishReason.LENGTH if length else FinishReason.STOP

    def _take_usage(self, usage: _Usage) -> None:
        """Some servers send it with every chunk; the last one is the whole."""
        if usage.completion_tokens <= 0:
            return
        self._has_usage = True
        self.input_tokens = max(0, usage.prompt_tokens)
        if self.reason is None:
            return
        missing = min(usage.completion_tokens, self._most) - self.output_tokens
        if missing > 0:
            self.output_tokens += missing
            self._emit(Tokens("", missing))
