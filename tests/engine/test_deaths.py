"""Workers that die, hang or never start, and what the engine makes of it."""

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
from engine.interface import Tokens
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from tests.engine.babbler import babbler_path

LONG = 1_900


async def wait_gone(descriptor: int) -> None:
    """Until the process of a pidfd has ended."""
    await trio.lowlevel.wait_readable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_a_killed_worker_fails_its_jobs_and_is_restarted(serve, job, answer, number):
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        errors = []

        async def one(text: str) -> None:
            def kill_at_first_text(event: object) -> None:
                if isinstance(event, Tokens) and engine.worker_pid("babbler") == pid:
                    os.kill(pid, number)

            try:
                tokens = LONG if text in "abcd" else 5
                await engine.run_job(job(text, tokens=tokens), kill_at_first_text)
            except EngineError as error:
                errors.append(error)
                assert engine.models() == ()
                assert engine.free_places("babbler") == 0

        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c", "d", "e", "f"):
                nursery.start_soon(one, text)
        # The two that waited for a place go to the next worker, and are well.
        assert [error.code for error in errors] == ["engine.crashed"] * 4
        assert errors[0].detail.startswith(f"killed by {number.name}")
        assert engine.worker_pid("babbler") != pid
        assert len(engine.models()) == 1
        got = answer()
        await engine.run_job(job("Hello", tokens=5), got.events.append)
        assert got.finished.output_tokens == 5


async def test_no_job_is_taken_while_the_worker_is_restarted(serve, job):
    async with serve() as engine:
        os.kill(engine.worker_pid("babbler"), signal.SIGKILL)
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.crashed"
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.crashed"


async def test_all_jobs_of_a_worker_fail_with_it(serve, job):
    async with serve(LlamaSettings(n_threads=1, places=4)) as engine:
        pid = engine.worker_pid("babbler")
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
            assert engine.free_places("babbler") == 0
            os.kill(pid, signal.SIGKILL)
        assert len(errors) == 4
        assert all(error.startswith("engine.crashed (killed by SIGKILL") for error in errors)


async def test_a_worker_that_falls_silent_is_replaced(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_SILENCE_NS_MIN", 100_000_000)
    monkeypatch.setattr(limits, "ENGINE_SILENCE_NS_MAX", 100_000_000)
    async with serve() as engine:
        os.kill(engine.worker_pid("babbler"), signal.SIGSTOP)
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code == "engine.timeout"
        monkeypatch.undo()
        await engine.wait_serving("babbler")
        await engine.run_job(job("Hello", tokens=5), lambda event: None)


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("import os; os.abort()", "engine.bad_model", "killed by SIGABRT"),
        ("raise SystemExit('no\\x07 luck')", "engine.bad_model", "exit status 1: no? luck"),
        ("print('x' * 999)", "engine.crashed", "it wrote nonsense"),
        ("import signal; signal.pause()", "engine.timeout", "too long to load"),
    ],
)
async def test_a_worker_that_never_serves_stops_the_start(monkeypatch, program, code, why):
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    if code == "engine.timeout":
        monkeypatch.setattr(limits, "ENGINE_START_NS_MIN", 50_000_000)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([babbler_path()]).run()
    assert caught.value.code == code
    assert why in caught.value.detail


async def test_the_worker_leaves_no_core_and_starts_no_debugger(serve):
    async with serve() as engine:
        proc = Path(f"/proc/{engine.worker_pid('babbler')}")
        (core,) = [
            line
            for line in (proc / "limits").read_text().splitlines()
            if line.startswith("Max core")
        ]
        assert core.split()[4:6] == ["0", "0"]
        assert b"GGML_NO_BACKTRACE=1" in (proc / "environ").read_bytes().split(b"\0")


async def test_ctrl_c_does_not_reach_the_worker(serve, job):
    async with serve() as engine:
        pid = engine.worker_pid("babbler")
        os.kill(pid, signal.SIGINT)
        await engine.run_job(job("Hello", tokens=5), lambda event: None)
        assert engine.worker_pid("babbler") == pid


async def test_the_end_of_the_engine_is_the_end_of_its_worker(serve):
    async with serve() as engine:
        descriptor = os.pidfd_open(engine.worker_pid("babbler"))
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
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"
    assert str(path) in caught.value.detail
    assert "\n" not in caught.value.detail


async def test_a_file_that_only_the_worker_finds_bad_stops_the_start(tmp_path):
    """A whole header of an architecture that llama.cpp does not know."""
    raw = babbler_path().read_bytes().replace(b"llama", b"lxxma")
    path = tmp_path / "strange.gguf"
    path.write_bytes(raw)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"
    assert caught.value.detail == f"{path}: unknown model architecture: 'lxxma'"


async def test_one_bad_model_stops_the_others_too(tmp_path):
    path = tmp_path / "strange.gguf"
    raw = babbler_path().read_bytes().replace(b"llama", b"lxxma")
    path.write_bytes(raw.replace(b"babbler", b"embeddad"))
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([babbler_path(), path]).run()
    assert caught.value.code == "engine.bad_model"


async def test_weights_that_are_no_numbers_stop_the_start(tmp_path):
    raw = bytearray(babbler_path().read_bytes())
    raw[-4096:] = b"\x00\x7e" * 2048  # NaN in 16 bits
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path]).run()
    assert caught.value.code == "engine.bad_model"


async def test_two_files_of_one_name_are_refused():
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([babbler_path()] * 2).run()
    assert caught.value.code == "engine.bad_model"
