"""What the places are said to hold is what the model holds, whatever comes and goes.

Random jobs, re-checks, steps and cancels on a stand-in for llama.cpp's memory, on which one wrong,
missing or foreign token in a place changes the output.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.frames import JobFinished
from engine.native import Row
from engine.places import REUSED_TOKENS_MIN, Places, common_tokens
from tests.engine.stand_in import ACTIONS, Memory, World


@given(ACTIONS, st.booleans(), st.sampled_from([16, 256]))
def test_places_hold_what_is_said_and_nothing_shows_in_the_outputs(
    actions: list[Any], goes_back: bool, chunk_tokens: int
) -> None:
    world = World(Memory(goes_back=goes_back), chunk_tokens)
    world.act(actions)
    for handle in world.jobs:
        world.check_job(handle)


def test_the_stand_in_notices_a_place_that_was_not_emptied(monkeypatch: Any) -> None:
    monkeypatch.setattr(Memory, "forget", lambda self, sequence: None)
    world = World(Memory())
    world.submit([1, 2, 3], 4, recheck=False)
    with pytest.raises(AssertionError):
        world.batcher.step()


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_tokens_is_the_longest_common_beginning(left: list[int], right: list[int]) -> None:
    count = common_tokens(left, right)
    assert left[:count] == right[:count]
    assert count == min(len(left), len(right)) or left[count] != right[count]


def places(*held: list[int]) -> tuple[Places, Memory]:
    """Free places that hold these, the first used longest ago."""
    memory = Memory()
    found = Places(memory, reuses=True)  # type: ignore[arg-type]
    for tokens in held:
        place, kept = found.take(tokens, b"", may_reuse=False)
        rows = [Row(place, kept, tokens[kept:], 0)]
        memory.decode(rows)
        found.record(rows)
    for place in range(len(held)):
        found.release(place)
    return found, memory


def test_the_longest_of_several_is_taken() -> None:
    stem = list(range(30))
    found, _ = places([*stem[:20], 50], [*stem, 50], [*stem[:25], 50])
    assert found.take([*stem, 40, 41], b"") == (1, 30)


def test_a_copy_is_made_only_for_as_much_more_as_it_is_worth() -> None:
    stem = list(range(60))
    for more, taken in ((15, (1, 20)), (16, (1, 36))):
        found, memory = places(stem[: 20 + more], stem[:20], [50])
        running, _ = found.take([*stem[: 20 + more], 50], b"")
        assert running == 0
        assert found.take([*stem[: 20 + more], 51], b"") == taken
        assert memory.held[1] == stem[: taken[1]]


def test_of_equals_the_least_recently_used_is_taken() -> None:
    stem = list(range(30))
    found, _ = places([50], [*stem, 51], [*stem, 52])
    assert found.take([*stem, 53], b"") == (1, 30)


def test_running_places_stay_neighbours() -> None:
    """Each row of neighbours is computed on its own: a gap costs as much as another step."""
    found, _ = places([50], [51], [52])
    assert [found.take([53], b"")[0] for _ in range(3)] == [0, 1, 2]
    found.release(2)
    found.release(0)
    found.release(1)
    assert [found.take([53], b"")[0] for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(("second", "reused"), [(b"a", True), (b"b", False), (b"", False)])
def test_what_a_job_left_serves_its_owner_alone(second: bytes, reused: bool) -> None:
    """A stranger could tell from the time what somebody's prompt began with."""
    world = World(Memory())
    prompt = [each % 40 for each in range(REUSED_TOKENS_MIN + 8)]
    for owner in (b"a", second):
        world.submit(prompt, 1, recheck=False, owner=owner)
        while world.batcher.is_busy:
            world.batcher.step()
    finished = [event for event in world.events if isinstance(event, JobFinished)]
    assert finished[0].reused_tokens == 0
    assert bool(finished[1].reused_tokens) is reused


def test_a_running_job_of_another_owner_is_not_copied() -> None:
    """Nor may a stranger's running prompt be a source."""
    world = World(Memory())
    prompt = [each % 40 for each in range(REUSED_TOKENS_MIN * 2 + 8)]
    world.submit(prompt, 20, recheck=False, owner=b"a")
    for _ in range(4):
        world.batcher.step()
    world.submit(prompt, 1, recheck=False, owner=b"b")
    while world.batcher.is_busy:
        world.batcher.step()
    finished = [event for event in world.events if isinstance(event, JobFinished)]
    assert [event.reused_tokens for event in finished] == [0, 0]
