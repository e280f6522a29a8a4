"""The whole engine: real workers on the embedded model, their deaths included."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest
import trio
import trio.testing

from engine import process
from engine.catalogue import read_model
from engine.embedded import embedded_model_path
from engine.interface import Engine, Finished, Started, Tokens
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason

LONG = 1_900


async def wait_gone(descriptor: int) -> None:
    """Until the process of a pidfd has ended."""
    await trio.lowlevel.wait_readable(descriptor)
    os.close(descriptor)


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
        file = read_model(embedded_model_path()).info
        assert (info.name, info.digest) == (file.name, file.digest)
        assert info.context_tokens == 300
        assert engine.free_places("embedded") == 4


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
        idle = engine.estimate("embedded", 100)
        assert idle.ttft_ns > 0
        assert idle.tokens_per_s_milli > 0
        assert engine.estimate("embedded", 1000).ttft_ns > idle.ttft_ns
        # Stopped, so that the jobs stay and no new measure comes.
        os.kill(engine.worker_pid("embedded"), signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for text in ("a", "b"):
                nursery.start_soon(engine.run_job, job(text, tokens=50), lambda event: None)
            await trio.testing.wait_all_tasks_blocked()
            assert engine.free_places("embedded") == 0
            step_ns = 10**12 // engine.estimate("embedded", 0).tokens_per_s_milli
            waiting_ns = engine.estimate("embedded", 100).ttft_ns - idle.ttft_ns
            assert waiting_ns >= 50 * step_ns * 0.9
            os.kill(engine.worker_pid("embedded"), signal.SIGCONT)
        assert engine.free_places("embedded") == 2


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
        pid = engine.worker_pid("embedded")
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job(text, **options), lambda event: None)
        assert caught.value.code == code
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("embedded") == pid


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


async def test_a_killed_worker_fails_its_jobs_and_is_restarted(serve, job, answer):
    async with serve() as engine:
        pid = engine.worker_pid("embedded")
        errors = []

        async def one(text: str) -> None:
            def kill_at_first_text(event: object) -> None:
                if isinstance(event, Tokens) and engine.worker_pid("embedded") == pid:
                    os.kill(pid, signal.SIGKILL)

            try:
                await engine.run_job(job(text, tokens=LONG), kill_at_first_text)
            except EngineError as error:
                errors.append(error)
                assert engine.models() == ()
                assert engine.free_places("embedded") == 0

        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c", "d", "e", "f"):
                nursery.start_soon(one, text)
        assert [error.code for error in errors] == ["engine.crashed"] * 6
        assert errors[0].detail == "killed by SIGKILL"
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.crashed"
        await engine.wait_serving("embedded")
        assert engine.worker_pid("embedded") != pid
        assert len(engine.models()) == 1
        got = answer()
        await engine.run_job(job("Hello", tokens=5), got.events.append)
        assert got.finished.output_tokens == 5


async def test_all_jobs_of_a_worker_fail_with_it(serve, job):
    async with serve(LlamaSettings(n_threads=1, places=2)) as engine:
        pid = engine.worker_pid("embedded")
        # Stopped, so that no job can end before the kill.
        os.kill(pid, signal.SIGSTOP)
        errors = []

        async def one(text: str) -> None:
            with pytest.raises(EngineError) as caught:
                await engine.run_job(job(text), lambda event: None)
            errors.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c", "d"):
                nursery.start_soon(one, text)
            await trio.testing.wait_all_tasks_blocked()
            assert engine.free_places("embedded") == 0
            os.kill(pid, signal.SIGKILL)
        assert len(errors) == 4
        assert all(error.startswith("engine.crashed (killed by SIGKILL") for error in errors)


async def test_a_job_that_was_cancelled_before_a_step_makes_no_token(serve, job):
    async with serve() as engine:
        pid = engine.worker_pid("embedded")
        os.kill(pid, signal.SIGSTOP)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.run_job, job("Hello", tokens=LONG), lambda event: None)
                await trio.testing.wait_all_tasks_blocked()
                (cancelled,) = engine._models[0]._jobs.values()
                scope.cancel()
        # The cancellation is in the pipe, too, before the worker looks.
        await trio.testing.wait_all_tasks_blocked()
        os.kill(pid, signal.SIGCONT)
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert [type(event) for event in cancelled._events] == [Started, Finished]
        assert cancelled._events[-1].reason == FinishReason.CANCELLED


async def test_a_worker_that_falls_silent_is_replaced(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_SILENCE_NS_MAX", 100_000_000)
    async with serve() as engine:
        os.kill(engine.worker_pid("embedded"), signal.SIGSTOP)
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.timeout"
        monkeypatch.undo()
        await engine.wait_serving("embedded")
        await engine.run_job(job("Hello", tokens=5), lambda event: None)


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("import os; os.abort()", "engine.bad_model", "killed by SIGABRT"),
        ("raise SystemExit('no\\x07 luck')", "engine.bad_model", "exit status 1: no? luck"),
        ("print('x' * 999)", "engine.crashed", "it wrote no frame"),
        ("import signal; signal.pause()", "engine.timeout", "too long to load"),
    ],
)
async def test_a_worker_that_never_serves_stops_the_start(monkeypatch, program, code, why):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    if code == "engine.timeout":
        monkeypatch.setattr(limits, "ENGINE_START_NS_MAX", 50_000_000)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([embedded_model_path()]).run()
    assert caught.value.code == code
    assert why in caught.value.detail


async def test_the_worker_leaves_no_core_and_starts_no_debugger(serve):
    async with serve() as engine:
        proc = Path(f"/proc/{engine.worker_pid('embedded')}")
        (core,) = [
            line
            for line in (proc / "limits").read_text().splitlines()
            if line.startswith("Max core")
        ]
        assert core.split()[4:6] == ["0", "0"]
        assert b"GGML_NO_BACKTRACE=1" in (proc / "environ").read_bytes().split(b"\0")


async def test_ctrl_c_does_not_reach_the_worker(serve, job):
    async with serve() as engine:
        pid = engine.worker_pid("embedded")
        os.kill(pid, signal.SIGINT)
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("embedded") == pid


async def test_the_end_of_the_engine_is_the_end_of_its_worker(serve):
    async with serve() as engine:
        descriptor = os.pidfd_open(engine.worker_pid("embedded"))
    with trio.fail_after(30):
        await wait_gone(descriptor)


DAEMON = """
import os, structlog, trio
from engine.embedded import embedded_model_path
from engine.llama import LlamaEngine

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

