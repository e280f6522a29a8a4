"""Counter-based randomness: the n-th draw of a stream depends on nothing but its name."""

from hashlib import blake2b


class Entropy:
    """Bytes and numbers from (seed, purpose, n); equal for equal arguments on any machine."""

    def __init__(self, seed: int, purpose: str) -> None:
        self._key = blake2b(f"{seed}/{purpose}".encode(), digest_size=32).digest()
        self._count = 0

    def bytes(self, length: int) -> bytes:
        """The next `length` bytes, at most 64."""
        self._count += 1
        counter = self._count.to_bytes(8, "big")
        return blake2b(counter, key=self._key, digest_size=length).digest()

    def below(self, bound: int) -> int:
        """The next integer in [0, bound); the bias is under bound / 2^64."""
        return int.from_bytes(self.bytes(8), "big") % bound
