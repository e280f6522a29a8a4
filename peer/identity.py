"""The node's key: one ed25519 seed in a file of mode 0600, and the names made from it."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Final

import base58

from protocol.crypto import Signer
from protocol.errors import ConfigError, LocalError

KEY_FILE: Final = "key"
# Multihash "identity", 36 bytes: protobuf PublicKey{Type: Ed25519, Data: 32 bytes}
# (libp2p specs, "Peer Ids and Keys").
_PEER_ID_PREFIX: Final = bytes.fromhex("0024") + bytes.fromhex("08011220")


@lru_cache(maxsize=1_024)
def peer_id(public_key: bytes) -> str:
    """The libp2p peer id of an ed25519 key, as people write it: 12D3KooW..."""
    return base58.b58encode(_PEER_ID_PREFIX + public_key).decode()


def public_key(identity: str) -> bytes:
    """The inverse of `peer_id`. ConfigError `config.bad_value`."""
    try:
        raw = base58.b58decode(identity)
    except ValueError as error:
        raise ConfigError("config.bad_value", f"{identity} is no peer id") from error
    if len(raw) != 38 or not raw.startswith(_PEER_ID_PREFIX):
        raise ConfigError("config.bad_value", f"{identity} is not an ed25519 peer id")
    return raw[len(_PEER_ID_PREFIX) :]


def create_key(directory: Path) -> Signer:
    """Make a new key in `directory`. ConfigError `config.exists`, when there is one."""
    path = directory / KEY_FILE
    seed = os.urandom(32)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError("config.exists", str(path)) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(seed.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return Signer(seed)


def load_key(directory: Path) -> Signer:
    """The key in `directory`.

    ConfigError: `config.no_identity`, `config.key_mode` (others can read it), `config.key_bad`.
    """
    path = directory / KEY_FILE
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(256)
    except FileNotFoundError as error:
        raise ConfigError("config.no_identity", str(directory)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.key_bad", f"{path}: {type(error).__name__}") from error
    if mode & 0o077:
        raise ConfigError("config.key_mode", f"{path} has mode {mode & 0o777:o}")
    try:
        return Signer(bytes.fromhex(text.strip()))
    except (ValueError, LocalError) as error:
        raise ConfigError("config.key_bad", str(path)) from error