async def main():
    engine = LlamaEngine([embedded_model_path()])
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        os.write(1, b"%d\\n" % engine.worker_pid("embedded"))

trio.run(main)
"""


async def test_a_worker_dies_with_a_killed_daemon_even_in_a_step():
    """Stopped, it can't see the end of its input: only the kernel's signal ends it."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-c", DAEMON]
            start = partial(
                trio.run_process, command, stdout=PIPE, check=False, cwd=Path(__file__).parents[2]
            )
            daemon = await nursery.start(start)
            line = b""
            while not line.endswith(b"\n"):
                data = await daemon.stdout.receive_some()
                assert data, "the daemon ended by itself"
                line += data
            descriptor = os.pidfd_open(int(line))
            os.kill(int(line), signal.SIGSTOP)
            daemon.kill()
        await wait_gone(descriptor)


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"no model at all" * 99])
async def test_a_bad_file_stops_the_start_with_one_line(tmp_path, content):
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"
    assert str(path) in caught.value.detail
    assert "\n" not in caught.value.detail


async def test_a_file_that_only_the_worker_finds_bad_stops_the_start(tmp_path):
    """A whole header of an architecture that llama.cpp does not know."""
    raw = embedded_model_path().read_bytes().replace(b"llama", b"lxxma")
    path = tmp_path / "strange.gguf"
    path.write_bytes(raw)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"
    assert caught.value.detail == f"{path}: unknown model architecture: 'lxxma'"


async def test_weights_that_are_no_numbers_stop_the_start(tmp_path):
    raw = bytearray(embedded_model_path().read_bytes())
    raw[-4096:] = b"\x00\x7e" * 2048  # NaN in 16 bits
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"


async def test_two_files_of_one_name_are_refused():
    with pytest.raises(EngineError) as caught:
        await LlamaEngine([embedded_model_path()] * 2).run()
    assert caught.value.code == "engine.bad_model"
