"""What the places are said to hold is what the model holds, whatever comes and goes.

Random jobs, re-checks, steps and cancels on a stand-in for llama.cpp's memory that knows its
rules, and whose next token is a hash of all tokens that its sequence holds: one wrong, missing or
foreign token in a place, and the output differs from that of a model that is read from scratch.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batcher import Batcher
from engine.frames import Cancel, JobEvent, JobFailed, JobFinished, JobTokens, Recheck, Submit
from engine.native import Row
from engine.places import REUSED_TOKENS_MIN, Places, common_tokens
from engine.speed import Speedometer
from protocol.fields import FinishReason
from tests.engine.conftest import make_completion, make_parameters

PLACES, CONTEXT_TOKENS, VOCABULARY = 3, 96, 64
JUNK = [63, 62, 61]  # what a self-test leaves


def next_of(held: Sequence[int]) -> int:
    return zlib.crc32(bytes(held)) % VOCABULARY


class Memory:
    """The model as `Batcher` uses it: a list of tokens for each sequence."""

    def __init__(self, *, goes_back: bool = True) -> None:
        self.places = PLACES
        self.context_tokens = CONTEXT_TOKENS
        pieces = [bytes([97 + token % 26]) for token in range(VOCABULARY)]
        self.vocabulary = SimpleNamespace(
            size=VOCABULARY, pieces=pieces, end_tokens=frozenset({VOCABULARY - 1})
        )
        self.held = [list(JUNK) for _ in range(PLACES)]
        self._goes_back = goes_back
        self._rows: list[int] = []

    def decode(self, rows: Sequence[Row]) -> None:
        assert len({row.sequence for row in rows}) == len(rows)
        self._rows = []
        for row in rows:
            held = self.held[row.sequence]
            assert row.tokens
            assert row.position == len(held)
            held += row.tokens
            assert len(held) <= CONTEXT_TOKENS
            for end in range(len(held) - row.wanted, len(held)):
                self._rows.append(next_of(held[: end + 1]))

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        assert rows == len(self._rows)
        return np.eye(VOCABULARY, dtype=np.float32)[self._rows]

    def forget(self, sequence: int) -> None:
        self.held[sequence] = []

    def keep(self, sequence: int, count: int) -> bool:
        held = self.held[sequence]
        assert 0 < count <= len(held)
        if not self._goes_back and count < len(held):
            return False
        del held[count:]
        return True

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.held[target] = list(self.held[source])


def expected(prompt: Sequence[int], tokens_max: int) -> tuple[list[int], FinishReason]:
    """What a model says that reads the prompt from scratch."""
    held, made = list(prompt), []
    while True:
        token = next_of(held)
        if token == VOCABULARY - 1:
            return made, FinishReason.STOP
        made.append(token)
        if len(made) == tokens_max or len(held) == CONTEXT_TOKENS:
            return made, FinishReason.LENGTH
        held.append(token)


@dataclass
class World:
    """A batcher on the stand-in, and every job that it took."""

    memory: Memory
    chunk_tokens: int = 16
    events: list[JobEvent] = field(default_factory=list)
    jobs: dict[int, tuple[list[int], int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.batcher = Batcher(
            self.memory,  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                read=lambda prompt: [ord(each) - 48 for each in prompt.messages[0].content],
                stop_strings=lambda prompt: (),
            ),
            Speedometer(PLACES),
            self.events.append,
            chunk_tokens=self.chunk_tokens,
            queue_jobs=50,
        )

    def submit(
        self, prompt: list[int], tokens_max: int, *, recheck: bool, owner: bytes = b""
    ) -> None:
        handle = len(self.jobs)
        self.jobs[handle] = prompt, tokens_max
        text = make_completion("".join(chr(48 + token) for token in prompt))
        asked = make_parameters(tokens_max)
        if recheck:
            ids = tuple(expected(prompt, tokens_max)[0])
            self.batcher.submit(Recheck(handle, text, asked, ids))
        else:
            self.batcher.submit(Submit(handle, text, asked, owner))

    def check_places(self) -> None:
        places: Places = self.batcher._places
        for place in range(PLACES):
            held = self.memory.held[place]
            assert list(places.resident(place)) == ([] if held == JUNK else held)

    def check_job(self, handle: int) -> None:
        prompt, tokens_max = self.jobs[handle]
        whole, reason = expected(prompt, tokens_max)
        events = [event for event in self.events if event.handle == handle]
        made = [token for e in events if isinstance(e, JobTokens) for token in e.ids]
        end: Any = events[-1]
        assert not isinstance(end, JobFailed)
        if not isinstance(end, JobFinished):  # a re-check
            assert end.replayed == tuple(whole)
        elif end.reason == FinishReason.CANCELLED:
            assert made == whole[: len(made)]
        else:
            assert (made, end.reason) == (whole, reason)
            assert end.reused_tokens == 0 or REUSED_TOKENS_MIN <= end.reused_tokens < len(prompt)


# Few stems and letters, so that prompts often begin alike and differ anywhere.
STEMS = [[stem] * 20 + [7, 8, 9] * 6 for stem in range(3)]
PROMPTS = st.builds(
    lambda stem, count, tail: (STEMS[stem][:count] + tail) or [0],
    st.integers(0, 2),
    st.integers(0, 38),
    st.lists(st.integers(0, 2), max_size=40),
)
SUBMITS = st.tuples(PROMPTS, st.integers(1, 60), st.sampled_from([False, False, False, True]))
ACTIONS = st.lists(
    st.one_of(SUBMITS, SUBMITS, st.integers(1, 12), st.builds(Cancel, st.integers(0, 30))),
    max_size=40,
)


@given(ACTIONS, st.booleans(), st.sampled_from([16, 256]))
def test_places_hold_what_is_said_and_nothing_shows_in_the_outputs(
    actions: list[Any], goes_back: bool, chunk_tokens: int
) -> None:
    world = World(Memory(goes_back=goes_back), chunk_tokens)
    for action in actions:
        if isinstance(action, int):
            for _ in range(action):
                world.batcher.step()
        elif isinstance(action, Cancel):
            world.batcher.cancel(action.handle)
        else:
            prompt, tokens_max, recheck = action
            world.submit(prompt, tokens_max, recheck=recheck)
        world.check_places()
    while world.batcher.is_busy:
        world.batcher.step()
        world.check_places()
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
