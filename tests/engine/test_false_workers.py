"""Workers that say what they should not, too much or nothing: the job fails, the next is served.

The first worker of each test is a program that is up and then goes wrong, as one does whose
memory is damaged; the second is the real one.
"""

import errno
import os
import resource
import subprocess
import sys
from contextlib import suppress

import pytest
import trio

from engine import process
from engine.interface import Tokens
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S
from tests.engine.babbler import babbler_path

# Reads one job; `say` writes frames, `handle` is the job's number.
PROLOGUE = """
import os, sys, time
from engine.frames import *
from protocol.fields import FinishReason
buffer = FrameBuffer()
def say(*messages):
    for message in messages:
        os.write(1, message if isinstance(message, bytes) else encode(message))
def hear():
    while True:
        for body in buffer.push(os.read(0, 65536)):
            return decode_to_worker(body)
SPEED = Speed(1000, (1000,) * 4)
def report(*events):
    return Report(list(events), SPEED)
hear()
say(Ready(2048, "false worker cpu", "", SPEED))
handle = hear().handle
started = JobStarted(handle, 5)
"""
FOREVER = "\ntime.sleep(3600)"
WRONG = {
    "garbage": "say(b'x' * 999)",
    "a frame of no message": "say(b'\\0\\0\\0\\1\\xc1')",
    "a frame without end": "say(b'\\0\\1\\0\\0'); [say(b'x' * 65536) for _ in range(9)]",
    "an absurd length": "say(b'\\xff' * 4)",
    "ready twice": "say(Ready(2048, '', '', SPEED))",
    "another job's event": "say(report(JobStarted(handle + 1, 5)))",
    "no prompt": "say(report(JobStarted(handle, 0)))",
    "a prompt over the context": "say(report(JobStarted(handle, 2**40)))",
    "started twice": "say(report(started, started))",
    "text before the start": "say(report(JobTokens(handle, 'a', 1)))",
    "more tokens than were asked for": "say(report(started, JobTokens(handle, 'a', 17)))",
    "text of no token": "say(report(started, JobTokens(handle, 'a', 0)))",
    "text without end": (
        "say(report(started))\nwhile True: say(report(JobTokens(handle, 'a' * 9999, 1)))"
    ),
    "a wrong total": "say(report(started, JobFinished(handle, FinishReason.STOP, 3)))",
    "another kind of result": (
        "say(report(started, JobRechecked(handle, 5, (), (), (), (), (), '', True, None, True)))"
    ),
    "its pipe closed": "os.close(1)",
    "not listening": "os.close(0)\nsay(report(started))",
    "its end": "sys.exit(3)",
    "a code that is none": "say(report(JobFailed(handle, 'no.such', 'x\\n' * 9999)))",
    "a failure of its own": "say(Failed('engine.crashed', 'x\\n' * 9999))",
    "silence": "say(report(started))",
    "a frame drop by drop": (
        "say(report(started), b'\\0\\0\\1\\0')\nwhile True: say(b'x'); time.sleep(0.05)"
    ),
}


@pytest.fixture
def first_worker(monkeypatch):
    """Make the first worker of the test another program."""

    def use(program: str) -> None:
        spawn, spawned = process._spawn, []

        def spawn_other() -> subprocess.Popen[bytes]:
            with monkeypatch.context() as patch:
                if not spawned:
                    patch.setattr(process, "COMMAND", (sys.executable, "-c", PROLOGUE + program))
                spawned.append(program)
                return spawn()

        monkeypatch.setattr(process, "_spawn", spawn_other)
        monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)

    return use


