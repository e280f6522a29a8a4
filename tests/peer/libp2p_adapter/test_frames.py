"""Frames and encrypted messages between two real nodes, cut, broken off, reset and held up."""

import struct

import pytest
import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from peer.libp2p_adapter import yamux, yamux_stream
from tests.peer.libp2p_adapter.test_attacks import attacking, hung_up
from tests.peer.libp2p_adapter.test_session import pair, read

BODIES = [b"a", b"", b"b" * 11, b"c" * 500, b"", b"d" * 70_000, b"e"]
DATA, WINDOW = 0, 1
RST = 8


def frame(kind: int, flags: int, number: int, body: bytes = b"", length: int = 0) -> bytes:
    return struct.pack("!BBHII", 0, kind, flags, number, length or len(body)) + body


async def job(attacker, victim):
    """The number of a job stream that the attacker opened, and the victim's end of it."""
    stream = await attacker.host.new_stream(attacker.target, ["/peerd/test/job/1.0.0"])
    await victim.until(lambda: bool(victim.sessions))
    return stream.muxed_stream.stream_id, victim.sessions[0]


@pytest.mark.parametrize("size", [1, 5, 12, 13, 4096, 65_519])
async def test_frames_are_taken_however_messages_cut_them(size: int, start) -> None:
    victim = await start(1)
    bodies = BODIES if size > 100 else BODIES[:5]
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            number, session = await job(attacker, victim)
            sent = b"".join(frame(DATA, 0, number, body) for body in bodies)
            for at in range(0, len(sent), size):
                await attacker.raw(sent[at : at + size])
            whole = b"".join(bodies)
            assert await read(session, len(whole)) == whole


@pytest.mark.parametrize("size", [1, 2, 3, 17, 1000])
async def test_messages_are_read_however_the_wire_cuts_them(size: int, start) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            number, session = await job(attacker, victim)
            noise = attacker.muxed.secured_conn.conn
            sealed = b""
            for text in (b"one", b"two", b"three" * 200):
                message = noise.encrypt(frame(DATA, 0, number, text))
                sealed += len(message).to_bytes(2, "big") + message
            for at in range(0, len(sealed), size):
                await noise.write_rest(sealed[at : at + size])
                await trio.lowlevel.checkpoint()
            assert await read(session, 1006) == b"onetwo" + b"three" * 200


async def test_what_came_before_a_reset_is_read(start) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            number, session = await job(attacker, victim)
            await attacker.raw(frame(DATA, 0, number, b"last") + frame(WINDOW, RST, number))
            assert await session.receive() == b"last"
            assert await session.receive() == b""


async def test_a_reader_hears_of_a_reset_on_its_own_side(start, join) -> None:
    # Stock forgets the stream without waking who reads from it: a task for ever.
    _, _, near, _ = await pair(start, join)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.receive)
            await trio.testing.wait_all_tasks_blocked(0.01)
            near.close_nowait()


async def test_a_frame_that_does_not_end_ends_the_connection(start, monkeypatch) -> None:
    monkeypatch.setattr(yamux, "_FRAME_TIMEOUT_S", 0.05)
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            number, _ = await job(attacker, victim)
            await attacker.raw(frame(DATA, 0, number, b"begun", length=100))
            await hung_up(victim)


async def test_what_is_no_frame_of_yamux_ends_the_connection(start) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await attacker.raw(frame(9, 0, 1))
            await hung_up(victim)


async def test_a_window_that_stays_closed_ends_the_stream_alone(start, join, monkeypatch) -> None:
    one, other, near, _ = await pair(start, join)
    monkeypatch.setattr(yamux_stream, "WRITE_TIMEOUT_S", 0.05)
    with trio.fail_after(10):
        with pytest.raises(MuxedStreamError, match="window"):
            await near._stream.muxed_stream.write(b"x" * 300_000)
        await one.network.publish(b"gossip still goes")
        await other.until(lambda: b"gossip still goes" in other.messages)
