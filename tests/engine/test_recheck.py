"""Re-checks on the real babbling model: honest output is confirmed, each lie shows.

The babbler's second best token is often close, so its gaps are small; thresholds for real models
are in engine/README.md.
"""

import json
from dataclasses import replace

import pytest

from engine.frames import JobFailed, JobFinished, JobRechecked, JobTokens, Recheck
from engine.interface import Rechecker, RecheckReport, Tokens
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ConstraintKind, FinishReason, LogitBias, OutputConstraint

SCHEMA = json.dumps({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a", "b"]})
WAYS = [
    {"temperature_milli": 0},
    {"temperature_milli": 0, "repeat_penalty_milli": 1_300, "presence_penalty_milli": 300},
    {"temperature_milli": 900},
    {"temperature_milli": 900, "top_k": 20, "top_p_milli": 900, "seed": 5},
    {"temperature_milli": 1_500, "min_p_milli": 30, "frequency_penalty_milli": 500},
    {"temperature_milli": 700, "logit_bias": (LogitBias(101, 3_000), LogitBias(32, -100_000))},
    {"temperature_milli": 700, "constraint": OutputConstraint(ConstraintKind.JSON_SCHEMA, SCHEMA)},
    {
        "temperature_milli": 0,
        "constraint": OutputConstraint(ConstraintKind.GRAMMAR, 'root ::= [a-z ]+ "."'),
    },
]
HOT = {"temperature_milli": 900, "top_k": 40, "seed": 5}


def make(parameters, tokens: int, options: dict) -> object:
    return replace(parameters(tokens), **options)


def generate(bench, prompt, asked) -> tuple[list[int], str, FinishReason]:
    """A job's token ids, its text and why it ended."""
    run = bench()
    run.submit(1, prompt, asked)
    run.run()
    end = run.end(1)
    assert isinstance(end, JobFinished)
    ids = [token for e in run.of(1) if isinstance(e, JobTokens) for token in e.ids]
    assert len(ids) == end.output_tokens
    return ids, run.text(1), end.reason


def check(bench, prompt, asked, ids, **options) -> JobRechecked:
    run = bench(**options)
    run.batcher.submit(Recheck(1, prompt, asked, tuple(ids)))
    run.run()
    report = run.of(1)[-1]
    assert isinstance(report, JobRechecked)
    return report


def wrong(report: JobRechecked, ids: list[int]) -> list[int]:
    return [at for at, token in enumerate(ids) if report.replayed[at] != token]


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("chunk_tokens", [16, 256])
def test_what_was_made_is_confirmed(bench, chat, parameters, options, chunk_tokens):
    """Whatever the sampling, and however the reading is cut: prefill is not decode, so a near
    tie may fall otherwise, with next to no gap."""
    asked = make(parameters, 150, options)
    ids, text, reason = generate(bench, chat("Hello"), asked)
    assert len(ids) > 1
    report = check(bench, chat("Hello"), asked, ids, chunk_tokens=chunk_tokens)
    assert len(report.replayed) == len(ids)
    assert len(wrong(report, ids)) <= len(ids) // 50
    assert all(report.shortfalls[at] < 0.05 for at in wrong(report, ids))
    assert report.text == text
    if reason == FinishReason.STOP:
        assert report.is_over or report.ends
    for logprob, rank, gap in zip(report.logprobs, report.ranks, report.gaps, strict=True):
        assert logprob <= 0 <= gap
        assert (rank == 0) == (gap == 0)


@pytest.mark.parametrize("options", [WAYS[0], HOT])
def test_one_changed_token_shows(bench, chat, parameters, options):
    asked = make(parameters, 60, options)
    ids, _, _ = generate(bench, chat("Hello"), asked)
    lie = list(ids)
    lie[30] = ids[30] ^ 1
    report = check(bench, chat("Hello"), asked, lie)
    assert wrong(report, lie)[0] == 30
    assert report.replayed[30] == ids[30]
    assert report.shortfalls[30] > 0.05


@pytest.mark.parametrize(
    "other",
    [{"seed": 6}, {"temperature_milli": 2_000}, {"top_k": 2}, {"presence_penalty_milli": 900}],
)
def test_other_parameters_than_claimed_show(bench, chat, parameters, other):
    """Wrong seed, wrong temperature, a cut that was not asked for, penalties."""
    ids, _, _ = generate(bench, chat("Hello"), make(parameters, 200, {**HOT, **other}))
    report = check(bench, chat("Hello"), make(parameters, 200, HOT), ids)
    assert len(wrong(report, ids)) > len(ids) // 20


def test_the_answer_to_another_prompt_shows(bench, chat, parameters):
    asked = make(parameters, 100, HOT)
    ids, _, _ = generate(bench, chat("Tell me a story about rain."), asked)
    report = check(bench, chat("Why?"), asked, ids)
    assert len(wrong(report, ids)) > len(ids) // 20


def test_a_false_stop_shows_and_a_true_one_does_not(bench, completion, chat, parameters):
    """The babbling model ends after a tilde; its scores of an end elsewhere are far below."""
    report = check(bench, completion("That is all ~"), parameters(40), [])
    assert (report.ends, report.end_gap) == (True, 0)
    ids, _, _ = generate(bench, chat("Hello"), parameters(40))
    report = check(bench, chat("Hello"), parameters(40), ids[:20])
    assert not report.ends
    assert not report.is_over
    assert report.end_gap > 5


def test_a_stop_string_and_a_complete_form_end_an_output(bench, chat, parameters):
    asked = replace(parameters(60), stop=("e",))
    ids, text, reason = generate(bench, chat("Hello"), asked)
    assert reason == FinishReason.STOP
    report = check(bench, chat("Hello"), asked, ids)
    assert report.is_over
    assert report.text == text
    form = OutputConstraint(ConstraintKind.GRAMMAR, "root ::= [a-z]{3}")
    asked = replace(parameters(60), constraint=form)
    ids, text, _ = generate(bench, chat("Hello"), asked)
    report = check(bench, chat("Hello"), asked, ids)
    assert (report.is_over, report.text, wrong(report, ids)) == (True, text, [])


def test_what_breaks_the_form_could_not_be_chosen(bench, chat, parameters):
    """Also after it: no token of a broken form is taken for legal, and nothing dies."""
    form = OutputConstraint(ConstraintKind.GRAMMAR, "root ::= [a-z]+")
    asked = replace(parameters(60), constraint=form)
    end = next(iter(bench().batcher._model.vocabulary.end_tokens))
    for lie in ([97, 65, 97], [97, end, 97], [65]):
        report = check(bench, chat("Hello"), asked, lie)
        at = 0 if lie[0] == 65 else 1
        assert at in wrong(report, lie)
        assert report.shortfalls[at] == float("inf")


@pytest.mark.parametrize("options", [WAYS[0], HOT])
def test_tokens_after_the_end_could_not_be_chosen(bench, chat, completion, parameters, options):
    """After a stop string, or an end as if it were a token of the output."""
    asked = replace(make(parameters, 60, options), stop=("e",))
    ids, _, _ = generate(bench, chat("Hello"), asked)
    free, _, _ = generate(bench, chat("Hello"), make(parameters, 60, options))
    assert free[: len(ids)] == ids
    report = check(bench, chat("Hello"), asked, free)
    assert wrong(report, free) == list(range(len(ids), 60))
    end = next(iter(bench().batcher._model.vocabulary.end_tokens))
    report = check(bench, completion("That is all ~"), parameters(40), [end])
    assert (report.replayed, report.shortfalls) == ((-1,), (float("inf"),))


def test_a_full_context_has_no_row_for_an_end(bench, completion, parameters):
    asked = parameters(100_000)
    ids, _, reason = generate(bench, completion("peer " * 240), asked)
    assert reason == FinishReason.LENGTH
    report = check(bench, completion("peer " * 240), asked, ids)
    assert report.input_tokens + len(ids) == 513
    assert report.end_gap is None
    assert len(wrong(report, ids)) <= 1


@pytest.mark.parametrize(
    ("ids", "tokens", "why"),
    [
        ([512], 9, "not in the vocabulary"),
        ([2**32 - 1], 9, "not in the vocabulary"),
        ([1] * 10, 9, "more tokens claimed"),
        ([1] * 513, 900, "more tokens claimed"),
    ],
)
def test_a_claim_that_can_not_be_read_is_refused(bench, chat, parameters, ids, tokens, why):
    run = bench()
    run.batcher.submit(Recheck(1, chat("Hello"), parameters(tokens), tuple(ids)))
    failed = run.end(1)
    assert isinstance(failed, JobFailed)
    assert failed.code == "engine.bad_spec"
    assert why in failed.detail
    assert not run.batcher.is_busy


def test_a_recheck_and_jobs_do_not_disturb_each_other(bench, chat, parameters):
    asked = make(parameters, 200, HOT)
    ids, text, _ = generate(bench, chat("Hello"), asked)
    run = bench(chunk_tokens=32)
    run.submit(1, chat("Hello"), asked)
    run.batcher.step()
    run.batcher.submit(Recheck(2, chat("Hello"), asked, tuple(ids)))
    run.submit(3, chat("Hello"), asked)
    run.run()
    assert run.text(1) == run.text(3) == text
    report = run.of(2)[-1]
    assert isinstance(report, JobRechecked)
    assert len(wrong(report, ids)) <= 1
    run.batcher.submit(Recheck(4, chat("Hello"), asked, tuple(ids)))
    run.batcher.step()
    run.batcher.cancel(4)
    assert not run.batcher.is_busy


def test_rows_in_a_step_are_bounded(bench, chat, parameters, model, monkeypatch):
    """A vocabulary of 152,000 times a whole chunk would be hundreds of megabytes."""
    asked = parameters(300)
    ids, _, _ = generate(bench, chat("Hello"), asked)
    taken, logits = [], model.logits
    monkeypatch.setattr(model, "logits", lambda rows: taken.append(rows) or logits(rows))
    check(bench, chat("Hello"), asked, ids)
    assert sum(taken) == len(ids) + 1
    assert max(taken) == limits.ENGINE_RECHECK_ROWS_MAX


async def test_an_engine_confirms_what_it_made(serve, job, answer):
    async with serve() as engine:
        assert isinstance(engine, LlamaEngine)
        rechecker: Rechecker = engine
        spec = job("Hello", tokens=80, temperature_milli=900, top_k=40)
        got = answer()
        await engine.run_job(spec, got.events.append)
        ids = [token for e in got.events if isinstance(e, Tokens) for token in e.ids]
        assert len(ids) == 80
        report = await rechecker.recheck("babbler", spec.prompt, spec.parameters, ids)
        assert isinstance(report, RecheckReport)
        assert report.mismatches <= 1
        assert [check.token for check in report.tokens] == ids
        assert report.text == got.text
        assert report.input_tokens == got.finished.input_tokens
        assert report.settings == got.finished.settings
        other = replace(spec.parameters, seed=99)
        report = await rechecker.recheck("babbler", spec.prompt, other, ids)
        assert report.mismatches > 4
        assert engine.free_places("babbler") == 4


async def test_an_answer_says_what_a_recheck_needs(serve, job, answer):
    """Sampler version, KV type, flash attention as it was decided, batch layout; in a profile."""
    settings = LlamaSettings(n_threads=1, places=3, context_tokens=300, prefill_chunk_tokens=256)
    async with serve(settings) as engine:
        got = answer()
        await engine.run_job(job("Hello", tokens=2), got.events.append)
    said = dict(part.split("=") for part in got.finished.settings.split())
    assert said == {
        "sampler": "1",
        "kv": "f16",
        "flash": "on",
        "layout": "split",
        "context": "300",
        "places": "3",
        "batch": "2048/512",
        "chunk": "256",
        "threads": "1",
    }
    largest = replace_numbers(got.finished.settings, {"context": "1048576", "places": "64"})
    largest = replace_numbers(largest, {"chunk": "2048", "threads": "512", "flash": "auto"})
    assert len(largest) <= limits.BUILD_NAME_CHARS_MAX


def replace_numbers(settings: str, values: dict[str, str]) -> str:
    parts = (part.split("=") for part in settings.split())
    return " ".join(f"{name}={values.get(name, value)}" for name, value in parts)


@pytest.mark.parametrize(
    ("model", "ids", "code"),
    [
        ("other", [1], "engine.unknown_model"),
        ("babbler", [-1], "engine.bad_spec"),
        ("babbler", [2**40], "engine.bad_spec"),
        ("babbler", [600], "engine.bad_spec"),
        ("babbler", [1] * (limits.ENGINE_RECHECK_TOKENS_MAX + 1), "engine.bad_spec"),
    ],
)
async def test_a_claim_of_nonsense_harms_no_worker(serve, job, model, ids, code):
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        spec = job("Hello", tokens=80)
        with pytest.raises(EngineError) as caught:
            await engine.recheck(model, spec.prompt, spec.parameters, ids)
        assert caught.value.code == code
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("babbler") == pid
