"""OpenAI's parameters as the node's Ask: integers, bounds, caps in ucr.

Rule: peer/gateway/README.md, "Parameters".
"""

import json
import math
import secrets
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from peer.config import RequesterConfig, credits_of
from peer.gateway import tools
from peer.gateway.bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    Limits,
    Message,
    Routing,
    Sampling,
)
from peer.gateway.failures import ApiError
from peer.gateway.routing import choice_for, filters_for, price_cap_ucr
from protocol import limits
from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    GenerationParameters,
    InferenceType,
    LogitBias,
    OutputConstraint,
    Prompt,
)
from protocol.units import NS_PER_MS, NS_PER_S
from router.actions import Ask

# Without `max_tokens` an answer may be this long: its worst case is what a bid is judged by.
OUTPUT_TOKENS_DEFAULT: Final = 1_024
# OpenAI has no top_k; without one, a small model's unlikely tokens add up.
TOP_K_DEFAULT: Final = 40


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request: one Ask for each choice, and how its answer is given."""

    asks: tuple[Ask, ...]
    model: str
    stream: bool
    include_usage: bool
    chat: bool
    tool_names: tuple[str, ...] = ()
    top_logprobs: int = 0
    encoding: str = ""  # of vectors, where they are what is asked for: float or base64


def chat_asks(body: ChatBody, defaults: RequesterConfig) -> Wanted:
    """A chat's asks, without ids. ApiError `api.bad_request`, `api.unsupported`."""
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise ApiError("api.bad_request", "max_tokens and max_completion_tokens are one thing")
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError("api.bad_request", "top_logprobs needs logprobs", param="top_logprobs")
    messages = tuple(_chat_message(message) for message in body.messages)
    use = tools.plan(body.tools or [], body.tool_choice)
    constraint = use.constraint
    if use.instructions:
        messages = (ChatMessage("system", use.instructions), *messages)
    wanted_form = body.response_format
    if wanted_form is not None and wanted_form.type != "text":
        if constraint is not None:
            raise ApiError("api.unsupported", "response_format beside a forced tool call")
        constraint = _constraint(wanted_form.type, wanted_form.json_schema)
    if len(messages) > limits.CHAT_MESSAGES_MAX:
        raise ApiError("api.bad_request", "too many messages", param="messages")
    prompt = Prompt(InferenceType.CHAT, messages)
    tokens = body.max_completion_tokens or body.max_tokens
    logprobs = _logprobs(body.logprobs, body.top_logprobs)
    wanted = _wanted(body, prompt, tokens, constraint, logprobs, defaults)
    top = body.top_logprobs or 0
    return replace(wanted, tool_names=use.names, top_logprobs=top) if use.names or top else wanted


def completion_asks(body: CompletionBody, defaults: RequesterConfig) -> Wanted:
    """A completion's asks, without ids. ApiError `api.bad_request`, `api.unsupported`."""
    for name in ("echo", "suffix"):
        if getattr(body, name):
            raise ApiError("api.unsupported", name, param=name)
    if body.best_of not in (None, body.n or 1):
        raise ApiError("api.unsupported", "best_of other than n", param="best_of")
    text = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    prompt = Prompt(InferenceType.COMPLETION, (ChatMessage("user", text),))
    return _wanted(body, prompt, body.max_tokens, None, body.logprobs or 0, defaults)


def embedding_asks(body: EmbeddingBody, defaults: RequesterConfig) -> Wanted:
    """The asks for a list of texts, some of them each. ApiError `api.unsupported`."""
    if body.dimensions is not None:
        raise ApiError("api.unsupported", "dimensions other than the model's", param="dimensions")
    texts = [body.input] if isinstance(body.input, str) else body.input
    like = CompletionBody(model=body.model, prompt="", provider=body.provider, peerd=body.peerd)
    asks: tuple[Ask, ...] = ()
    for start in range(0, len(texts), limits.API_TEXTS_PER_JOB):
        some = texts[start : start + limits.API_TEXTS_PER_JOB]
        messages = tuple(ChatMessage("user", text) for text in some)
        prompt = Prompt(InferenceType.EMBEDDING, messages)
        asks += _wanted(like, prompt, 1, None, 0, defaults).asks
    encoding = body.encoding_format or "float"
    return Wanted(asks, body.model, False, False, False, encoding=encoding)


def _logprobs(wanted: bool | None, top: int | None) -> int:
    """How many alternatives to ask for: the market has no 0 of them beside the chosen one."""
    return max(1, top or 0) if wanted else 0


def _constraint(kind: str, schema: object) -> OutputConstraint:
    if kind == "json_object":
        return OutputConstraint(ConstraintKind.JSON, "")
    wanted = getattr(schema, "schema", None)
    if not wanted:
        raise ApiError("api.bad_request", "json_schema.schema is missing", param="response_format")
    return schema_constraint(wanted)


