"""What a step feeds, and in which order."""

from engine.composition import compose
from engine.sampling import Sampler
from engine.sequence import Sequence
from engine.text import TextStream
from tests.engine.conftest import make_parameters


def sequence(place: int, unfed: int, *, prefilled: bool = False) -> Sequence:
    made = Sequence(place, [7] * unfed, unfed, 9, Sampler(make_parameters(), []), TextStream(()))
    made.place, made.prefilled = place, prefilled
    return made


def test_rows_come_by_place_in_whatever_order_jobs_arrived():
    """llama.cpp splits a step wherever the next row is not the next place."""
    running = [sequence(place, 1, prefilled=True) for place in (3, 1, 0)]
    running.insert(1, sequence(2, 20))
    rows, sampled = compose(running, 64)
    assert [(row.sequence, len(row.tokens)) for row in rows] == [(0, 1), (1, 1), (2, 20), (3, 1)]
    assert [each.place for each in sampled] == [0, 1, 2, 3]


def test_the_chunk_goes_to_prompts_in_the_order_of_arrival():
    """Not of places: who came first reads first."""
    running = [sequence(0, 1, prefilled=True), sequence(3, 20), sequence(1, 20)]
    rows, sampled = compose(running, 32)
    assert [(row.sequence, len(row.tokens)) for row in rows] == [(0, 1), (1, 12), (3, 20)]
    assert [each.place for each in sampled] == [0, 3]
