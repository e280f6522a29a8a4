"""Counter-based randomness: a draw depends on nothing but its name.

`Entropy` names its draws by (seed, purpose, n), `Scatter` by (seed, purpose, source, target, n);
neither depends on what else was drawn, on PYTHONHASHSEED or on the machine.
"""

import math
import struct
from array import array
from hashlib import blake2b, shake_128
from typing import Final

SCATTER_BITS: Final = 16
SCATTER_SIZE: Final = 1 << SCATTER_BITS
_MASK: Final = SCATTER_SIZE - 1
RING: Final = (1 << 24) - 1
STEP: Final = 10_368_889  # odd, near 2^24 times the golden section


class Entropy:
    """Bytes and numbers from (seed, purpose, n); equal for equal arguments on any machine."""

    __slots__ = ("_count", "_key")

    def __init__(self, seed: int, purpose: str) -> None:
        self._key = blake2b(f"{seed}/{purpose}".encode(), digest_size=32).digest()
        self._count = 0

    def bytes(self, length: int) -> bytes:
        """The next `length` bytes, at most 64."""
        self._count += 1
        counter = self._count.to_bytes(8, "big")
        return blake2b(counter, key=self._key, digest_size=length).digest()

    def spread(self, permille: int) -> int:
        """Evenly from -permille to permille."""
        return self.below(2 * permille + 1) - permille

    def below(self, bound: int) -> int:
        """The next integer in [0, bound); the bias is under bound / 2^64."""
        return int.from_bytes(self.bytes(8), "big") % bound

    def unit(self) -> float:
        """The next number in (0, 1)."""
        return (self.below(2**53 - 1) + 1) / 2**53

    def exponential(self, mean: float) -> float:
        """The next number of an exponential distribution."""
        return -mean * math.log(self.unit())

    def normal(self) -> float:
        """The next number of the standard normal distribution (Box and Muller)."""
        radius = math.sqrt(-2.0 * math.log(self.unit()))
        return radius * math.cos(2.0 * math.pi * self.unit())

    def pick(self, weights: list[int]) -> int:
        """An index, each as often as its weight says."""
        left = self.below(sum(weights))
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0:
                return index
        raise AssertionError("no weights")

    def shuffle(self, items: list[int]) -> None:
        """Put `items` into an order in which every one is equally likely (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]


class Scatter:
    """16-bit draws by (source, target, n), for what is drawn millions of times.

    Source and n are looked up in a permutation of 0..65535 drawn from (seed, purpose). The target
    is a step from there on a ring of 2^24, and the middle of the square of where that leads is
    the draw: squares, unlike steps, leave no fixed distance between two targets' draws.
    """

    __slots__ = ("_table",)

    def __init__(self, seed: int, purpose: str) -> None:
        noise = shake_128(f"{seed}/scatter {purpose}".encode()).digest(8 * SCATTER_SIZE)
        ranks = struct.unpack(f"<{SCATTER_SIZE}Q", noise)
        self._table = array("H", sorted(range(SCATTER_SIZE), key=ranks.__getitem__))

    def start(self, source: int, n: int) -> int:
        """Where the targets' steps begin: a number in [0, 2^24)."""
        table = self._table
        low = table[(table[source & _MASK] + n) & _MASK]
        return low | (table[(low + n + 1) & _MASK] & 0xFF) << SCATTER_BITS

    def draw(self, source: int, target: int, n: int) -> int:
        """A number in [0, 65536)."""
        at = (self.start(source, n) + target * STEP) & RING
        return at * at >> 16 & _MASK
