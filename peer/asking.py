"""What a local program asks for, checked, as the node's Ask. Amounts in ucr, times in ms."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from peer.choices import NAMES, choice_of
from peer.config import EarlyClose, Quantizations
from peer.identity import public_key
from protocol import limits
from protocol.errors import ConfigError
from protocol.fields import (
    U32,
    ChatMessage,
    Deposit,
    GenerationParameters,
    InferenceType,
    ModelName,
    Price,
    Prompt,
    RequestFilter,
)
from protocol.units import NS_PER_MS
from router.actions import Ask, RequestKey

# The client's key under which this task, and those that it starts, make requests.
current_key: ContextVar[RequestKey | None] = ContextVar("current_key", default=None)


@dataclass(frozen=True, slots=True)
class AskOptions:
    """One request, as the control socket and the command line give it.

    `messages` are (role, content); `chat` False takes the one message as raw text;
    `embedding` makes a vector of each message instead of an answer.
    `price_weight` and `reputation_weight` are in 1/1000, the rest goes to latency. Provider lists
    hold peer ids. `race` awards run at once until one brings text; one that is later than
    `hedge_percent` of its promise gets a second beside it. Without `fallbacks` no other provider
    takes over from one that fails. `quote` asks for bids alone. The window may end early with
    `early_close_bids` (0: never). Providers have to state one of `quantizations`, if any.
    """

    model: ModelName
    messages: Annotated[
        tuple[tuple[str, str], ...], Meta(min_length=1, max_length=limits.CHAT_MESSAGES_MAX)
    ]
    chat: bool
    max_tokens: Annotated[int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX)]
    temperature_milli: Annotated[int, Meta(ge=0, le=5_000)]
    seed: Annotated[int, Meta(ge=0, le=limits.U32_MAX)]
    stop: Annotated[tuple[str, ...], Meta(max_length=limits.STOP_STRINGS_MAX)]
    max_price_ucr: Price
    deposit_ucr: Deposit
    advance_ucr: Deposit
    bid_window_ms: Annotated[int, Meta(ge=10, le=10_000)]
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)]
    price_weight: Annotated[int, Meta(ge=0, le=1_000)]
    providers_only: tuple[str, ...] = ()
    providers_ignored: tuple[str, ...] = ()
    top_k: Annotated[int, Meta(ge=0, le=1_000)] = 40
    top_p_milli: Annotated[int, Meta(ge=0, le=1_000)] = 950
    use_offers: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)] = 0
    stop_tokens: Annotated[tuple[U32, ...], Meta(max_length=limits.STOP_TOKENS_MAX)] = ()
    embedding: bool = False
    strategy: Literal["cheapest", "fastest", "reputable", "weighted", "race"] = "weighted"
    reputation_weight: Annotated[int, Meta(ge=0, le=1_000)] = 0
    reputation_min: Annotated[int, Meta(ge=0, le=1_000)] = 0
    completed_min: U32 = 0
    market_factor_percent: Annotated[int, Meta(ge=0, le=100_000)] = 0
    race: Annotated[int, Meta(ge=1, le=limits.RACE_MAX)] = 1
    hedge_percent: Annotated[int, Meta(ge=0, le=10_000)] = 0
    hedge_floor_ms: Annotated[int, Meta(ge=0, le=60_000)] = 1_000
    fallbacks: bool = True
    quote: bool = False
    early_close_bids: EarlyClose = 3
    quantizations: Quantizations = ()


def parse_options(data: Any) -> AskOptions:
    """Options from a decoded JSON object. ConfigError `config.bad_value`."""
    try:
        return msgspec.convert(data, AskOptions)
    except msgspec.ValidationError as error:
        raise ConfigError("config.bad_value", str(error).replace("$.", "")) from error


def to_ask(options: AskOptions, ask_id: int) -> Ask:
    """The node's input for these options. ConfigError `config.bad_value` for a bad peer id."""
    inference = InferenceType.CHAT if options.chat else InferenceType.COMPLETION
    if options.embedding:
        inference = InferenceType.EMBEDDING
    messages = tuple(ChatMessage(role, content) for role, content in options.messages)
    strategy, choice = choice_of(*(getattr(options, name) for name in NAMES), quote=options.quote)
    return Ask(
        ask_id=ask_id,
        model=options.model,
        prompt=Prompt(inference, messages),
        parameters=GenerationParameters(
            output_tokens_max=options.max_tokens,
            temperature_milli=options.temperature_milli,
            top_k=options.top_k,
            top_p_milli=options.top_p_milli,
            seed=options.seed,
            stop=options.stop,
            logprobs=options.logprobs,
            stop_tokens=options.stop_tokens,
        ),
        price_max_ucr=options.max_price_ucr,
        timeout_ns=options.timeout_ms * NS_PER_MS,
        bid_window_ns=options.bid_window_ms * NS_PER_MS,
        strategy=strategy,
        filters=RequestFilter(
            model_digest=b"",
            providers_only=tuple(map(public_key, options.providers_only)),
            providers_ignored=tuple(map(public_key, options.providers_ignored)),
        ),
        deposit_ucr=options.deposit_ucr,
        advance_max_ucr=options.advance_ucr,
        use_offers=options.use_offers,
        choice=choice,
        early_close_bids=options.early_close_bids,
        key=current_key.get(),
    )
