"""The worker's loop in this process, between two real pipes."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from engine.frames import (
    Cancel,
    FrameBuffer,
    JobEvent,
    JobFailed,
    JobFinished,
    JobStarted,
    JobTokens,
    Load,
    Ready,
    Report,
    Submit,
    decode_from_worker,
    encode,
)
from engine.intake import Intake
from engine.pipe import Pipe
from engine.service import Service
from protocol import limits
from protocol.fields import FinishReason
from protocol.units import NS_PER_S
from tests.engine.babbler import babbler_path

LOAD = Load(
    path=os.fsencode(babbler_path()),
    threads=1,
    places=2,
    context_tokens=512,
    chunk_tokens=64,
    queue_jobs=4,
    step_ns_min=0,
)


class Daemon:
    """The other end of a service's pipes."""

    def __init__(self, load: Load = LOAD) -> None:
        to_worker, self._out = os.pipe()
        self._in, from_worker = os.pipe()
        self.pipe = Pipe(to_worker, from_worker)
        self._buffer = FrameBuffer()
        self.service = Service(babbler_path(), load, self.pipe)

    def send(self, message: Submit | Cancel) -> None:
        os.write(self._out, encode(message))

    def hang_up(self) -> None:
        os.close(self._out)
        self._out = -1

    def close(self) -> None:
        if self._out >= 0:
            self.hang_up()
        os.close(self._in)

    def read(self) -> list[Report]:
        messages = [decode_from_worker(b) for b in self._buffer.push(os.read(self._in, 1 << 20))]
        assert all(isinstance(message, Report) for message in messages)
        return [message for message in messages if isinstance(message, Report)]


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    ends = Daemon()
    yield ends
    ends.close()


def test_a_reader_that_keeps_up_gets_every_token_at_once(daemon, chat, parameters):
    daemon.send(Submit(1, chat("Hello"), parameters(20)))
    daemon.service.turn()
    (report,) = daemon.read()
    assert [type(event) for event in report.events] == [JobStarted, JobTokens]
    daemon.service.turn()
    (report,) = daemon.read()
    assert [event.count for event in report.events] == [1]


def untimed(event: JobEvent) -> JobFinished:
    """A job's end without what was measured."""
    assert isinstance(event, JobFinished)
    assert event.queue_ns > 0
    return msgspec.structs.replace(event, queue_ns=0, output_ns=0)


def test_a_slow_reader_gets_several_tokens_in_a_frame(daemon, chat, parameters):
    daemon.send(Submit(1, chat("Hello"), parameters(20)))
    for _ in range(20):
        daemon.service.turn()
    reports = daemon.read()
    assert len(reports) == 2
    tokens, end = reports[1].events
    assert isinstance(tokens, JobTokens)
    assert tokens.count == 19
    assert untimed(end) == JobFinished(1, FinishReason.LENGTH, 20)


def test_a_reader_that_stopped_pauses_the_decoding(daemon, chat, parameters, monkeypatch):
    """A small pipe, and every token sent at once: the pipe is full long before the end."""
    fcntl.fcntl(daemon.pipe._output_fd, fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(limits, "ENGINE_OUTBOX_CHARS_MAX", 0)
    daemon.send(Submit(1, chat("Hello"), parameters(400)))
    daemon.service.turn()
    turns = 1
    while daemon.service._may_step:
        daemon.service.turn()
        turns += 1
    assert 20 < turns < 400
    assert not daemon.pipe.is_clear
    events: list[JobEvent] = [event for report in daemon.read() for event in report.events]
    while not isinstance(events[-1], JobFinished):
        daemon.service.turn()
        events += [event for report in daemon.read() for event in report.events]
    assert sum(event.count for event in events if isinstance(event, JobTokens)) == 400


def test_a_cancel_is_taken_between_two_steps(daemon, chat, parameters):
    daemon.send(Submit(1, chat("Hello"), parameters(400)))
    for _ in range(3):
        daemon.service.turn()
    daemon.send(Cancel(1))
    daemon.service.turn()
    events = [event for report in daemon.read() for event in report.events]
    assert untimed(events[-1]) == JobFinished(1, FinishReason.CANCELLED, 3)


def test_the_operators_pace_holds_steps_back_but_not_messages(chat, parameters):
    slow = Daemon(msgspec.structs.replace(LOAD, step_ns_min=3_600 * NS_PER_S))
    slow.send(Submit(1, chat("Hello"), parameters(400)))
    slow.service.turn()
    slow.send(Submit(2, chat("Hello"), parameters(400)))
    slow.service.turn()
    slow.send(Cancel(1))
    slow.service.turn()
    events = [event for report in slow.read() for event in report.events]
    assert untimed(events[-1]) == JobFinished(1, FinishReason.CANCELLED, 1)
    assert [type(event) for event in events if event.handle == 2] == [JobStarted]
    slow.close()


def test_a_job_that_there_is_no_memory_for_fails_alone(daemon, chat, parameters, monkeypatch):
    daemon.send(Submit(1, chat("Hello"), parameters(5)))
    daemon.service.turn()
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "read", Mock(side_effect=MemoryError))
        daemon.send(Submit(2, chat("Hello"), parameters(5)))
        daemon.service.turn()
    while daemon.service._may_step:
        daemon.service.turn()
    ends = {event.handle: event for report in daemon.read() for event in report.events}
    assert isinstance(ends[1], JobFinished)
    assert ends[1].output_tokens == 5
    assert isinstance(ends[2], JobFailed)
    assert ends[2].code == "engine.no_room"


def test_a_sign_of_life_comes_between_jobs_that_take_long_to_read(
    daemon, chat, parameters, monkeypatch
):
    """With a heartbeat of no time every message is followed by one."""
    monkeypatch.setattr(limits, "ENGINE_HEARTBEAT_NS", 0)
    daemon.send(Submit(1, chat("Hello"), parameters(5)))
    daemon.send(Cancel(1))
    daemon.service.turn()
    reports = daemon.read()
    assert [type(event) for event in reports[0].events] == [JobStarted]
    assert [type(event) for report in reports[1:] for event in report.events] == [JobFinished]


def test_the_end_of_the_input_ends_the_service(daemon, chat, parameters):
    daemon.send(Submit(1, chat("Hello"), parameters(400)))
    daemon.hang_up()
    daemon.service.serve()
    assert daemon.pipe.is_closed


def run_worker(stdin: bytes, parent: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "engine.worker", str(parent)],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def test_a_worker_serves_until_its_input_ends():
    ended = run_worker(encode(LOAD), os.getpid())
    assert ended.returncode == 0
    assert ended.stderr == b""
    (body,) = FrameBuffer().push(ended.stdout)
    ready = decode_from_worker(body)
    assert isinstance(ready, Ready)
    assert ready.context_tokens == 512
    assert ready.speed.prefill_ns > 0
    assert ready.speed.step_ns[0] > 0
    assert ready.speed.step_ns[1] > 0


def test_a_worker_does_not_outlive_a_daemon_that_is_already_gone():
    assert run_worker(encode(LOAD), os.getpid() + 1).returncode == 1


def test_a_worker_gives_up_on_nonsense():
    ended = run_worker(b"\0\0\0\4junk", os.getpid())
    assert ended.returncode == 1
    assert ended.stdout == b""
    assert b"FrameError" in ended.stderr.splitlines()[-1]
