"""What the operator sees and says of workers: health, drain, limits of time and memory."""

import math
import os
import resource
import signal

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.catalogue import read_model
from engine.frames import FromWorker, Ready, Report, Speed, ToWorker
from engine.group import EngineGroup
from engine.interface import Tokens
from engine.job import Job
from engine.llama import LlamaEngine
from engine.loaded import LoadedModel
from engine.memory import data_bytes_max, layer_bytes, needed_bytes, step_bytes
from engine.process import resident_bytes
from engine.scripted import Script, ScriptedEngine
from engine.settings import LlamaSettings
from engine.speed import silence_ns, start_ns_max
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_MS, NS_PER_S
from tests.engine.babbler import babbler_path

MIB = 2**20


async def test_health_says_what_runs_where_and_what_was_wrong(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)
    async with serve(LlamaSettings(n_threads=1, places=2)) as engine:
        (health,) = engine.health()
        assert (health.name, health.stage, health.source) == (
            "babbler",
            "serving",
            str(babbler_path()),
        )
        assert (health.running, health.queued, health.restarts) == (0, 0, 0)
        assert (health.last_error, health.pid) == ("", engine.worker_pid("babbler"))
        assert 20 * MIB < health.resident_bytes < health.limit_bytes
        os.kill(health.pid, signal.SIGSTOP)

        codes = []

        async def one(text: str) -> None:
            try:
                await engine.run_job(job(text), lambda event: None)
            except EngineError as error:
                codes.append(error.code)
                (down,) = engine.health()
                assert down.stage == "resting"
                assert (down.pid, down.resident_bytes) == (None, 0)
                assert down.last_error.startswith("engine.crashed (killed by SIGKILL)")

        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c"):
                nursery.start_soon(one, text)
            await trio.testing.wait_all_tasks_blocked()
            (busy,) = engine.health()
            assert (busy.running, busy.queued) == (2, 1)
            os.kill(health.pid, signal.SIGKILL)
        # The one that waited went to the next worker.
        assert codes == ["engine.crashed"] * 2
        (again,) = engine.health()
        assert (again.stage, again.restarts) == ("serving", 1)


async def test_a_group_s_health_is_that_of_all(serve):
    scripted = ScriptedEngine({"script": Script()})
    async with serve() as engine:
        found = EngineGroup([scripted, engine]).health()
    assert [(one.name, one.stage) for one in found] == [
        ("script", "serving"),
        ("babbler", "serving"),
    ]


