"""Libraries that only the simulator needs, loaded when they are used."""

import importlib
from typing import Any

from protocol.errors import ConfigError


def need(name: str, extra: str = "sim") -> Any:
    """The module, or ConfigError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(
            "config.missing_library",
            f"{package} is not installed; install it with: pip install 'peerd[{extra}]'",
        ) from error
