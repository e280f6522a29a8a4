"""Several models in little memory: loaded for jobs, unloaded for others, withdrawn when broken.

Real workers; the models are one file under several names. Source: engine/README.md, "Models
and memory".
"""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine import process
from engine.catalogue import ModelSource, fingerprint, read_model
from engine.interface import Started, Tokens
from engine.llama import LlamaEngine
from engine.memory import needed_bytes
from engine.notes import ModelNotes, passed_trial
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S
from tests.engine.babbler import babbler_path

SMALL = LlamaSettings(n_threads=1, context_tokens=256, places=2)
LOAD_NS = 2 * NS_PER_S
Residents = Callable[..., AbstractAsyncContextManager[LlamaEngine]]


def settings_for(rooms: float) -> LlamaSettings:
    """A budget in which so many of these models fit."""
    need = needed_bytes(read_model(babbler_path()), SMALL)
    mib = int(rooms * need / 2**20) + 1
    return LlamaSettings(n_threads=1, context_tokens=256, places=2, memory_mib=mib)


def proven(conditions: str, load_ns: int = LOAD_NS) -> ModelNotes:
    """Notes that say that the file has passed, so that nothing is loaded at start."""
    notes = ModelNotes()
    trial = passed_trial(conditions, load_ns, 1_000, (2_000, 3_000))
    notes.record(fingerprint(babbler_path()), read_model(babbler_path()).info.digest, trial)
    return notes


@pytest.fixture
def residents() -> Residents:
    """An engine with the models a, b, ... that have passed, and room for so many of them."""

    @asynccontextmanager
    async def run(
        names: str, rooms: float, *, required: str = "", load_ns: int = LOAD_NS
    ) -> AsyncIterator[LlamaEngine]:
        settings = settings_for(rooms) if rooms else SMALL
        sources = [ModelSource(babbler_path(), name, name in required) for name in names]
        engine = LlamaEngine(sources, settings, proven(settings.conditions(), load_ns))
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()

    return run


def up(engine: LlamaEngine) -> str:
    """The models that have a worker."""
    return "".join(name for name in "abc" if _pid(engine, name))


def _pid(engine: LlamaEngine, name: str) -> int | None:
    try:
        return engine.worker_pid(name)
    except EngineError:
        return None


def offered(engine: LlamaEngine) -> str:
    return "".join(info.name for info in engine.models())


async def test_a_model_is_loaded_when_a_job_asks_and_the_promise_says_so(residents, job):
    async with residents("ab", 0) as engine:
        assert (up(engine), offered(engine)) == ("", "ab")
        assert engine.free_places("a") == 2
        # A quarter over the last time, and reading 100 tokens, and a step.
        assert engine.estimate("a", 100).ttft_ns == LOAD_NS * 5 // 4 + 100 * 1_000 + 2_000
        assert engine.estimate("a", 0).tokens_per_s_milli == 1000 * NS_PER_S // 2_000
        await engine.run_job(job("Hello", model="a", tokens=5), lambda event: None)
        assert up(engine) == "a"
        assert engine.estimate("a", 0).ttft_ns < LOAD_NS


async def test_the_time_to_load_is_part_of_the_job_s(residents, job, answer):
    got = answer()
    with capture_logs() as lines:
        async with residents("a", 0) as engine:
            await engine.run_job(job("Hello", model="a", tokens=5), got.events.append)
    (ready,) = [line for line in lines if line["event"] == "engine.ready"]
    assert ready["start_ms"] * 1_000_000 <= got.finished.ttft_ns <= got.finished.duration_ns


async def test_required_models_are_loaded_at_start(residents):
    async with residents("abc", 0, required="ac") as engine:
        assert (up(engine), offered(engine)) == ("ac", "acb")


async def test_a_job_for_another_model_takes_the_room_of_an_idle_one(residents, job):
    async with residents("ab", 1.5) as engine:
        for name in "abab":
            await engine.run_job(job("Hello", model=name, tokens=5), lambda event: None)
            assert up(engine) == name
            assert offered(engine) == "ab"


