"""Settings from the environment: PEERD_SECTION_KEY."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from protocol.errors import ConfigError

PREFIX: Final = "PEERD_"
NEAR: Final = 0.9  # of difflib's likeness: a letter or two


def from_environment(
    config: type, environment: Mapping[str, str], others: Collection[str], tables: Collection[str]
) -> dict[str, Any]:
    """PEERD_PROVIDER_INPUT_PRICE=20 becomes provider.input_price; lists are comma-separated.

    `others` are variables that are no settings, `tables` keys that have none. ConfigError:
    `config.bad_value`; `config.unknown_key` for another name that begins as a section, or nearly
    is a setting's, as a mistyped price would sell at one that nobody set. Names that are far from
    any are others': a cluster tells of a service `peerd` by PEERD_SERVICE_HOST and PEERD_PORT.
    """
    found: dict[str, Any] = {}
    known, starts = set(others), set[str]()
    for item in fields(config):
        section = item.default_factory
        name = f"{PREFIX}{item.name}".upper()
        if not (isinstance(section, type) and is_dataclass(section)):
            known.add(name)
            if name in environment:
                found[item.name] = _value(item.name, item.default, environment[name])
            continue
        starts.add(f"{name}_")
        defaults = section()
        for setting in fields(section):
            variable = f"{name}_{setting.name}".upper()
            if setting.name in tables:
                continue
            known.add(variable)
            if variable in environment:
                default = getattr(defaults, setting.name)
                value = _value(setting.name, default, environment[variable])
                found.setdefault(item.name, {})[setting.name] = value
    for variable in sorted(set(environment) - known):
        close = difflib.get_close_matches(variable, sorted(known), n=1, cutoff=NEAR)
        if variable.startswith(PREFIX) and (close or variable.startswith(tuple(starts))):
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError("config.unknown_key", f"the variable {variable}{hint}")
    return found


def _value(name: str, default: Any, text: str) -> Any:
    if isinstance(default, tuple):
        return [part for part in text.split(",") if part]
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ConfigError("config.bad_value", f"{name}: {text!r} is neither true nor false")
        return text == "true"
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError as error:
            raise ConfigError("config.bad_value", f"{name}: {text!r} is no number") from error
    return text