async def test_a_drained_engine_ends_what_runs_and_takes_nothing_new(serve, job, answer):
    got, started = answer(), trio.Event()
    async with serve() as engine, trio.open_nursery() as nursery:

        def emit(event: object) -> None:
            got.events.append(event)
            if isinstance(event, Tokens):
                started.set()

        nursery.start_soon(engine.run_job, job("Hello", tokens=300), emit)
        await started.wait()
        nursery.start_soon(engine.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.models() == ()
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.draining"
        with trio.fail_after(30):
            await engine.drain()
        assert got.finished.output_tokens == 300


async def test_a_build_without_gpu_is_said_once(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)
    with capture_logs() as lines:
        async with serve() as engine:
            os.kill(engine.worker_pid("babbler"), signal.SIGKILL)
            while engine.worker_pid("babbler"):
                await trio.testing.wait_all_tasks_blocked()
            await engine.wait_serving("babbler")
            await engine.run_job(job("Hello", tokens=3), lambda event: None)
    said = [line for line in lines if line["event"] == "engine.cpu_only"]
    assert len([line for line in lines if line["event"] == "engine.ready"]) == 2
    assert len(said) == 1
    assert "no GPU" in said[0]["meaning"]


# --- time ----------------------------------------------------------------------------------


def test_a_worker_may_be_silent_for_some_of_its_longest_steps():
    quick = Speed(20_000, (1 * NS_PER_MS,) * 4)
    assert silence_ns(quick) == silence_ns(Speed(0, ())) == limits.ENGINE_SILENCE_NS_MIN
    slow = Speed(10 * NS_PER_MS, (100 * NS_PER_MS, 400 * NS_PER_MS))
    # Four times 2,048 tokens of a prompt, and a step.
    assert silence_ns(slow) == 4 * (2_048 * 10 + 400) * NS_PER_MS
    assert silence_ns(Speed(10 * NS_PER_S, (1,))) == limits.ENGINE_SILENCE_NS_MAX


def test_a_large_file_may_load_longer():
    assert start_ns_max(0) == limits.ENGINE_START_NS_MIN == 60 * NS_PER_S
    assert start_ns_max(5 * 10**9) == 160 * NS_PER_S
    assert start_ns_max(10**12) == limits.ENGINE_START_NS_MAX


class Silent:
    """A worker that says nothing, after an hour of silence perhaps something."""

    pid = 1

    def __init__(self, *messages: FromWorker) -> None:
        self.sent: list[ToWorker] = []
        self._messages = messages

    def send_nowait(self, message: ToWorker) -> None:
        self.sent.append(message)

    async def receive(self) -> tuple[FromWorker, ...]:
        await trio.sleep(3_600 if self._messages else math.inf)
        messages, self._messages = self._messages, ()
        return messages


def loaded_on(worker: Silent) -> LoadedModel:
    ready = Ready(2_048, "silent cpu", "", Speed(1_000, (1_000,) * 4))
    return LoadedModel(worker, ready, lambda: None)


async def test_an_idle_worker_may_be_silent_for_ever(autojump_clock):
    with trio.move_on_after(10_000) as scope:
        await loaded_on(Silent(Report([], Speed(1_000, (1_000,) * 4)))).serve()
    assert scope.cancelled_caught


async def test_one_with_a_job_is_given_up_after_the_bound_and_soon(autojump_clock, job):
    loaded = loaded_on(Silent())
    begin_s = 1_003.0

    async def give() -> None:
        await trio.sleep(begin_s)
        loaded.give(Job(job("Hello")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give)
        error = await loaded.serve()
    assert error is not None
    assert error.code == "engine.timeout"
    assert 20 <= trio.current_time() - begin_s <= 30


async def test_a_job_may_not_run_for_ever(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_JOB_NS_MAX", 50_000_000)
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert caught.value.code == "engine.timeout"
        os.kill(pid, signal.SIGCONT)
        monkeypatch.undo()
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("babbler") == pid


# --- memory --------------------------------------------------------------------------------


def test_the_limit_is_far_over_the_need_unless_the_operator_says_one():
    file, settings = read_model(babbler_path()), LlamaSettings(n_threads=2)
    need = needed_bytes(file, settings)
    assert data_bytes_max(file, settings) == need + need // 2 + (2 * 16 + 512) * MIB
    said = LlamaSettings(n_threads=2, worker_memory_mib=300)
    assert data_bytes_max(file, said) == 300 * MIB


def test_a_gpu_is_told_of_all_that_lies_in_its_memory():
    file, settings = read_model(babbler_path()), LlamaSettings(n_threads=2)
    assert file.layers == 2
    layers = file.layers * layer_bytes(file, settings)
    assert layers >= file.info.size_bytes + file.kv_token_bytes * 2_048 * settings.places
    assert layers + step_bytes(file) < needed_bytes(file, settings)


async def test_the_worker_has_the_limit(serve):
    settings = LlamaSettings(n_threads=1, worker_memory_mib=700)
    async with serve(settings) as engine:
        pid = engine.worker_pid("babbler")
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (700 * MIB, 700 * MIB)
        assert 20 * MIB < resident_bytes(pid) < 700 * MIB


async def test_a_limit_that_nothing_fits_into_stops_the_start_with_a_code():
    tight = LlamaSettings(n_threads=1, places=64, worker_memory_mib=150)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([babbler_path()], tight).run()
    assert caught.value.code == "engine.no_room"


def test_the_memory_of_a_process_that_is_gone_is_none():
    assert resident_bytes(os.getpid()) > MIB
    assert resident_bytes(2**30) == 0
