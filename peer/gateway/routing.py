"""Whom a body wants asked, and for what prices, as the node's choice, filters and cap.

Rule: peer/gateway/README.md, "Parameters".
"""

from dataclasses import replace
from typing import Final, Literal

from peer.choices import choice_of, choosing
from peer.config import RequesterConfig, credits_of
from peer.gateway.bodies import Amount, Limits, Routing
from peer.gateway.failures import ApiError
from peer.identity import public_key
from protocol.errors import ConfigError, LocalError
from protocol.fields import Prompt, RequestFilter, Strategy
from protocol.quantization import wanted
from protocol.units import cost_ucr
from router.choosing import Choice
from router.quoting import input_tokens_bucket

_STRATEGIES: Final = {
    "price": "cheapest",
    "latency": "fastest",
    "throughput": "fastest",
    "reputation": "reputable",
}

_SIDES: Final[tuple[Literal["prompt", "completion"], ...]] = ("prompt", "completion")


def choice_for(
    routing: Routing, own: Limits, defaults: RequesterConfig
) -> tuple[Strategy, Choice]:
    """How the best is found; what is not said is as configured. ApiError `api.bad_request`,
    ConfigError `config.bad_value`."""
    if routing.sort and (own.price_weight is not None or own.reputation_weight is not None):
        detail = "the weights of peerd and provider.sort each say what is best: give one of them"
        raise ApiError("api.bad_request", detail, param="provider.sort")
    said = {
        "strategy": _STRATEGIES[routing.sort] if routing.sort else None,
        "price_weight": own.price_weight,
        "reputation_weight": own.reputation_weight,
        "reputation_min": own.reputation_min,
        "completed_min": own.completed_min,
        "quantizations": _quantizations(routing),
        "race": routing.race,
        "hedge_percent": routing.hedge_percent,
        # Those of an order stand in for each other whatever it says: see `filters_for`.
        "fallbacks": True if routing.order else routing.allow_fallbacks,
    }
    strategy, choice = choice_of(**choosing(defaults, said))
    prices = [_side_ucr(routing, side) for side in _SIDES]
    return strategy, replace(
        choice,
        order=_keys(routing.order),
        input_price_max_ucr=prices[0],
        output_price_max_ucr=prices[1],
    )


def filters_for(routing: Routing, defaults: RequesterConfig) -> RequestFilter:
    """Who is asked, and who not: without fallbacks, nobody who is not in the order, if there is
    one. ApiError `api.bad_request`."""
    only, ordered = _keys(routing.only), _keys(routing.order)
    others = defaults.fallbacks if routing.allow_fallbacks is None else routing.allow_fallbacks
    if ordered and not others:
        only = tuple(key for key in ordered if not only or key in only)
        if not only:
            raise ApiError("api.bad_request", "nobody of order is in only", param="provider.order")
    return RequestFilter(b"", only, _keys(routing.ignore))


def price_cap_ucr(
    routing: Routing, own: Limits, prompt: Prompt, tokens: int, defaults: RequesterConfig
) -> int:
    """The least of the configured cap, or the request's own, and what its prices a token come to,
    where both are given."""
    cap = credits_of("max_price", defaults.max_price)
    if own.max_price is not None:
        cap = _ucr(own.max_price, "peerd.max_price")
    read, made = _side_ucr(routing, "prompt"), _side_ucr(routing, "completion")
    if read is not None and made is not None:
        cap = min(cap, cost_ucr(input_tokens_bucket(prompt), tokens, read, made))
    return cap


def _side_ucr(routing: Routing, side: Literal["prompt", "completion"]) -> int | None:
    amount = routing.max_price.get(side)
    return None if amount is None else _ucr(amount, "provider.max_price")


def _quantizations(routing: Routing) -> tuple[str, ...]:
    try:
        return tuple(map(wanted, routing.quantizations))
    except LocalError as error:
        raise ApiError("api.bad_request", error.detail, param="provider.quantizations") from error


def _keys(peers: list[str]) -> tuple[bytes, ...]:
    try:
        return tuple(map(public_key, peers))
    except ConfigError as error:
        raise ApiError("api.bad_request", error.detail, param="provider") from error


def _ucr(amount: Amount, name: str) -> int:
    """Credits of a JSON string, or of a number at six decimals."""
    text = amount if isinstance(amount, str) else f"{amount:.6f}"
    try:
        return credits_of(name, text)
    except ConfigError as error:
        raise ApiError("api.bad_request", error.detail, param=name) from error
