"""Log-probabilities and stop tokens of the real babbling model.

Source: engine/README.md, "Sampling"; the numbers are held against a plain softmax and a re-check.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.frames import JobFailed, JobFinished, JobTokens, Recheck
from engine.interface import Tokens
from engine.logprobs import read_scored, score
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason

PIECES = [bytes([97 + number % 26]) * (1 + number // 26) for number in range(1_500)]


def generated(bench, prompt, asked):
    """A batch's only job, run to its end."""
    run = bench()
    run.submit(1, prompt, asked)
    run.run()
    return run


def tokens_of(run) -> list[JobTokens]:
    return [event for event in run.of(1) if isinstance(event, JobTokens)]


@pytest.mark.parametrize("count", [1, 5, 20])
def test_the_numbers_are_those_of_a_softmax(count):
    row = np.random.default_rng(count).normal(0, 4, 1_500).astype(np.float32)
    exact = np.log(np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum())
    piece, micro, top = score(row, 7, count, PIECES)
    assert piece == PIECES[7]
    assert micro == pytest.approx(exact[7] * 1e6, abs=10)
    order = np.argsort(-exact)[:count]
    assert [chance[0] for chance in top] == [PIECES[token] for token in order]
    assert [chance[1] for chance in top] == pytest.approx([e * 1e6 for e in exact[order]], abs=10)


def test_what_can_not_come_is_told_as_the_least():
    row = np.full(1_500, -math.inf, np.float32)
    row[3] = 1e30
    assert score(row, 3, 1, PIECES) == (PIECES[3], 0, ((PIECES[3], 0),))
    assert score(row, 4, 1, PIECES)[1] == limits.LOGPROB_MICRO_MIN


def test_a_long_token_is_cut():
    chance = score(np.zeros(2, np.float32), 0, 2, [b" " * 999, b"a"])
    assert len(read_scored(chance).chosen.piece) == limits.TOKEN_BYTES_MAX


@pytest.mark.parametrize("options", [{}, {"temperature_milli": 900, "top_k": 40, "seed": 3}])
def test_every_token_has_them_and_nothing_else_changes(bench, chat, parameters, options):
    """Same tokens and text as without; the best first; close to what a re-check finds."""
    plain = generated(bench, chat("Hello"), parameters(60, **options))
    asked = replace(parameters(60, **options), logprobs=3)
    run = generated(bench, chat("Hello"), asked)
    assert run.text(1) == plain.text(1)
    assert [event.ids for event in tokens_of(run)] == [event.ids for event in tokens_of(plain)]
    assert not any(event.scores for event in tokens_of(plain))
    assert all(len(event.scores) == event.count for event in tokens_of(run))
    scores = [scored for event in tokens_of(run) for scored in event.scores]
    assert b"".join(piece for piece, _, _ in scores).decode("utf-8", "replace") == run.text(1)
    ids = [token for event in tokens_of(run) for token in event.ids]
    check = bench()
    check.batcher.submit(Recheck(1, chat("Hello"), asked, tuple(ids)))
    check.run()
    for (_, micro, top), logprob in zip(scores, check.of(1)[-1].logprobs, strict=True):
        assert micro == pytest.approx(logprob * 1e6, abs=20_000)
        assert len(top) == 3
        assert [chance[1] for chance in top] == sorted((c[1] for c in top), reverse=True)
        assert micro <= top[0][1]
        if not options:
            assert micro == top[0][1]


def test_they_wait_with_held_back_text(bench, chat, parameters):
    """Tokens that could begin a stop string are shown late, and their numbers with them."""
    plain = generated(bench, chat("Hello"), parameters(40)).text(1)
    stop = (plain[10:14] + "\x00", plain[20:23])
    asked = replace(parameters(40, stop=stop), logprobs=1)
    run = generated(bench, chat("Hello"), asked)
    events = tokens_of(run)
    assert any(event.count > 1 for event in events)
    assert all(len(event.scores) == event.count for event in events)
    assert plain.startswith(run.text(1))


def test_a_stop_token_ends_the_output(bench, chat, parameters):
    """Like the model's own end: not counted, not shown, whatever its text."""
    plain = generated(bench, chat("Hello"), parameters(30))
    ids = [token for event in tokens_of(plain) for token in event.ids]
    at = next(at for at in range(5, 30) if ids[at] not in ids[:at])
    asked = replace(parameters(30), stop_tokens=(ids[at], 0))
    run = generated(bench, chat("Hello"), asked)
    assert run.end(1) == JobFinished(1, FinishReason.STOP, at)
    assert [token for event in tokens_of(run) for token in event.ids] == ids[:at]
    check = bench()
    check.batcher.submit(Recheck(1, chat("Hello"), asked, tuple(ids[:at])))
    check.run()
    assert check.of(1)[-1].ends
    assert check.of(1)[-1].end_gap == pytest.approx(0, abs=0.05)


def test_a_stop_token_beyond_the_vocabulary_is_refused(bench, chat, parameters):
    run = bench()
    run.submit(1, chat("Hello"), replace(parameters(5), stop_tokens=(2**32 - 1,)))
    assert isinstance(run.end(1), JobFailed)
    assert run.end(1).code == "engine.bad_spec"


async def test_through_the_worker(serve, job):
    """The interface's own form; too many are refused before the worker sees them."""
    async with serve(LlamaSettings(n_threads=1)) as engine:
        spec = job("Hello", tokens=12)
        events = []
        asked = replace(spec, parameters=replace(spec.parameters, logprobs=20))
        await engine.run_job(asked, events.append)
        tokens = [event for event in events if isinstance(event, Tokens)]
        assert sum(len(event.logprobs) for event in tokens) == 12
        for token in (token for event in tokens for token in event.logprobs):
            assert token.chosen == token.top[0]
            assert len(token.top) == 20
        for wrong in (
            replace(spec.parameters, logprobs=21),
            replace(spec.parameters, logprobs=-1),
            replace(spec.parameters, stop_tokens=(1,) * 17),
            replace(spec.parameters, stop_tokens=(-1,)),
        ):
            with pytest.raises(EngineError) as caught:
                await engine.run_job(replace(spec, parameters=wrong), events.append)
            assert caught.value.code == "engine.bad_spec"
