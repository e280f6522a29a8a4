"""Measures of steps, and the promises made from them."""

import pytest

from engine.frames import Speed
from engine.speed import Speedometer, chunk_tokens, estimate, step_ns

MS = 1_000_000


def test_decode_steps_are_measured_by_load():
    meter = Speedometer(3)
    meter.record(1, 0, 10 * MS)
    meter.record(3, 0, 16 * MS)
    assert meter.speed() == Speed(0, (10 * MS, 0, 16 * MS))
    meter.record(1, 0, 18 * MS)
    assert meter.speed().step_ns[0] == 11 * MS


def test_no_step_counts_as_shorter_than_the_operators_pace():
    meter = Speedometer(2, step_ns_min=12 * MS)
    meter.record(1, 0, 10 * MS)
    meter.record(2, 0, 16 * MS)
    assert meter.speed().step_ns == (12 * MS, 16 * MS)


def test_prefill_is_what_a_mixed_step_takes_longer():
    meter = Speedometer(2)
    meter.record(2, 0, 10 * MS)
    meter.record(2, 100, 110 * MS)
    assert meter.speed().prefill_ns == MS


def test_a_few_prompt_tokens_are_too_few_to_measure():
    meter = Speedometer(1)
    meter.record(0, 15, 10 * MS)
    meter.record(1, 15, 10 * MS)
    assert meter.speed() == Speed(0, (0,))


@pytest.mark.parametrize(("load", "expected"), [(1, 10), (2, 12), (3, 14), (4, 16)])
def test_a_load_between_measured_ones_is_on_the_line(load, expected):
    assert step_ns(Speed(0, (10, 0, 0, 16)), load) == expected


def test_a_load_outside_of_measured_ones_is_like_the_nearest():
    assert step_ns(Speed(0, (0, 7, 0)), 1) == 7
    assert step_ns(Speed(0, (0, 7, 0)), 3) == 7
    assert step_ns(Speed(0, (0, 0, 0)), 2) == 0


SPEED = Speed(2 * MS, (10 * MS, 20 * MS))


def test_an_idle_model_promises_prefill_and_a_step():
    promise = estimate(SPEED, input_tokens=50, unread_tokens=0, tokens_left=[])
    assert (promise.ttft_ns, promise.tokens_per_s_milli) == (110 * MS, 100_000)


def test_other_jobs_slow_it_down_and_are_read_first():
    promise = estimate(SPEED, input_tokens=50, unread_tokens=30, tokens_left=[1000])
    assert (promise.ttft_ns, promise.tokens_per_s_milli) == (180 * MS, 50_000)


def test_without_a_free_place_it_waits_for_the_shortest_job():
    promise = estimate(SPEED, input_tokens=0, unread_tokens=0, tokens_left=[100, 5])
    assert promise.ttft_ns == (5 + 1) * 20 * MS


def test_jobs_that_wait_before_it_take_places_first():
    promise = estimate(SPEED, input_tokens=0, unread_tokens=0, tokens_left=[100, 5, 7])
    assert promise.ttft_ns == (12 + 1) * 20 * MS


def test_nothing_measured_promises_nothing():
    promise = estimate(Speed(0, (0,)), input_tokens=9, unread_tokens=0, tokens_left=[])
    assert (promise.ttft_ns, promise.tokens_per_s_milli) == (0, 0)


@pytest.mark.parametrize(
    ("read_ns", "chunk"),
    [
        (0, 512),
        (1_464_843, 512),
        (1_464_844, 256),
        (4_000_000, 128),
        (11_000_000, 64),
        (10**9, 64),
    ],
)
def test_a_chunk_is_what_is_read_in_the_pause_that_decoding_jobs_may_have(
    read_ns: int, chunk: int
) -> None:
    assert chunk_tokens(read_ns) == chunk
