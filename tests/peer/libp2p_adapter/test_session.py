"""Sessions and bids between two real nodes."""

import pytest
import trio

from protocol import limits
from protocol.crypto import Signer
from protocol.errors import NetworkError, RemoteError


async def read(session, count: int) -> bytes:
    """Exactly `count` bytes."""
    out = bytearray()
    while len(out) < count:
        data = await session.receive()
        assert data, f"the stream ended after {len(out)} bytes"
        out += data
    assert len(out) == count
    return bytes(out)


async def pair(start, join):
    """Two joined nodes and both ends of a session."""
    one, other = await start(1), await start(2)
    await join(one, other)
    near = await one.network.open_session(other.key, ())
    await other.until(lambda: bool(other.sessions))
    return one, other, near, other.sessions[0]


async def test_a_session_carries_a_megabyte_each_way_at_once(start, join) -> None:
    one, other, near, far = await pair(start, join)
    assert near.peer == other.key
    assert far.peer == one.key
    there, back = bytes(range(256)) * 4096, bytes(reversed(range(256))) * 4096
    received: dict[str, bytes] = {}

    async def send_and_read(session, out: bytes, name: str) -> None:
        for start_at in range(0, len(out), 65_536):
            session.send_nowait(out[start_at : start_at + 65_536])
        received[name] = await read(session, len(out))

    with trio.fail_after(20):
        async with trio.open_nursery() as both:
            both.start_soon(send_and_read, near, there, "back")
            both.start_soon(send_and_read, far, back, "there")
    assert received == {"there": there, "back": back}


async def test_closing_flushes_then_both_sides_see_the_end(start, join) -> None:
    _, _, near, far = await pair(start, join)
    near.send_nowait(b"last words")
    with trio.fail_after(10):
        async with trio.open_nursery() as both:
            both.start_soon(near.aclose)
            assert await read(far, 10) == b"last words"
            assert await far.receive() == b""
            await far.aclose()
    with pytest.raises(NetworkError, match=r"session\.closed"):
        near.send_nowait(b"more")


async def test_a_reset_ends_the_other_side(start, join) -> None:
    _, _, near, far = await pair(start, join)
    near.close_nowait()
    with trio.fail_after(10):
        assert await far.receive() == b""


async def test_a_peer_that_does_not_read_costs_a_bounded_amount(start, join) -> None:
    # Stock libp2p buffered 65 MB on a window of 256 KB.
    _, _, near, far = await pair(start, join)
    piece = b"x" * 65_536
    for _ in range(limits.SESSION_BUFFER_BYTES_MAX // len(piece)):
        near.send_nowait(piece)
    with pytest.raises(RemoteError, match=r"session\.overflow") as caught:
        near.send_nowait(b"x")
    assert not caught.value.penalize
    assert near.closed
    with trio.fail_after(10):
        while await far.receive():
            pass


async def test_the_receiver_holds_no_more_than_a_window(start, join) -> None:
    _, _, near, far = await pair(start, join)
    for _ in range(14):
        near.send_nowait(b"x" * 65_536)  # 896 KB, less than the sender's own bound
    buffers = far._stream.muxed_conn.stream_buffers
    with trio.fail_after(10):
        while buffers.total_bytes() < 255 * 1024:  # noqa: ASYNC110
            await trio.sleep(0.005)
        assert near._stream.muxed_stream.send_window == 0
        assert buffers.total_bytes() <= 256 * 1024
        await read(far, 14 * 65_536)


async def test_many_small_frames_travel_in_few_writes(start, join) -> None:
    _, _, near, far = await pair(start, join)
    writes = 0
    muxed = near._stream.muxed_stream
    stock = muxed.write

    async def counting(data: bytes) -> None:
        nonlocal writes
        writes += 1
        await stock(data)

    muxed.write = counting
    for _ in range(1000):
        near.send_nowait(b"0123456789")
    with trio.fail_after(10):
        assert await read(far, 10_000) == b"0123456789" * 1000
    assert writes == 1


async def test_a_session_dials_a_peer_that_is_not_connected(start) -> None:
    one, other = await start(1), await start(2)
    with trio.fail_after(10):
        session = await one.network.open_session(other.key, other.network.addresses)
        session.send_nowait(b"hello")
        await other.until(lambda: bool(other.sessions))
        assert await read(other.sessions[0], 5) == b"hello"


async def test_an_unreachable_peer_is_told_in_one_line(start) -> None:
    one = await start(1)
    stranger = Signer(b"\7" * 32).public_key
    for addresses in ((), ("/ip4/127.0.0.1/tcp/1",), ("nonsense",)):
        with trio.fail_after(10), pytest.raises(NetworkError) as caught:
            await one.network.open_session(stranger, addresses)
        assert caught.value.code == "network.unreachable"
        assert "\n" not in str(caught.value)


async def test_a_stream_that_opens_while_its_node_stops_is_no_crash(start, join) -> None:
    one, other = await start(1), await start(2)
    await join(one, other)
    host = one.network._host
    stock = host.new_stream

    async def slow(*args: object) -> object:
        stream = await stock(*args)
        await one.stop()
        return stream

    host.new_stream = slow
    with pytest.raises(NetworkError, match=r"network\.unreachable"):
        await one.network.open_session(other.key, ())


async def test_bids_arrive_whole_in_order_with_their_sender(start) -> None:
    one, other = await start(1), await start(2)
    bids = [bytes([i]) * (1 + i * 40) for i in range(50)] + [b"x" * limits.BID_FRAME_BYTES_MAX]
    with trio.fail_after(10):
        for bid in bids:
            await one.network.send_bid(other.key, other.network.addresses, bid)
        await other.until(lambda: len(other.bids) == len(bids))
    assert other.bids == [(one.key, bid) for bid in bids]


async def test_bids_to_more_peers_than_streams_are_kept_warm(start, monkeypatch) -> None:
    monkeypatch.setattr(limits, "BID_STREAMS_MAX", 1)
    one, two, three = await start(1), await start(2), await start(3)
    with trio.fail_after(10):
        for turn in range(3):
            for node in (two, three):
                await one.network.send_bid(node.key, node.network.addresses, bytes([turn]))
                await node.until(lambda n=node, t=turn: len(n.bids) == t + 1)


async def test_a_bid_after_the_peer_dropped_its_stream_uses_a_new_one(start) -> None:
    one, other = await start(1), await start(2)
    with trio.fail_after(10):
        await one.network.send_bid(other.key, other.network.addresses, b"1")
        await other.until(lambda: len(other.bids) == 1)
        other.network.disconnect(one.key)
        await one.until(lambda: (other.key, False) in one.peer_events)
        await one.network.send_bid(other.key, other.network.addresses, b"2")
        await other.until(lambda: len(other.bids) == 2)