async def test_the_memory_of_an_unloaded_model_is_free_before_the_next_is_loaded(
    residents, job, monkeypatch
):
    spawn, pids, alive = process._spawn, [], []

    def spawn_and_look() -> object:
        alive.extend(pid for pid in pids if is_alive(pid))
        made = spawn()
        pids.append(made.pid)
        return made

    monkeypatch.setattr(process, "_spawn", spawn_and_look)
    async with residents("abc", 1.5) as engine:
        for name in "abc":
            await engine.run_job(job("Hello", model=name, tokens=5), lambda event: None)
        assert (len(pids), alive) == (3, [])
        assert is_alive(pids[-1])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_the_least_recently_used_goes(residents, job):
    async with residents("abc", 2.5) as engine:
        for name in "abac":
            await engine.run_job(job("Hello", model=name, tokens=5), lambda event: None)
        assert up(engine) == "ac"


async def test_a_model_that_works_is_never_unloaded(residents, job):
    """The other one is not offered meanwhile, and a job for it is refused, not queued."""
    async with residents("ab", 1.5) as engine:
        await engine.run_job(job("Hello", model="a", tokens=5), lambda event: None)
        os.kill(engine.worker_pid("a"), signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run_job, job("Hi", model="a", tokens=5), lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert offered(engine) == "a"
            assert engine.free_places("b") == 0
            with pytest.raises(EngineError) as caught:
                await engine.run_job(job("Hello", model="b"), lambda event: None)
            assert caught.value.code == "engine.overloaded"
            assert up(engine) == "a"
            os.kill(engine.worker_pid("a"), signal.SIGCONT)
        assert offered(engine) == "ab"
        await engine.run_job(job("Hello", model="b", tokens=5), lambda event: None)


async def test_jobs_that_come_while_it_loads_share_one_load(residents, job):
    with capture_logs() as lines:
        async with (
            residents("ab", 0, load_ns=5 * LOAD_NS) as engine,
            trio.open_nursery() as nursery,
        ):
            for text in ("one", "two", "three"):
                spec = job(text, model="a", tokens=5)
                nursery.start_soon(engine.run_job, spec, lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert engine.free_places("a") == 0
            # The other model's worker would have to wait for this one's.
            assert engine.estimate("b", 0).ttft_ns > 5 * LOAD_NS * 5 // 4 * 1.5
    assert [line["model"] for line in lines if line["event"] == "engine.ready"] == ["a"]


async def test_a_model_that_a_job_waits_for_takes_its_room_already(residents, job):
    async with residents("ab", 1.5) as engine:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run_job, job("x", model="a", tokens=5), lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert offered(engine) == "a"
        assert offered(engine) == "ab"


async def test_models_in_line_to_be_loaded_take_their_room_already(residents, job):
    """a is loading, b waits for it to have loaded; beside both there is no room for c."""
    async with residents("abc", 2.5) as engine:
        async with trio.open_nursery() as nursery:
            for name in "ab":
                spec = job(name, model=name, tokens=5)
                nursery.start_soon(engine.run_job, spec, lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert (up(engine), offered(engine)) == ("", "ab")
        assert offered(engine) == "abc"


async def test_a_job_that_is_cancelled_while_its_model_loads_leaves_it_loaded(residents, job):
    async with residents("ab", 1.5) as engine:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.run_job, job("x", model="a"), lambda event: None)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await engine.wait_serving("a")
        await engine.run_job(job("Hello", model="b", tokens=5), lambda event: None)
        assert up(engine) == "b"


async def test_more_jobs_than_places_and_queue_are_refused_while_it_loads(residents, job):
    async with residents("a", 0) as engine:
        codes = []

        async def one(number: int) -> None:
            spec = replace(job(f"{number}", model="a", tokens=2), owner=bytes([number]))
            try:
                await engine.run_job(spec, lambda event: None)
            except EngineError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for number in range(SMALL.places + SMALL.queue_jobs + 3):
                nursery.start_soon(one, number)
        assert codes == ["engine.overloaded"] * 3


async def test_what_never_fits_is_an_error_or_a_warning():
    tight = LlamaSettings(n_threads=1, memory_mib=8)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([babbler_path()], tight).run()
    assert caught.value.code == "engine.no_room"
    assert "of 8" in caught.value.detail
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            engine = LlamaEngine([ModelSource(babbler_path(), "a", False)], tight)
            await nursery.start(engine.run)
            assert engine.models() == ()
            nursery.cancel_scope.cancel()
    assert [line["code"] for line in lines if line["event"] == "engine.skipped"] == [
        "engine.no_room"
    ]


async def test_a_model_that_loads_too_slowly_is_offered_only_when_it_is_loaded(residents, job):
    """And stays loaded, as it could not come back."""
    slow_ns = limits.ENGINE_COLD_START_NS_MAX
    async with residents("ab", 1.5, load_ns=slow_ns) as engine:
        assert offered(engine) == ""
    async with residents("ab", 1.5, required="a", load_ns=slow_ns) as engine:
        # Loading it took less than was noted: now it is quick, and may go.
        assert offered(engine) == "a"
        await engine.run_job(job("Hello", model="a", tokens=5), lambda event: None)


async def test_a_slow_one_that_is_loaded_stays(residents, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_COLD_START_NS_MAX", 1)
    async with residents("ab", 1.5, required="a") as engine:
        assert offered(engine) == "a"
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello", model="b"), lambda event: None)
        assert caught.value.code == "engine.overloaded"
        assert up(engine) == "a"


async def test_an_untested_model_is_tested_once(tmp_path):
    """Then unloaded; the next start finds it proven, unless the conditions are others."""
    notes = tmp_path / "models.json"
    loads = []
    for settings in (SMALL, SMALL, LlamaSettings(n_threads=1, context_tokens=128, places=2)):
        engine = LlamaEngine(
            [ModelSource(babbler_path(), "a", False)], settings, ModelNotes(notes)
        )
        with capture_logs() as lines, trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                assert (up(engine), offered(engine)) == ("", "a")
                nursery.cancel_scope.cancel()
        loads.append(len([line for line in lines if line["event"] == "engine.ready"]))
    assert loads == [1, 0, 1]


async def test_a_model_that_keeps_crashing_is_withdrawn_and_the_other_goes_on(
    residents, job, monkeypatch
):
    monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)
    with capture_logs() as lines:
        async with residents("ab", 0, required="ab") as engine:
            for crash in range(limits.ENGINE_CRASHES_MAX):
                await engine.wait_serving("a")

                def kill(event: object, pid: int = engine.worker_pid("a")) -> None:
                    if isinstance(event, Started | Tokens):
                        os.kill(pid, signal.SIGKILL)

                with pytest.raises(EngineError) as caught:
                    await engine.run_job(job(f"{crash}", model="a", tokens=200), kill)
                assert caught.value.code == "engine.crashed"
            with pytest.raises(EngineError) as caught:
                await engine.run_job(job("Hello", model="a"), lambda event: None)
            assert caught.value.code == "engine.crashed"
            assert offered(engine) == "b"
            await engine.run_job(job("Hello", model="b", tokens=5), lambda event: None)
    (line,) = [line for line in lines if line["event"] == "engine.withdrawn"]
    assert (line["log_level"], line["model"], line["crashes"]) == ("error", "a", 3)
    assert "SIGKILL" in line["reason"]


async def test_a_withdrawn_model_comes_back_later(residents, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_CRASHES_MAX", 1)
    monkeypatch.setattr(limits, "ENGINE_WITHDRAWN_NS", 1_000_000)
    async with residents("a", 0, required="a") as engine:
        os.kill(engine.worker_pid("a"), signal.SIGKILL)
        # Down and withdrawn, then cold: nothing has it loaded but a job.
        while not (offered(engine) and not up(engine)):
            await trio.testing.wait_all_tasks_blocked()
        await engine.run_job(job("Hello", model="a", tokens=5), lambda event: None)
        assert up(engine) == "a"


async def test_old_crashes_are_forgotten(residents, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_CRASHES_NS", 0)
    monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)
    with capture_logs() as lines:
        async with residents("a", 0, required="a") as engine:
            for _ in range(limits.ENGINE_CRASHES_MAX + 1):
                await engine.wait_serving("a")
                os.kill(engine.worker_pid("a"), signal.SIGKILL)
                while engine.worker_pid("a"):
                    await trio.testing.wait_all_tasks_blocked()
            await engine.wait_serving("a")
            await engine.run_job(job("Hello", model="a", tokens=5), lambda event: None)
    assert not [line for line in lines if line["event"] == "engine.withdrawn"]
