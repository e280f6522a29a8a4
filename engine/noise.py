"""Random numbers that anybody can make again: from a seed, a step and a token, nothing else.

A step's key is BLAKE2b-64 of (seed, step); a token's 64 bits are SplitMix64's output for that
key and the token's number (Steele, Lea and Flood 2014). No state: the numbers of a step are
the same whatever was drawn before it, so a verifier can begin anywhere. Pure.
Rule: engine/README.md.
"""

import hashlib
import struct

import numpy as np
import numpy.typing as npt

PERSON = b"peerd noise 1"
_SEED_AND_STEP = struct.Struct("<QQ")
_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_KEY_BYTES = 8


def bits(seed: int, step: int, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """64 uniform bits for each token (>= 0); `seed` and `step` are unsigned 64-bit."""
    message = _SEED_AND_STEP.pack(seed, step)
    key = hashlib.blake2b(message, digest_size=_KEY_BYTES, person=PERSON).digest()
    state = tokens.astype(np.uint64)
    state += np.uint64(1)
    state *= _STRIDE
    state += np.uint64(int.from_bytes(key, "little"))
    state ^= state >> np.uint64(30)
    state *= _FIRST
    state ^= state >> np.uint64(27)
    state *= _SECOND
    state ^= state >> np.uint64(31)
    return state


def gumbel(seed: int, step: int, tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """A standard Gumbel variate for each token: -ln(-ln u), u from the upper 53 bits.

    The token with the highest score plus variate is a sample of softmax(scores).
    """
    uniform = (bits(seed, step, tokens) >> np.uint64(11)).astype(np.float64)
    uniform += 0.5
    uniform *= 2.0**-53
    # The largest would round to 1, whose logarithm is 0: both logarithms stay finite.
    np.minimum(uniform, 1 - 2.0**-53, out=uniform)
    return -np.log(-np.log(uniform))
