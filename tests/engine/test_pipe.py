"""Frames on pipes: cutting, checking, merging for a slow reader."""

import os
from collections.abc import Iterator

import pytest

from engine.frames import (
    Cancel,
    FrameBuffer,
    FrameError,
    JobFinished,
    JobTokens,
    Ready,
    Report,
    Speed,
    Submit,
    check,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from engine.pipe import Outbox, Pipe
from protocol import limits
from protocol.fields import FinishReason

SPEED = Speed(1, (2, 3))


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, int, int]]:
    """A worker's pipe, and the daemon's ends of it: what it writes to, what it reads from."""
    to_worker, daemon_out = os.pipe()
    daemon_in, from_worker = os.pipe()
    yield Pipe(to_worker, from_worker), daemon_out, daemon_in
    for descriptor in (to_worker, daemon_out, daemon_in, from_worker):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_frames_come_out_however_the_stream_is_cut():
    stream = encode(Cancel(1)) + encode(Cancel(2)) + encode(Cancel(3))
    for size in (1, 3, 7, len(stream)):
        buffer = FrameBuffer()
        bodies = [
            body
            for at in range(0, len(stream), size)
            for body in buffer.push(stream[at : at + size])
        ]
        assert [decode_to_worker(body) for body in bodies] == [Cancel(1), Cancel(2), Cancel(3)]


def test_an_absurd_length_is_refused_before_its_bytes_come():
    with pytest.raises(FrameError):
        list(FrameBuffer().push((limits.ENGINE_FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


def test_a_message_over_the_limit_is_not_sent():
    text = "x" * limits.ENGINE_FRAME_BYTES_MAX
    with pytest.raises(FrameError):
        encode(Report([JobTokens(1, text, 1)], SPEED))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91\x63", b"\x92\x03\xa1x", b"\x92\x03\xe0"])
def test_what_is_no_message_is_refused(body):
    with pytest.raises(FrameError):
        decode_to_worker(body)
    with pytest.raises(FrameError):
        decode_from_worker(body)


def test_check_refuses_what_a_worker_could_not_read(chat, parameters):
    check(Submit(1, chat("Hello"), parameters(5)))
    for prompt, choice in (
        (chat("x" * (limits.MESSAGE_TEXT_CHARS_MAX + 1)), parameters(5)),
        (chat("\ud83c"), parameters(5)),
        (chat("Hello"), parameters(0)),
        (chat("Hello"), parameters(5, temperature_milli=-1)),
        (chat("Hello"), parameters(5, stop=("",))),
        (chat("Hello"), parameters(5, seed=2**70)),
    ):
        with pytest.raises(FrameError):
            check(Submit(1, prompt, choice))


def test_a_pipe_receives_and_sees_the_end(ends):
    pipe, daemon_out, _ = ends
    assert list(pipe.receive()) == []
    os.write(daemon_out, encode(Cancel(7)) + encode(Cancel(8))[:3])
    assert list(pipe.receive()) == [Cancel(7)]
    os.write(daemon_out, encode(Cancel(8))[3:])
    assert list(pipe.receive()) == [Cancel(8)]
    assert not pipe.is_closed
    os.close(daemon_out)
    assert list(pipe.receive()) == []
    assert pipe.is_closed


def test_a_reader_that_is_gone_closes_the_pipe(ends):
    pipe, _, daemon_in = ends
    os.close(daemon_in)
    pipe.send(Ready(1, "", "", SPEED))
    assert pipe.is_closed


def test_a_slow_reader_gets_all_of_it_later(ends):
    pipe, _, daemon_in = ends
    sent = Report([JobTokens(1, "x" * 200_000, 5)], SPEED)
    pipe.send(sent)
    assert not pipe.is_clear
    buffer, bodies = FrameBuffer(), []
    while not bodies:
        bodies = list(buffer.push(os.read(daemon_in, 65536)))
        pipe.flush()
    assert pipe.is_clear
    assert [decode_from_worker(body) for body in bodies] == [sent]


def test_tokens_of_a_job_are_merged_and_keep_their_order():
    outbox = Outbox()
    outbox.add(JobTokens(1, "a", 1))
    outbox.add(JobTokens(2, "b", 1))
    outbox.add(JobTokens(1, "c", 2))
    outbox.add(JobFinished(1, FinishReason.STOP, 3))
    outbox.add(JobTokens(2, "d", 1))
    report = outbox.report(SPEED)
    assert report is not None
    assert report.events == [
        JobTokens(1, "ac", 3),
        JobTokens(2, "bd", 2),
        JobFinished(1, FinishReason.STOP, 3),
    ]
    outbox.add(JobTokens(2, "e", 1))
    again = outbox.report(SPEED)
    assert again is not None
    assert again.events == [JobTokens(2, "e", 1)]


def test_scores_are_merged_with_their_tokens_and_fill_the_outbox():
    """20 alternatives weigh 100 times as much as a token's text."""
    outbox = Outbox()
    scores = [(b"a", -number, ((b"a", -1),) * 20) for number in range(3)]
    outbox.add(JobTokens(1, "a", 1, (1,), (scores[0],)))
    outbox.add(JobTokens(1, "bc", 2, (2, 3), tuple(scores[1:])))
    report = outbox.report(SPEED)
    assert report is not None
    assert report.events == [JobTokens(1, "abc", 3, (1, 2, 3), tuple(scores))]
    assert list(FrameBuffer().push(encode(report)))
    for _ in range(limits.ENGINE_OUTBOX_CHARS_MAX // 190 + 1):
        assert not outbox.is_full
        outbox.add(JobTokens(1, "a", 1, (1,), (scores[0],)))
    assert outbox.is_full


def test_an_idle_outbox_reports_only_as_a_sign_of_life(monkeypatch):
    outbox = Outbox()
    assert outbox.report(SPEED) is None
    outbox.add(JobFinished(1, FinishReason.STOP, 0))
    assert outbox.report(SPEED) is not None
    assert outbox.report(SPEED) is None
    monkeypatch.setattr(limits, "ENGINE_HEARTBEAT_NS", 0)
    assert outbox.report(SPEED) == Report([], SPEED)


def test_an_outbox_that_nobody_reads_fills_up():
    outbox = Outbox()
    outbox.add(JobTokens(1, "x" * limits.ENGINE_OUTBOX_CHARS_MAX, 1))
    assert not outbox.is_full
    outbox.add(JobTokens(1, "x", 1))
    assert outbox.is_full
    outbox.report(SPEED)
    assert not outbox.is_full
