"""Noise that anybody can make again: fixed values, and that it is spread as it should be."""

import hashlib
import math
import struct

import numpy as np

from engine.noise import PERSON, bits, gumbel

MASK = 2**64 - 1


def reference(seed: int, step: int, token: int) -> int:
    """The definition, in whole numbers: SplitMix64's `token`-th output for the step's key."""
    packed = struct.pack("<QQ", seed, step)
    key = int.from_bytes(hashlib.blake2b(packed, digest_size=8, person=PERSON).digest(), "little")
    state = (key + (token + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_the_bits_are_those_of_the_definition():
    for seed, step in ((0, 0), (1, 0), (2**32 - 1, 131_071)):
        tokens = np.array([0, 1, 31_999, 2**31])
        expected = [reference(seed, step, int(token)) for token in tokens]
        assert bits(seed, step, tokens).tolist() == expected


def test_the_bits_never_change():
    """A sampler version's promise: other numbers here need another SAMPLER_VERSION."""
    assert bits(7, 3, np.array([0, 5])).tolist() == [8432527211661701230, 17585521271383192381]


def test_the_noise_is_standard_gumbel():
    """Mean gamma, variance pi^2/6, within five standard errors of 200,000 variates."""
    values = np.concatenate([gumbel(seed, 1, np.arange(20_000)) for seed in range(10)])
    variance = math.pi**2 / 6
    assert abs(values.mean() - np.euler_gamma) < 5 * math.sqrt(variance / values.size)
    assert abs(values.var() / variance - 1) < 0.03
    assert np.isfinite(values).all()


def test_the_extremes_are_finite(monkeypatch):
    for word in (0, MASK):
        monkeypatch.setattr("engine.noise.bits", lambda *_, word=word: np.array([word], "u8"))
        assert np.isfinite(gumbel(1, 1, np.array([0]))).all()
