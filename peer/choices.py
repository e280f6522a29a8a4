"""How a request's provider is chosen: what was said for it, else what is configured."""

from collections.abc import Mapping
from typing import Any, Final

from peer.config import RequesterConfig
from protocol.errors import ConfigError, LocalError
from protocol.fields import Strategy
from router.choosing import Choice, weights

Json = dict[str, Any]

NAMES: Final = (
    *("strategy", "price_weight", "reputation_weight"),
    *("reputation_min", "completed_min", "market_factor_percent"),
)


def choosing(defaults: RequesterConfig, said: Mapping[str, Any]) -> Json:
    """The settings of NAMES, those of `said` first; None there says nothing.

    Weights that were said mean `weighted`, whatever strategy is configured.
    """
    chosen = {name: getattr(defaults, name) for name in NAMES}
    given = {name: said[name] for name in NAMES if said.get(name) is not None}
    if "strategy" not in given and {"price_weight", "reputation_weight"} & given.keys():
        given["strategy"] = "weighted"
    return chosen | given


def choice_of(
    strategy: str,
    price_weight: int,
    reputation_weight: int,
    reputation_min: int,
    completed_min: int,
    market_factor_percent: int,
    *,
    quote: bool = False,
) -> tuple[Strategy, Choice]:
    """The request's Strategy and the rest of the choice. ConfigError `config.bad_value`."""
    try:
        ranked, reputation = weights(strategy, price_weight, reputation_weight)
    except LocalError as error:
        raise ConfigError("config.bad_value", error.detail) from error
    factor_milli = 10 * market_factor_percent
    return ranked, Choice(reputation, reputation_min, completed_min, factor_milli, quote)
