"""How a request's provider is chosen: what was said for it, else what is configured."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from peer.config import RequesterConfig
from protocol.errors import ConfigError, LocalError
from protocol.fields import Strategy
from protocol.quantization import wanted
from protocol.units import NS_PER_MS
from router.choosing import Choice, StrategyName, weights

Json = dict[str, Any]

NAMES: Final = (
    *("strategy", "price_weight", "reputation_weight"),
    *("reputation_min", "completed_min", "market_factor_percent", "quantizations"),
    *("race", "hedge_percent", "hedge_floor_ms", "fallbacks"),
)
RACE_DEFAULT: Final = 2


def choosing(defaults: RequesterConfig, said: Mapping[str, Any]) -> Json:
    """The settings of NAMES, those of `said` first; None there says nothing.

    Weights that were said mean `weighted`, whatever strategy is configured.
    """
    chosen = {name: getattr(defaults, name) for name in NAMES}
    given = {name: said[name] for name in NAMES if said.get(name) not in (None, ())}
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
    quantizations: Iterable[str],
    race: int,
    hedge_percent: int,
    hedge_floor_ms: int,
    fallbacks: bool,
    *,
    quote: bool = False,
) -> tuple[Strategy, Choice]:
    """The request's Strategy and the rest of the choice. ConfigError `config.bad_value`."""
    try:
        ranked, reputation = weights(strategy, price_weight, reputation_weight)
        asked = tuple(map(wanted, quantizations))
    except LocalError as error:
        raise ConfigError("config.bad_value", error.detail) from error
    if strategy == "race" and race == 1:
        race = RACE_DEFAULT
    return ranked, Choice(
        reputation_weight=reputation,
        reputation_min=reputation_min,
        completed_min=completed_min,
        market_factor_milli=10 * market_factor_percent,
        quote=quote,
        race=race,
        hedge_factor_milli=10 * hedge_percent,
        hedge_floor_ns=hedge_floor_ms * NS_PER_MS,
        elsewhere=fallbacks,
        fallbacks=fallbacks,
        quantizations=asked,
        strategy=StrategyName(strategy),
    )
