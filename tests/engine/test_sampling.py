"""The sampler chain: which steps, in which order. What it does: test_batcher.py."""

import llama_cpp
import pytest

from engine.sampling import Sampler, is_greedy


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, ["temp", "dist"]),
        ({"top_k": 40}, ["top-k", "temp", "dist"]),
        ({"top_k": 40, "top_p_milli": 900}, ["top-k", "top-p", "temp", "dist"]),
        ({"top_p_milli": 900}, ["top-k", "top-p", "temp", "dist"]),
    ],
)
def test_top_p_never_sorts_a_whole_vocabulary(parameters, options, steps):
    sampler = Sampler(parameters(1, temperature_milli=800, **options))
    count = llama_cpp.llama_sampler_chain_n(sampler.chain)
    parts = [llama_cpp.llama_sampler_chain_get(sampler.chain, index) for index in range(count)]
    assert [llama_cpp.llama_sampler_name(part).decode() for part in parts] == steps
    sampler.close()
    sampler.close()


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ({}, True),
        ({"temperature_milli": 1}, False),
        ({"temperature_milli": 900, "top_k": 1}, True),
        ({"temperature_milli": 900, "top_p_milli": 0}, True),
        ({"temperature_milli": 900, "top_k": 2, "top_p_milli": 1}, False),
    ],
)
def test_greedy_is_what_leaves_no_choice(parameters, options, greedy):
    assert is_greedy(parameters(1, **options)) == greedy
