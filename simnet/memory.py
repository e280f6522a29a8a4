"""What all nodes of one process need to compute only once, as they would get the same result.

Signatures are real: each is made by a key and can be checked. A check of exactly the bytes that
a key of this process signed is known to succeed; any other check is done, and remembered. The
same goes for opening a gossip message. Both memories are bounded and change no outcome.
"""

from typing import Any, Final

from protocol import crypto
from protocol.envelope import Signed, check_fresh
from router.admission import open_gossip

CHECKS_KEPT: Final = 1 << 16
ENVELOPES_KEPT: Final = 1 << 12


class Recent:
    """The newest entries of a mapping, at most twice `kept`."""

    __slots__ = ("_kept", "_new", "_old")

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._new: dict[Any, Any] = {}
        self._old: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        """The value, or None."""
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: Any, value: Any) -> None:
        """Remember a value that is not None."""
        if len(self._new) >= self._kept:
            self._old, self._new = self._new, {}
        self._new[key] = value


class KnownSigner(crypto.Signer):
    """Signs as any other, and tells the memory that it did."""

    def __init__(self, seed: bytes, checks: Recent) -> None:
        super().__init__(seed)
        self._checks = checks

    def sign(self, message: bytes) -> bytes:
        """As in `Signer`."""
        signature = super().sign(message)
        self._checks.put((signature, self.public_key, message), 1)
        return signature


class VerifiedOnce:
    """`crypto.verify`, each exact (key, message, signature) once."""

    def __init__(self) -> None:
        self._checks = Recent(CHECKS_KEPT)

    def signer(self, seed: bytes) -> crypto.Signer:
        """A key whose signatures are known."""
        return KnownSigner(seed, self._checks)

    def __call__(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether the signature holds."""
        name = (signature, public_key, message)
        known = self._checks.get(name)
        if known is None:
            known = 1 if crypto.verify(public_key, message, signature) else 0
            self._checks.put(name, known)
        return bool(known == 1)


class OpenedOnce:
    """Opens each exact gossip message once; the `Signed` is immutable and shared."""

    def __init__(self, network: str, check: crypto.Verify) -> None:
        self._network = network
        self._check = check
        self._opened = Recent(ENVELOPES_KEPT)

    def __call__(self, data: bytes, now_ns: int) -> Signed:
        """As `open_gossip`. A message that it refuses is opened again each time."""
        known: Signed | None = self._opened.get(data)
        if known is None:
            known = open_gossip(data, self._network, now_ns, self._check)
            self._opened.put(data, known)
        else:
            check_fresh(known.sent_at_ns, now_ns)
        return known
