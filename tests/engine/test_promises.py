"""Promises learn from what came of them: within bounds, soon, and not from a few wild jobs."""

from hypothesis import given
from hypothesis import strategies as st

from engine.interface import Estimate
from engine.promises import (
    ERROR_MAX,
    OVERHEAD_NS_MAX,
    PRIOR_JOBS,
    READ_BOUNDS,
    RING_JOBS,
    SPEED_BOUNDS,
    UNIT,
    WAIT_BOUNDS,
    Correction,
    Delivered,
    Errors,
    Promises,
    Ring,
    is_kept,
)

MS = 1_000_000
NUMBERS = st.integers(0, 2**62)
ESTIMATES = st.builds(
    lambda wait, read, speed: Estimate(wait + read, speed, wait), NUMBERS, NUMBERS, NUMBERS
)
DELIVERED = st.builds(
    lambda wait, read, speed: Delivered(wait, wait + read, speed), NUMBERS, NUMBERS, NUMBERS
)


@given(st.lists(st.tuples(ESTIMATES, ESTIMATES, DELIVERED), max_size=100), ESTIMATES)
def test_a_promise_stays_within_bounds_of_the_estimate(
    jobs: list[tuple[Estimate, Estimate, Delivered]], estimate: Estimate
) -> None:
    promises = Promises()
    for job in jobs:
        promises.take(*job)
    promise = promises.correct(estimate)
    overhead_ns = promises.overhead_ns
    assert 0 <= overhead_ns <= OVERHEAD_NS_MAX
    read_ns = promise.ttft_ns - promise.wait_ns - overhead_ns
    parts = (
        (promise.wait_ns, estimate.wait_ns, WAIT_BOUNDS),
        (read_ns, estimate.ttft_ns - estimate.wait_ns, READ_BOUNDS),
        (promise.tokens_per_s_milli, estimate.tokens_per_s_milli, SPEED_BOUNDS),
    )
    for promised, estimated, (low, high) in parts:
        assert estimated * low // UNIT <= promised <= estimated * high // UNIT
    errors = (promises.ttft_errors, promises.speed_errors)
    assert all(-UNIT <= each.quantile(950) <= ERROR_MAX for each in errors)
    assert all(-UNIT - 1 <= each.mean <= ERROR_MAX for each in errors)
    assert 0 <= promises.kept <= promises.jobs == len(jobs)


@given(st.integers(UNIT // 4, 4 * UNIT), st.lists(NUMBERS, max_size=80))
def test_it_follows_a_change_within_a_ring(ratio: int, before: list[int]) -> None:
    """Whatever was before, as many jobs at one ratio as the ring holds are the correction."""
    correction = Correction(READ_BOUNDS, 750)
    for number in before:
        correction.add(number, MS)
    for _ in range(RING_JOBS):
        correction.add(ratio * 1_000, MS)
    assert correction.factor == ratio


@given(
    st.lists(st.integers(900, 1_100), min_size=RING_JOBS, max_size=RING_JOBS),
    st.lists(st.tuples(st.integers(0, RING_JOBS - 1), NUMBERS), max_size=RING_JOBS // 4 - 1),
)
def test_fewer_than_a_quarter_of_wild_jobs_move_nothing_out_of_range(
    honest: list[int], wild: list[tuple[int, int]]
) -> None:
    correction = Correction(READ_BOUNDS, 750)
    values = [ratio * 1_000 for ratio in honest]
    for place, value in wild:
        values[place] = value
    for value in values:
        correction.add(value, MS)
    assert 900 <= correction.factor <= 1_100


def test_one_job_proves_nothing_and_some_do() -> None:
    correction = Correction(READ_BOUNDS, 750)
    correction.add(3 * MS, MS)
    assert correction.factor == UNIT
    for _ in range(PRIOR_JOBS // 2):
        correction.add(3 * MS, MS)
    assert correction.factor == 3 * UNIT


def test_three_of_four_promises_hold_when_jobs_vary() -> None:
    """Reading takes between one and two times the estimate, evenly."""
    promises, estimate = Promises(), Estimate(100 * MS, 0)
    for number in range(400):
        read_ns = 100 * MS + number * 37 % 100 * MS
        promises.take(estimate, promises.correct(estimate), Delivered(0, read_ns, 0))
    assert 1_700 <= promises.read.factor <= 1_800
    assert 50 <= promises.ttft_errors.quantile(950) <= 200
    assert promises.kept > 380


def test_a_wait_and_the_reading_are_corrected_apart() -> None:
    """Jobs ahead stop after a quarter of what they may make; reading takes twice as long."""
    promises, estimate = Promises(), Estimate(500 * MS, 8_000, 400 * MS)
    for _ in range(RING_JOBS):
        promises.take(estimate, estimate, Delivered(100 * MS, 300 * MS, 4_000))
    assert promises.correct(estimate) == Estimate(300 * MS, 4_000, 100 * MS)
    assert promises.correct(Estimate(100 * MS, 8_000)) == Estimate(200 * MS, 4_000, 0)


def test_what_a_job_takes_beside_the_model_is_no_factor() -> None:
    """A known beginning leaves 1 ms to read, and the pipe takes 9: a long prompt takes no ten
    times as long for that."""
    promises, little = Promises(), Estimate(1 * MS, 0)
    for _ in range(RING_JOBS):
        promises.take(little, promises.correct(little), Delivered(0, 10 * MS, 0))
    assert promises.correct(little).ttft_ns == 10 * MS
    assert promises.correct(Estimate(1_000 * MS, 0)).ttft_ns == 1_009 * MS
    assert promises.ttft_errors.quantile(500) == 0
    long = Estimate(100 * MS, 0)
    for _ in range(RING_JOBS):
        promises.take(long, promises.correct(long), Delivered(0, 109 * MS, 0))
    assert promises.read.factor == UNIT


def test_nothing_is_learned_from_an_estimate_of_nothing() -> None:
    promises, nothing = Promises(), Estimate(0, 0)
    for _ in range(RING_JOBS):
        promises.take(nothing, nothing, Delivered(5, 10, 15))
    assert promises.correct(Estimate(40, 20, 30)) == Estimate(40, 20, 30)


def test_a_promise_is_kept_within_a_quarter() -> None:
    promised = Estimate(1_000 * MS, 40_000)
    assert is_kept(promised, Delivered(0, 1_270 * MS, 30_000))
    assert is_kept(promised, Delivered(0, 1 * MS, 0))
    assert not is_kept(promised, Delivered(0, 1_271 * MS, 40_000))
    assert not is_kept(promised, Delivered(0, 1 * MS, 29_999))


def test_errors_are_signed_and_in_thousandths_of_the_promise() -> None:
    errors = Errors()
    for delivered in (50, 100, 150, 100_000):
        errors.add(delivered, 100)
    assert [errors.quantile(milli) for milli in (250, 500, 750, 1_000)] == [-500, 0, 500, 10_000]


@given(st.lists(st.integers(), min_size=1, max_size=RING_JOBS), st.integers(1, UNIT))
def test_a_quantile_is_an_item_that_so_many_do_not_exceed(items: list[int], milli: int) -> None:
    ring = Ring()
    for item in items:
        ring.add(item)
    value = ring.quantile(milli)
    assert value in items
    assert sum(item <= value for item in items) * UNIT >= milli * len(items)
    assert sum(item < value for item in items) * UNIT < milli * len(items)
