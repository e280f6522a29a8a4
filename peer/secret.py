"""Keys and tokens that a person keeps in a variable or in a file of mode 0600.

They are never in an error, a log or a command line.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from protocol import limits
from protocol.errors import ConfigError


def read_secret(setting: str, variable: str, file: str, environment: Mapping[str, str]) -> str:
    """The secret in `variable` if that is set, else in `file`; "" when neither is named.

    ConfigError: `config.unreadable`, `config.key_mode` for a file that others can read,
    `config.bad_value` for one that is empty or can't stand in a header.
    """
    secret = environment.get(variable, "").strip() if variable else ""
    if not secret and file:
        secret = _of_file(setting, Path(file).expanduser())
    if len(secret) > limits.REMOTE_KEY_CHARS_MAX or not secret.isascii():
        raise ConfigError("config.bad_value", f"{setting}: the key is too long or not ASCII")
    if not secret.isprintable():
        detail = f"{setting}: the key has letters that a header can't have"
        raise ConfigError("config.bad_value", detail)
    return secret


def _of_file(setting: str, path: Path) -> str:
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(limits.REMOTE_KEY_CHARS_MAX + 2)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.unreadable", f"{path}: {type(error).__name__}") from None
    if mode & 0o077:
        raise ConfigError("config.key_mode", f"{path} has mode {mode & 0o777:o}")
    if not text.strip():
        raise ConfigError("config.bad_value", f"{setting}: {path} holds no key")
    return text.strip()
