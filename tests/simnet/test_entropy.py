"""Draws by name: even, independent of each other, and the same on every machine.

Source: simnet/entropy.py. The statistics are of fixed seeds, so they can't fail by chance.
"""

from statistics import correlation

import pytest

from simnet.entropy import SCATTER_SIZE, Entropy, Scatter

BINS = 16
CHI_SQUARE_MAX = 37.7  # 15 degrees of freedom, 0.1 %


def chi_square(draws: list[int]) -> float:
    """How far 16-bit draws are from even."""
    expected = len(draws) / BINS
    counts = [0] * BINS
    for draw in draws:
        counts[draw * BINS // SCATTER_SIZE] += 1
    return sum((count - expected) ** 2 / expected for count in counts)


def test_draws_are_these_on_every_machine() -> None:
    """Golden values: a change of any of them changes every trace."""
    assert Entropy(1, "x").bytes(8).hex() == "ce9f4a918fceff70"
    assert [Scatter(1, "x").draw(*name) for name in ((0, 0, 0), (7, 9, 11), (9, 7, 11))] == [
        40090,
        56076,
        24666,
    ]


@pytest.mark.parametrize("fixed", range(4))
def test_scattered_draws_are_even_along_each_argument(fixed: int) -> None:
    """Over sources, targets and counts alike."""
    draw, many = Scatter(5, "links").draw, range(8_000)
    assert chi_square([draw(other, fixed, 3) for other in many]) < CHI_SQUARE_MAX
    assert chi_square([draw(fixed, other, 3) for other in many]) < CHI_SQUARE_MAX
    assert chi_square([draw(fixed, 3, other) for other in many]) < CHI_SQUARE_MAX


@pytest.mark.parametrize("step", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 500, 0), (1, 1, 1)])
def test_neighbouring_draws_tell_nothing_of_each_other(step: tuple[int, int, int]) -> None:
    """One more source, target or count: another draw."""
    draw = Scatter(5, "links").draw
    names = [(source, source * 3 % 101, n) for source in range(60) for n in range(60)]
    here = [draw(*name) for name in names]
    there = [draw(*(part + by for part, by in zip(name, step, strict=True))) for name in names]
    assert abs(correlation(here, there)) < 0.06


def test_streams_do_not_depend_on_each_other() -> None:
    """What one purpose draws leaves the others as they were."""
    alone = [Entropy(3, "a").below(1_000) for _ in range(1)]
    one, other = Entropy(3, "a"), Entropy(3, "b")
    other.below(10)
    assert [one.below(1_000)] == alone
    assert Entropy(3, "a").bytes(32) != Entropy(3, "b").bytes(32) != Entropy(4, "b").bytes(32)


def test_what_is_drawn_has_its_distribution() -> None:
    """Means, and picks by weight."""
    draw, many = Entropy(1, "distributions"), 4_000
    assert sum(draw.exponential(5.0) for _ in range(many)) / many == pytest.approx(5.0, rel=0.05)
    normals = [draw.normal() for _ in range(many)]
    assert sum(normals) / many == pytest.approx(0.0, abs=0.05)
    assert sum(one * one for one in normals) / many == pytest.approx(1.0, rel=0.06)
    picks = [draw.pick([1, 0, 3]) for _ in range(many)]
    assert picks.count(1) == 0
    assert picks.count(2) / many == pytest.approx(0.75, rel=0.05)
    order = list(range(50))
    draw.shuffle(order)
    assert sorted(order) == list(range(50)) != order
