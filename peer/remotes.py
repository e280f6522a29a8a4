"""From `[[provider.remote]]` to the settings of remote engines: addresses checked, keys read.

A key comes from an environment variable or a file of mode 0600, and is never in an error.
"""

import os
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from engine.catalogue import slug
from engine.remote import RemoteSettings
from peer.config_tables import RemoteConfig
from peer.secret import read_secret
from protocol.errors import ConfigError, LocalError
from protocol.quantization import UNKNOWN, wanted


def remote_settings(
    remotes: Iterable[RemoteConfig], environment: Mapping[str, str] = os.environ
) -> list[RemoteSettings]:
    """One engine's settings for each.

    ConfigError: `config.bad_value` for an address, name or key that is none,
    `config.key_mode` for a key file that others can read, `config.unreadable`.
    """
    found: list[RemoteSettings] = []
    for remote in remotes:
        name = remote.name or slug(remote.model)
        if not name or slug(name) != name:
            raise _wrong(f"name {name!r}: lower case letters, digits, dots, dashes, underscores")
        if name in [one.name for one in found]:
            raise _wrong(f"two servers offer {name}; give one of them another name")
        settings = RemoteSettings(
            name=name,
            url=_checked_url(name, remote.url),
            model=remote.model,
            key=_key(remote, environment),
            places=remote.places,
            context_tokens=remote.context_tokens,
            embeds=remote.embeddings,
            quantization=_quantization(remote),
        )
        found.append(settings)
    return found


def _wrong(why: str) -> ConfigError:
    return ConfigError("config.bad_value", f"provider.remote: {why}")


def _quantization(remote: RemoteConfig) -> str:
    try:
        return wanted(remote.quantization or UNKNOWN)
    except LocalError as error:
        raise _wrong(error.detail) from error


def _checked_url(name: str, url: str) -> str:
    """The address without a slash at its end; not repeated in errors: it may hold a password."""
    try:
        parts = urlsplit(url)
        is_address = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or parts.scheme not in ("http", "https"):
        raise _wrong(f"the url of {name} is not http://HOST/v1 or https://HOST/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _wrong(f"the url of {name} holds more than an address; a key is for key_env")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _wrong(f"the url of {name} has letters that an address can't have")
    return url.rstrip("/")


def _key(remote: RemoteConfig, environment: Mapping[str, str]) -> str:
    if remote.key_env and remote.key_file:
        raise _wrong("key_env and key_file: one of them")
    if remote.key_env and not environment.get(remote.key_env, "").strip():
        raise _wrong(f"the variable {remote.key_env} holds no key")
    return read_secret("provider.remote", remote.key_env, remote.key_file, environment)
