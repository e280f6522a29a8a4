"""The scripted engine under trio's own clock."""

from dataclasses import replace

import pytest
import trio
import trio.testing

from engine.interface import Engine, Estimate, Finished, Started, Tokens
from engine.scripted import Script, ScriptedEngine
from protocol.errors import EngineError
from protocol.fields import FinishReason, TokenChance

MS = 1_000_000
SCRIPT = Script((("Hello", 1), (" big world", 2), (".", 1)), ttft_ns=50 * MS, token_ns=10 * MS)


def make(script: Script = SCRIPT, **options: int) -> ScriptedEngine:
    return ScriptedEngine({"model": script}, **options)


async def test_a_job_takes_the_time_of_the_script(autojump_clock, job, answer):
    engine: Engine = make()
    got = answer()
    await engine.run_job(job("Say it", model="model", tokens=9), got.events.append)
    assert got.events == [
        Started(3),
        Tokens("Hello", 1),
        Tokens(" big world", 2),
        Tokens(".", 1),
        Finished(FinishReason.STOP, 3, 4, 50 * MS, 80 * MS, "scripted", "places=4"),
    ]
    assert trio.current_time() == pytest.approx(0.080)


async def test_the_limit_of_tokens_cuts(autojump_clock, job, answer):
    got = answer()
    await make().run_job(job("Say it", model="model", tokens=2), got.events.append)
    assert got.events[-2] == Tokens(" big world", 1)
    assert got.finished.reason == FinishReason.LENGTH
    assert got.finished.output_tokens == 2


@pytest.mark.parametrize(
    ("after", "texts"), [(0, []), (1, ["Hello"]), (3, ["Hello", " big world"])]
)
async def test_the_failure_comes_after_its_token(autojump_clock, job, answer, after, texts):
    script = Script(SCRIPT.pieces, failure="engine.crashed", failure_tokens=after)
    got = answer()
    with pytest.raises(EngineError) as caught:
        await make(script).run_job(job("x", model="model"), got.events.append)
    assert caught.value.code == "engine.crashed"
    assert [event.text for event in got.events if isinstance(event, Tokens)] == texts


async def test_places_and_queue_are_kept_in_order_of_arrival(autojump_clock, job):
    engine = make(places=1, queue_jobs=1)
    ends: list[str] = []

    async def one(text: str) -> None:
        await engine.run_job(job(text, model="model"), lambda event: None)
        ends.append(text)

    async with trio.open_nursery() as nursery:
        assert engine.free_places("model") == 1
        nursery.start_soon(one, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert engine.free_places("model") == 0
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("third", model="model"), lambda event: None)
        assert caught.value.code == "engine.overloaded"
    assert ends == ["first", "second"]
    assert trio.current_time() == pytest.approx(0.160)


async def test_a_cancelled_job_frees_its_place(autojump_clock, job):
    engine = make(places=1)
    with trio.move_on_after(0.055):
        await engine.run_job(job("x", model="model"), lambda event: None)
    assert engine.free_places("model") == 1
    await engine.run_job(job("x", model="model"), lambda event: None)


async def test_what_it_does_not_serve_is_refused(autojump_clock, job):
    engine = make(context_tokens=4)
    for text, model, code in (
        ("x", "other", "engine.unknown_model"),
        ("a b c", "model", "engine.prompt_too_long"),
    ):
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job(text, model=model), lambda event: None)
        assert caught.value.code == code
    assert [info.name for info in engine.models()] == ["model"]
    assert engine.estimate("model", 5) == Estimate(50 * MS, 100_000)
    with pytest.raises(EngineError):
        engine.free_places("other")


async def test_logprobs_are_those_of_the_script_and_stop_tokens_refused(
    autojump_clock, job, answer
):
    """1/2 for what came, 1/4 and so on for the others; there is no vocabulary to stop at."""
    spec, got = job("Say it", model="model", tokens=9), answer()
    asked = replace(spec, parameters=replace(spec.parameters, logprobs=2))
    await make().run_job(asked, got.events.append)
    tokens = [event for event in got.events if isinstance(event, Tokens)]
    assert [len(event.logprobs) for event in tokens] == [event.count for event in tokens]
    first = tokens[1].logprobs[0]
    assert first.chosen == TokenChance(b" big world", -693_147)
    assert [chance.logprob_micro for chance in first.top] == [-693_147, -1_386_294]
    wrong = replace(spec, parameters=replace(spec.parameters, stop_tokens=(1,)))
    with pytest.raises(EngineError, match="stop_tokens"):
        await make().run_job(wrong, got.events.append)
