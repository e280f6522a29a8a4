"""A context that is full: idle beginnings go first, then the youngest job, and all end well.

On the stand-in, at any moment; and on the real model with cells that all places share, of which
there are too few.
"""

from collections.abc import Iterator
from typing import Any

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.frames import Embed, JobEmbedded, JobFailed, JobFinished
from engine.interface import Pooling
from engine.native import ContextFull, NativeModel
from engine.prompts import PromptReader
from protocol import limits
from tests.engine.babbler import babbler_path
from tests.engine.conftest import Bench, make_bench
from tests.engine.stand_in import ACTIONS, CONTEXT_TOKENS, PLACES, Memory, World

CELLS = 512
QUESTIONS = ("What is the capital of France?", "Tell me a story.", "Who are you?", "Why?")


@given(ACTIONS, st.integers(CONTEXT_TOKENS, PLACES * CONTEXT_TOKENS), st.booleans())
def test_too_few_cells_delay_jobs_and_change_nothing(
    actions: list[Any], cells: int, goes_back: bool
) -> None:
    """One job alone always has room: nobody fails, and all say what they say from scratch."""
    world = World(Memory(cells=cells, goes_back=goes_back))
    world.act(actions)
    for handle in world.jobs:
        world.check_job(handle)


@given(ACTIONS, st.lists(st.booleans(), max_size=60), st.sampled_from([16, 256]))
def test_room_that_is_missing_at_any_step_loses_no_other_job(
    actions: list[Any], faults: list[bool], chunk_tokens: int
) -> None:
    """A job that finds none alone fails with its code; the others are as if nothing had been."""
    world = World(Memory(faults=faults), chunk_tokens)
    world.act(actions)
    for handle in world.jobs:
        last = world.of(handle)[-1]
        if isinstance(last, JobFailed):
            assert last.code == "engine.context_full"
        else:
            world.check_job(handle)


def test_a_job_that_does_not_fit_alone_fails_and_the_next_is_served() -> None:
    world = World(Memory(cells=30))
    world.act([([1] * 40, 5, False), ([2] * 10, 5, False)])
    assert world.of(0)[-1] == JobFailed(0, "engine.context_full", "")
    world.check_job(1)


def test_idle_beginnings_go_before_jobs_do() -> None:
    """Two places hold what nobody needs now; the third job takes their room and is not stopped."""
    world = World(Memory(cells=90))
    world.act([([1] * 30, 1, False), 5, ([2] * 30, 1, False), 5, ([3] * 60, 20, False)])
    assert world.memory.full == 2
    assert world.preempted == []
    world.check_job(2)


def test_the_youngest_goes_and_is_back_only_after_a_finish() -> None:
    world = World(Memory(cells=100))
    world.act([([1] * 30, 40, False), ([2] * 30, 40, False), ([3] * 30, 2, False)])
    assert world.preempted
    assert 0 not in world.preempted
    assert len(world.preempted) <= 2
    for handle in range(3):
        world.check_job(handle)


@pytest.mark.parametrize("steps", range(2, 9))
def test_a_recheck_that_begins_again_checks_no_token_twice(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four tokens a step; the first fault empties the idle place, the second takes its own."""
    monkeypatch.setattr(limits, "ENGINE_RECHECK_ROWS_MAX", 4)
    world = World(Memory(faults=[False] * steps + [True, True]))
    world.act([([1] * 10, 60, False), ([2] * 4, 40, True)])
    assert world.preempted == [1]
    world.check_job(1)


def test_a_text_that_begins_again_has_the_same_vector(bench, chat, parameters, model, monkeypatch):
    """Beside a job that writes, half read; each row counts once."""
    vectors = []
    for is_full in (False, True):
        run = bench(chunk_tokens=32)
        refused, decode = [], model.decode

        def full_once(rows: Any, is_full=is_full, refused=refused, decode=decode) -> None:
            half_read = [row for row in rows if len(row.tokens) > 1 and row.position > 32]
            if is_full and half_read and len(refused) < 8:
                refused.append(half_read)
                raise ContextFull
            if refused:
                refused += [[]] * 8
            decode(rows)

        with monkeypatch.context() as patch:
            patch.setattr(model, "decode", full_once)
            run.submit(1, chat("Hello"), parameters(60))
            run.batcher.step()
            run.batcher.submit(Embed(2, ("one two three four " * 12,), Pooling.MEAN, True))
            run.run()
        assert bool(refused) is is_full
        (event,) = [one for one in run.of(2) if isinstance(one, JobEmbedded)]
        vectors.append(np.frombuffer(event.vector, "<f4"))
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-4


class SharedCells(NativeModel):
    """Real, with cells that the places share, as if the context had been made too small."""

    def _make_context(self, places: int, context_tokens: int, threads: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_seq_max, parameters.kv_unified = CELLS, places, True
        parameters.n_threads = parameters.n_threads_batch = threads
        return llama_cpp.llama_init_from_model(self._model, parameters)


@pytest.fixture(scope="module")
def small() -> Iterator[NativeModel]:
    native = SharedCells(babbler_path(), places=4, context_tokens=1024, threads=1)
    assert native.context_tokens == CELLS
    yield native
    native.close()


def ask(run: Bench, chat: Any, parameters: Any, tokens: int) -> list[str]:
    for handle, question in enumerate(QUESTIONS):
        choice = parameters(tokens, temperature_milli=700 * (handle % 2), seed=handle)
        run.submit(handle, chat(question), choice)
    run.run()
    return [run.text(handle) for handle in range(len(QUESTIONS))]


def test_a_real_context_that_is_too_small_gives_the_same_answers(
    small, model, prompts, chat, parameters, monkeypatch
):
    """Four jobs of ~170 tokens in 512 cells; alone, each has room."""
    full = 0
    decode = small.decode

    def counted(rows: Any) -> None:
        nonlocal full
        try:
            decode(rows)
        except Exception:
            full += 1
            raise

    monkeypatch.setattr(small, "decode", counted)
    reader = PromptReader(small.vocabulary, small.chat_template, small.context_tokens)
    crowded = make_bench(small, reader)
    texts = ask(crowded, chat, parameters, 150)
    assert full > 1
    assert texts == ask(make_bench(model, prompts), chat, parameters, 150)
    ends = [crowded.end(handle) for handle in range(4)]
    assert all(isinstance(end, JobFinished) and end.output_tokens == 150 for end in ends)


def test_a_real_job_that_outgrows_the_cells_fails_alone(
    small, chat, parameters, completion, monkeypatch
):
    """As if the context of one place were larger than what there is."""
    monkeypatch.setattr(small, "context_tokens", 2 * CELLS)
    reader = PromptReader(small.vocabulary, small.chat_template, small.context_tokens)
    run = make_bench(small, reader)
    run.submit(1, completion("zq" * 300), parameters(2))
    run.submit(2, chat("Hello"), parameters(5))
    assert run.of(1)[0].input_tokens > CELLS
    run.run()
    assert (run.end(1).code, run.end(2).output_tokens) == ("engine.context_full", 5)
