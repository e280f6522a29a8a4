"""A stand-in for llama.cpp's memory that knows its rules, and a batcher on it.

Its next token is a hash of all tokens that a sequence holds: one wrong, missing or foreign token
in a place, and the output differs from that of a model that is read from scratch.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from engine.batcher import Batcher
from engine.frames import Cancel, JobEvent, JobFailed, JobFinished, JobTokens, Recheck, Submit
from engine.native import ContextFull, Row
from engine.places import REUSED_TOKENS_MIN, Places
from engine.speed import Speedometer
from protocol.fields import FinishReason
from tests.engine.conftest import make_completion, make_parameters

PLACES, CONTEXT_TOKENS, VOCABULARY = 3, 96, 64
JUNK = [63, 62, 61]  # what a self-test leaves


def next_of(held: Sequence[int]) -> int:
    return zlib.crc32(bytes(held)) % VOCABULARY


class Memory:
    """The model as `Batcher` uses it: a list of tokens for each sequence, `cells` in all.

    With `faults`, decoding also finds no room where they say so.
    """

    def __init__(
        self, *, goes_back: bool = True, cells: int = 10**9, faults: Iterable[bool] = ()
    ) -> None:
        self.places = PLACES
        self.adapters = 0
        self.context_tokens = CONTEXT_TOKENS
        pieces = [bytes([97 + token % 26]) for token in range(VOCABULARY)]
        self.vocabulary = SimpleNamespace(
            size=VOCABULARY, pieces=pieces, end_tokens=frozenset({VOCABULARY - 1})
        )
        self.held = [list(JUNK) for _ in range(PLACES)]
        self._goes_back = goes_back
        self._cells = cells
        self._faults = iter(faults)
        self._rows: list[int] = []
        self.full = 0

    def decode(self, rows: Sequence[Row]) -> None:
        assert len({row.sequence for row in rows}) == len(rows)
        used = sum(map(len, self.held)) + sum(len(row.tokens) for row in rows)
        if used > self._cells or next(self._faults, False):
            self.full += 1
            raise ContextFull
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

    def use_adapter(self, number: int) -> None:
        assert not number

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
    preempted: list[int] = field(default_factory=list)
    steps: int = 0

    def __post_init__(self) -> None:
        self.batcher = Batcher(
            self.memory,  # type: ignore[arg-type]
            SimpleNamespace(  # type: ignore[arg-type]
                read=lambda prompt: [ord(each) - 48 for each in prompt.messages[0].content],
                stop_strings=lambda prompt: (),
                begun_tokens=lambda prompt: 0,
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

    def act(self, actions: Iterable[Any]) -> None:
        """Submit, step and cancel as it is said, then step to the end."""
        for action in actions:
            if isinstance(action, int):
                for _ in range(action):
                    self.step()
            elif isinstance(action, Cancel):
                self.batcher.cancel(action.handle)
            else:
                prompt, tokens_max, recheck = action
                self.submit(prompt, tokens_max, recheck=recheck)
            self.check_places()
        while self.batcher.is_busy:
            self.step()

    def of(self, handle: int) -> list[JobEvent]:
        return [event for event in self.events if event.handle == handle]

    def step(self) -> None:
        """One step; every job has an end, however often it begins again."""
        self.steps += 1
        assert self.steps < 20_000, "a livelock"
        before = {sequence.handle for sequence in self.batcher._running}
        self.batcher.step()
        waiting = (sequence.handle for sequence in self.batcher._waiting)
        self.preempted += [handle for handle in waiting if handle in before]
        self.check_places()

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
