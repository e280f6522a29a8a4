"""What a program says of a request, as the control socket takes it; the rest is configured."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

from peer.asking import parse_options, to_ask
from peer.choices import choosing
from peer.config import RequesterConfig, credits_of
from protocol.errors import ConfigError

Json = dict[str, Any]
# A question, or a chat: [{"role": "user", "content": "Why?"}, ...]
Prompt = str | Sequence[Mapping[str, str]]


class AskSettings(TypedDict, total=False):
    """How to ask; what is left out is as in `[requester]`, and as `peerd ask` has it.

    Amounts are credits in strings, `only` and `ignore` hold peer ids; `raw` takes the prompt as
    text to continue; `auction` collects bids whatever offers stand.
    """

    model: str
    system: str
    raw: bool
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    stop: Sequence[str]
    logprobs: int
    max_price: str
    deposit: str
    advance: str
    window_ms: int
    early_close_bids: int
    timeout_s: int
    strategy: str
    price_weight: int
    reputation_weight: int
    reputation_min: int
    completed_min: int
    quantizations: Sequence[str]
    race: int
    hedge_percent: int
    fallbacks: bool
    only: Sequence[str]
    ignore: Sequence[str]
    auction: bool


OUTPUT_TOKENS_DEFAULT = 256


def ask_params(
    prompt: Prompt, settings: Mapping[str, Any], defaults: RequesterConfig, *, embed: bool = False
) -> Json:
    """A request for the control socket's `ask`. ConfigError `config.bad_value`."""
    known = AskSettings.__annotations__
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError("config.bad_value", f"there is no setting {name}{hint}")
    # What is None is left out: a program can pass on what it was given.
    said = {name: value for name, value in settings.items() if value is not None}
    pick = said.get
    options = parse_options(
        {
            "model": pick("model", defaults.model),
            "messages": _messages(prompt, pick("system", "")),
            "chat": not pick("raw", False),
            "embedding": embed,
            "max_tokens": pick("max_tokens", OUTPUT_TOKENS_DEFAULT),
            "temperature_milli": _milli("temperature", pick("temperature", 0.0)),
            "top_k": pick("top_k", 40),
            "top_p_milli": _milli("top_p", pick("top_p", 0.95)),
            "seed": pick("seed", 1),
            "stop": pick("stop", ()),
            "logprobs": pick("logprobs", 0),
            "max_price_ucr": _ucr("max_price", pick("max_price", defaults.max_price)),
            "deposit_ucr": _ucr("deposit", pick("deposit", defaults.deposit)),
            "advance_ucr": _ucr("advance", pick("advance", defaults.advance)),
            "bid_window_ms": pick("window_ms", defaults.bid_window_ms),
            "early_close_bids": pick("early_close_bids", defaults.early_close_bids),
            "timeout_ms": 1_000 * _whole("timeout_s", pick("timeout_s", defaults.timeout_s)),
            **choosing(defaults, said),
            "providers_only": pick("only", ()),
            "providers_ignored": pick("ignore", ()),
            "use_offers": defaults.standing_offers and not pick("auction", False),
        }
    )
    to_ask(options, 0)  # a wrong peer id should be said before anything is sent
    return asdict(options)


def _messages(prompt: Prompt, system: str) -> list[tuple[str, str]]:
    first = [("system", system)] if system else []
    if isinstance(prompt, str):
        return [*first, ("user", prompt)]
    try:
        return first + [(turn["role"], turn["content"]) for turn in prompt]
    except (KeyError, TypeError) as error:
        detail = "a chat is a list of {'role': ..., 'content': ...}"
        raise ConfigError("config.bad_value", detail) from error


def _milli(name: str, value: Any) -> int:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError("config.bad_value", f"{name}: {value!r} is not a number")
    return round(value * 1_000)


def _whole(name: str, value: Any) -> int:
    if type(value) is not int:
        raise ConfigError("config.bad_value", f"{name}: {value!r} is not a whole number")
    return value


def _ucr(name: str, value: Any) -> int:
    """Credits in a string, so that no float ever touches money."""
    if not isinstance(value, str):
        raise ConfigError("config.bad_value", f'{name}: credits in quotes, such as "0.05"')
    return credits_of(name, value)