@pytest.mark.parametrize("what", WRONG)
async def test_it_says(serve, job, first_worker, monkeypatch, what):
    first_worker(WRONG[what] + FOREVER)
    if what in ("silence", "a frame drop by drop", "a frame without end", "not listening"):
        monkeypatch.setattr(limits, "ENGINE_SILENCE_NS_MIN", 300_000_000)
    async with serve() as engine:
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.code in ("engine.crashed", "engine.timeout")
        assert "\n" not in caught.value.detail
        assert len(caught.value.detail) <= limits.ENGINE_DETAIL_CHARS_MAX
        if what == "a code that is none":
            return  # that job failed, and nothing is wrong with the worker
        await engine.wait_serving("babbler")
        monkeypatch.setattr(limits, "ENGINE_SILENCE_NS_MIN", 20 * NS_PER_S)
        await engine.run_job(job("Hello", tokens=3), lambda event: None)
        (health,) = engine.health()
        assert (health.stage, health.restarts) == ("serving", 1)
        assert health.last_error.startswith(caught.value.code)


async def test_it_floods_stderr(serve, job, first_worker):
    """Only the end is kept, and a full pipe does not stop it."""
    first_worker(
        "\nfor _ in range(99): os.write(2, b'x' * 65536)\nos.write(2, b'end\\n'); os.abort()"
    )
    async with serve() as engine:
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello"), lambda event: None)
        assert caught.value.detail.startswith("killed by SIGABRT: xxx")
        assert len(caught.value.detail) < 200
        await engine.wait_serving("babbler")
        await engine.run_job(job("Hello", tokens=3), lambda event: None)


async def test_it_says_nothing_over_and_over(serve, job, first_worker, monkeypatch):
    """Frames without events by the thousand: others are served meanwhile, until it is over."""
    first_worker("say(report(started))\nfor _ in range(200_000): say(report())\nsys.exit(1)")
    async with serve() as engine:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            with pytest.raises(EngineError) as caught:
                await engine.run_job(job("Hello"), lambda event: None)
            nursery.cancel_scope.cancel()
        assert caught.value.code == "engine.crashed"
        assert turns > 20


async def test_text_that_came_before_is_kept(serve, job, answer, first_worker):
    first_worker("say(report(started, JobTokens(handle, 'a', 1)))\nsay(b'x' * 9)" + FOREVER)
    got = answer()
    async with serve() as engine:
        with pytest.raises(EngineError):
            await engine.run_job(job("Hello"), got.events.append)
    assert got.text == "a"
    assert [type(event) for event in got.events[1:]] == [Tokens]


@pytest.mark.parametrize("what", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_no_process_for_a_worker_is_an_error_and_not_the_end(serve, job, monkeypatch, what):
    """A system out of processes, memory or descriptors, while the worker has to be restarted."""
    async with serve() as engine:

        def fail() -> None:
            raise OSError(what, os.strerror(what))

        monkeypatch.setattr(limits, "ENGINE_RESTART_NS_MIN", 1_000_000)
        with monkeypatch.context() as patch:
            patch.setattr(process, "_spawn", fail)
            os.kill(engine.worker_pid("babbler"), 9)
            while "can't be started" not in engine.health()[0].last_error:
                await trio.lowlevel.checkpoint()
        await engine.wait_serving("babbler")
        await engine.run_job(job("Hello", tokens=3), lambda event: None)


async def test_no_descriptors_left_is_an_error_of_the_model():
    """For real: enough to read the file, too few for the pipes."""
    path = babbler_path()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filler = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (filler[0] + 64, hard))
    try:
        with suppress(OSError):
            while True:
                filler.append(os.dup(filler[0]))
        for _ in range(4):
            os.close(filler.pop())
        with trio.fail_after(30), pytest.raises(EngineError) as caught:
            await LlamaEngine([path], LlamaSettings(n_threads=1)).run()
        for _ in range(4):  # nothing was left open
            filler.append(os.dup(filler[0]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)
    assert caught.value.code == "engine.crashed"
    assert "can't be started: Too many open files" in caught.value.detail


async def test_the_end_of_the_engine_fails_the_jobs_of_others(serve, job):
    """A job in a task that outlives the engine does not wait for ever."""
    codes = []
    async with trio.open_nursery() as outside, serve() as engine:
        started = trio.Event()

        async def one() -> None:
            try:
                await engine.run_job(job("Hello", tokens=1_900), lambda event: started.set())
            except EngineError as error:
                codes.append(error.code)

        outside.start_soon(one)
        await started.wait()
    assert codes == ["engine.cancelled"]
