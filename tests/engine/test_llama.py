"""Jobs on the whole engine, with real workers on the babbling model."""

import os
import signal
from dataclasses import replace

import pytest
import trio
import trio.testing

from engine.catalogue import read_model
from engine.interface import Engine, Finished, Started, Tokens
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ConstraintKind, FinishReason, OutputConstraint
from tests.engine.babbler import babbler_path

LONG = 1_900


async def test_a_job_streams_and_ends_with_its_totals(serve, job, answer):
    async with serve() as llama:
        engine: Engine = llama
        got = answer()
        await engine.run_job(job("Hello", tokens=20), got.events.append)
        first, *middle, last = got.events
        assert isinstance(first, Started)
        assert all(isinstance(event, Tokens) for event in middle)
        assert sum(event.count for event in middle) == 20
        assert isinstance(last, Finished)
        assert (last.reason, last.output_tokens) == (FinishReason.LENGTH, 20)
        assert last.input_tokens == first.input_tokens > 3
        assert 0 < last.ttft_ns <= last.duration_ns
        assert last.engine.startswith("llama-cpp-python 0.")
        assert "places=4" in last.settings
        assert max(len(last.engine), len(last.settings)) <= limits.BUILD_NAME_CHARS_MAX


async def test_what_it_serves_is_what_the_file_says(serve):
    async with serve(LlamaSettings(n_threads=1, context_tokens=300)) as engine:
        (info,) = engine.models()
        file = read_model(babbler_path()).info
        assert (info.name, info.digest) == (file.name, file.digest)
        assert info.context_tokens == 300
        assert engine.free_places("babbler") == 4


async def test_jobs_together_say_what_each_says_alone(serve, job, answer):
    questions = ("Hello", "Who are you?", "Tell me a story. 日本語", "Why?")
    async with serve() as engine:
        alone = []
        for question in questions:
            got = answer()
            await engine.run_job(job(question, tokens=40), got.events.append)
            alone.append(got.text)
        together = [answer() for _ in questions]
        async with trio.open_nursery() as nursery:
            for question, got in zip(questions, together, strict=True):
                nursery.start_soon(engine.run_job, job(question, tokens=40), got.events.append)
        assert [got.text for got in together] == alone
        assert len(set(alone)) > 1


async def test_the_same_seed_gives_the_same_text(serve, job, answer):
    async with serve() as engine:
        texts = []
        for seed in (5, 5, 6):
            got = answer()
            spec = job("Hello", tokens=40, temperature_milli=900, seed=seed)
            await engine.run_job(spec, got.events.append)
            texts.append(got.text)
        assert texts[0] == texts[1] != texts[2]


async def test_free_places_and_the_promise_follow_the_jobs(serve, job):
    async with serve(LlamaSettings(n_threads=1, places=2)) as engine:
        idle = engine.estimate("babbler", 100)
        assert idle.ttft_ns > 0
        assert idle.tokens_per_s_milli > 0
        assert engine.estimate("babbler", 1000).ttft_ns > idle.ttft_ns
        # Stopped, so that the jobs stay and no new measure comes.
        os.kill(engine.worker_pid("babbler"), signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for text in ("a", "b"):
                nursery.start_soon(engine.run_job, job(text, tokens=50), lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert engine.free_places("babbler") == 0
            step_ns = 10**12 // engine.estimate("babbler", 0).tokens_per_s_milli
            waiting_ns = engine.estimate("babbler", 100).ttft_ns - idle.ttft_ns
            assert waiting_ns >= 50 * step_ns * 0.9
            os.kill(engine.worker_pid("babbler"), signal.SIGCONT)
        assert engine.free_places("babbler") == 2


async def test_cancelling_the_scope_stops_the_job_in_the_worker(serve, job, answer):
    async with serve(LlamaSettings(n_threads=1, places=1)) as engine:
        with trio.CancelScope() as scope:

            def stop_at_first_text(event: object) -> None:
                if isinstance(event, Tokens):
                    scope.cancel()

            await engine.run_job(job("Hello", tokens=LONG), stop_at_first_text)
        assert scope.cancelled_caught
        got = answer()
        await engine.run_job(job("Hello", tokens=5), got.events.append)
        assert got.finished.output_tokens == 5


async def test_an_exception_of_the_caller_stops_the_job_too(serve, job):
    async with serve() as engine:

        def fail(event: object) -> None:
            raise RuntimeError("the caller's")

        with pytest.raises(RuntimeError, match="the caller's"):
            await engine.run_job(job("Hello", tokens=LONG), fail)
        await engine.run_job(job("Hello", tokens=5), lambda event: None)


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("word " * 3000, {}, "engine.prompt_too_long"),
        ("Hello", {"model": "other"}, "engine.unknown_model"),
        ("Hello", {"tokens": 0}, "engine.bad_spec"),
        ("\ud83c", {}, "engine.bad_spec"),
    ],
)
async def test_a_job_that_can_not_run_is_refused_and_harms_no_other(
    serve, job, text, options, code
):
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job(text, **options), lambda event: None)
        assert caught.value.code == code
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("babbler") == pid


async def test_more_jobs_than_places_and_queue_are_refused(serve, job):
    async with serve(LlamaSettings(n_threads=1, places=1, queue_jobs=1)) as engine:
        codes = []

        async def one(text: str) -> None:
            try:
                await engine.run_job(job(text, tokens=300), lambda event: None)
            except EngineError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c"):
                nursery.start_soon(one, text)
        assert codes == ["engine.overloaded"]


async def test_a_job_that_was_cancelled_before_a_step_makes_no_token(serve, job):
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        os.kill(pid, signal.SIGSTOP)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.run_job, job("Hello", tokens=LONG), lambda event: None)
                await trio.testing.wait_all_tasks_blocked()
                (cancelled,) = engine._models[0].life.loaded.jobs
                scope.cancel()
        # The cancellation is in the pipe, too, before the worker looks.
        await trio.testing.wait_all_tasks_blocked()
        os.kill(pid, signal.SIGCONT)
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert [type(event) for event in cancelled._events] == [Started, Finished]
        assert cancelled._events[-1].reason == FinishReason.CANCELLED


async def test_an_answer_whose_grammar_could_not_go_on_is_rechecked_all_the_same(serve, job):
    """It ended by length; that what would have followed takes too much is no fault of it."""
    text = 'root ::= "☃"* | ([a-z] | [b-y] | [c-x] | [d-w] root)+'
    spec = job(
        "how word word are are ኸare how ",
        tokens=1,
        temperature_milli=900,
        top_k=40,
        top_p_milli=950,
        seed=7,
    )
    constraint = OutputConstraint(ConstraintKind.GRAMMAR, text)
    spec = replace(spec, parameters=replace(spec.parameters, constraint=constraint))
    events = []
    async with serve(LlamaSettings(n_threads=1, context_tokens=512)) as engine:
        await engine.run_job(spec, events.append)
        ids = [token for event in events if isinstance(event, Tokens) for token in event.ids]
        report = await engine.recheck(spec.model, spec.prompt, spec.parameters, ids)
    assert len(ids) == 1
    assert report.mismatches == 0
    assert not report.ends
