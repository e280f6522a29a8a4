"""Signatures, digests, domain tags and sealed boxes; a thin layer over libsodium (PyNaCl).

No randomness of its own: seeds come in as arguments. Rule: protocol/README.md, "Signatures".
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from nacl.bindings import crypto_box, crypto_box_open, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from protocol.errors import LocalError, RemoteError

DIGEST_BYTES: Final = 32
TAG_BYTES: Final = 16
SEAL_OVERHEAD_BYTES: Final = 48  # ephemeral public key (32) and authenticator (16)

Verify = Callable[[bytes, bytes, bytes], bool]


class Signer:
    """An ed25519 key from its 32-byte seed; also the node's libp2p identity."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise LocalError("config.key_bad", f"{len(seed)} bytes")
        self._key = SigningKey(seed)
        self.seed: Final = seed
        self.public_key: Final = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`; deterministic (RFC 8032)."""
        return self._key.sign(message).signature


@lru_cache(maxsize=4096)
def _verify_key(public_key: bytes) -> VerifyKey:
    return VerifyKey(public_key)


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """True when `signature` (64 bytes) is `public_key`'s (32 bytes) over `message`."""
    try:
        _verify_key(public_key).verify(message, signature)
    except (CryptoError, ValueError, TypeError):
        return False
    return True


def digest(*parts: bytes, key: bytes = b"") -> bytes:
    """BLAKE2b-256 of the parts joined; `key` up to 64 bytes makes it a keyed hash."""
    return blake2b(b"".join(parts), digest_size=DIGEST_BYTES, key=key).digest()


@lru_cache(maxsize=1024)
def domain_tag(network: str, thing: str) -> bytes:
    """The 16 bytes that start whatever is signed: one per network and kind of thing.

    A signature made on one network, or over one kind, can never pass for another.
    """
    name = network.encode() + b"\0" + thing.encode()
    return blake2b(name, digest_size=TAG_BYTES, person=b"peerd domain tag").digest()


def box_public_key(seed: bytes) -> bytes:
    """The X25519 public key of a 32-byte secret."""
    return crypto_scalarmult_base(seed)


def _seal_nonce(ephemeral: bytes, recipient: bytes) -> bytes:
    return blake2b(ephemeral + recipient, digest_size=24).digest()


def seal(recipient: bytes, plaintext: bytes, seed: bytes) -> bytes:
    """A libsodium sealed box to an X25519 key; `seed` is a fresh 32-byte secret.

    The same bytes as crypto_box_seal would give with that ephemeral key (libsodium docs,
    "Sealed boxes"); made by hand so that the simulator can supply the randomness. Raises
    RemoteError `wire.bad_field` for a recipient key of low order.
    """
    ephemeral = box_public_key(seed)
    try:
        box = crypto_box(plaintext, _seal_nonce(ephemeral, recipient), recipient, seed)
    except CryptoError as error:
        raise RemoteError("wire.bad_field", "the ephemeral key is unusable") from error
    return ephemeral + box


def unseal(seed: bytes, sealed: bytes) -> bytes:
    """Open a sealed box with the 32-byte secret. RemoteError `bid.bad_seal`."""
    if len(sealed) < SEAL_OVERHEAD_BYTES:
        raise RemoteError("bid.bad_seal", "too short")
    ephemeral, box = sealed[:32], sealed[32:]
    nonce = _seal_nonce(ephemeral, box_public_key(seed))
    try:
        return crypto_box_open(box, nonce, ephemeral, seed)
    except (CryptoError, ValueError) as error:
        raise RemoteError("bid.bad_seal") from error