def schema_constraint(schema: object) -> OutputConstraint:
    """A JSON schema as a job's constraint. ApiError `api.bad_request` when it is too long."""
    text = json.dumps(schema, ensure_ascii=False)
    if len(text) > limits.CONSTRAINT_CHARS_MAX:
        raise ApiError("api.bad_request", "the schema is too long")
    return OutputConstraint(ConstraintKind.JSON_SCHEMA, text)


def _chat_message(message: Message) -> ChatMessage:
    """A turn as the market has them: system, user or assistant, and text."""
    content = message.content
    if isinstance(content, list):
        for part in content:
            if part.type != "text":
                raise ApiError("api.unsupported", f"content of type {part.type[:20]!r}")
        content = "".join(part.text for part in content)
    if content is None and not message.tool_calls:
        raise ApiError("api.bad_request", "a message without content", param="messages")
    role = "system" if message.role == "developer" else message.role
    text = content or ""
    if message.tool_calls:
        text = tools.calls_text(text, message.tool_calls)
    if role == "tool":
        role, text = "user", tools.result_text(message.tool_call_id or "", text)
    if len(text) > limits.MESSAGE_TEXT_CHARS_MAX:
        raise ApiError("api.bad_request", "a message is too long", param="messages")
    return ChatMessage(role, text)


def _wanted(
    body: Sampling,
    prompt: Prompt,
    output_tokens: int | None,
    constraint: OutputConstraint | None,
    logprobs: int,
    defaults: RequesterConfig,
) -> Wanted:
    tokens = output_tokens or OUTPUT_TOKENS_DEFAULT
    routing, own = body.provider or Routing(), body.peerd or Limits()
    seed = secrets.randbits(32) if body.seed is None else body.seed % 2**32
    parameters = _parameters(body, tokens, constraint, seed, logprobs)
    timeout_s = own.timeout_s or defaults.timeout_s
    window_ms = own.window_ms or defaults.bid_window_ms
    early = own.early_close_bids
    strategy, choice = choice_for(routing, own, defaults)
    cap_ucr = price_cap_ucr(routing, own, prompt, tokens, defaults)
    asks = tuple(
        Ask(
            ask_id=0,
            model=body.model,
            prompt=prompt,
            parameters=replace(parameters, seed=(seed + index) % 2**32) if index else parameters,
            price_max_ucr=cap_ucr,
            timeout_ns=timeout_s * NS_PER_S,
            bid_window_ns=window_ms * NS_PER_MS,
            strategy=strategy,
            filters=filters_for(routing, defaults),
            deposit_ucr=credits_of("deposit", defaults.deposit),
            advance_max_ucr=credits_of("advance", defaults.advance),
            use_offers=defaults.standing_offers,
            choice=choice,
            early_close_bids=defaults.early_close_bids if early is None else early,
        )
        for index in range(body.n or 1)
    )
    usage = body.stream_options is not None and body.stream_options.include_usage
    chat = prompt.inference_type is InferenceType.CHAT
    return Wanted(asks, body.model, bool(body.stream), usage, chat)


def _milli(value: float | None, default: float) -> int:
    chosen = default if value is None else value
    if not math.isfinite(chosen):
        raise ApiError("api.bad_request", "not a finite number")
    return round(chosen * 1_000)


def _parameters(
    body: Sampling, tokens: int, constraint: OutputConstraint | None, seed: int, logprobs: int
) -> GenerationParameters:
    stop = body.stop if body.stop is not None else []
    biases = []
    for token, bias in (body.logit_bias or {}).items():
        if not (token.isascii() and token.isdigit() and len(token) <= 9 and abs(bias) <= 100):
            raise ApiError("api.bad_request", "token ids to -100..100", param="logit_bias")
        biases.append(LogitBias(int(token), round(bias * 1_000)))
    parameters = GenerationParameters(
        output_tokens_max=tokens,
        temperature_milli=_milli(body.temperature, 1.0),
        top_k=TOP_K_DEFAULT if body.top_k is None else body.top_k,
        top_p_milli=_milli(body.top_p, 1.0),
        seed=seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        min_p_milli=_milli(body.min_p, 0.0),
        presence_penalty_milli=_milli(body.presence_penalty, 0.0),
        frequency_penalty_milli=_milli(body.frequency_penalty, 0.0),
        logit_bias=tuple(sorted(biases, key=lambda bias: bias.token)),
        constraint=constraint,
        logprobs=logprobs,
    )
    return msgspec.convert(msgspec.to_builtins(parameters), GenerationParameters)
