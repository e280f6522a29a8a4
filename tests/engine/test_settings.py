"""Settings are checked when they are made."""

import pytest

from engine.settings import LlamaSettings, available_threads
from protocol import limits
from protocol.errors import ConfigError


@pytest.mark.parametrize(
    "options",
    [
        {"places": 0},
        {"places": 65},
        {"n_threads": -1},
        {"context_tokens": -1},
        {"prefill_chunk_tokens": 8},
        {"prefill_chunk_tokens": 4096},
        {"queue_jobs": -1},
        {"places": 2.5},
        {"steps_per_s_max": -1},
        {"prefix_reuse": 1},
    ],
)
def test_a_value_out_of_range_is_named(options):
    with pytest.raises(ConfigError) as caught:
        LlamaSettings(**options)
    assert caught.value.code == "config.bad_value"
    assert next(iter(options)) in caught.value.detail


def test_a_pace_is_a_time_between_steps():
    assert LlamaSettings().step_ns_min() == 0
    assert LlamaSettings(steps_per_s_max=50).step_ns_min() == 20_000_000


def test_a_chunk_may_be_left_to_measurement():
    assert LlamaSettings(prefill_chunk_tokens=0).prefill_chunk_tokens == 0


def test_no_number_of_threads_means_all_and_one_for_a_tiny_model():
    tiny, large = limits.ENGINE_ONE_THREAD_BYTES, limits.ENGINE_ONE_THREAD_BYTES + 1
    assert LlamaSettings().threads(tiny) == 1
    assert LlamaSettings().threads(large) == available_threads()
    assert LlamaSettings(n_threads=3).threads(tiny) == 3
