"""Frames of one read: each is judged alone. Source: router/README.md, the driver's contract."""

import pytest

from protocol import signing, wire
from protocol.channel import ChannelState
from protocol.errors import RemoteError
from protocol.framing import FrameReader, frame
from protocol.messages import Cancel, Chunk, ReceiptAck, Voucher
from protocol.units import NS_PER_S
from router.actions import Penalize, SessionData, SessionKey
from tests.router.support import (
    channels,
    failure,
    flipped,
    key_of,
    make_ask,
    make_world,
    tamper,
)


def total_after(joined: bool) -> int:
    """The payee's best total after an ignored message and a voucher, in one read or two."""
    world = make_world()
    payee, payer = world.peers
    world.give(payer, make_ask())
    world.run(10 * NS_PER_S)
    (channel,) = channels(payee)
    total, claims = channel.total_ucr + 1, channel.claims()
    signed = signing.voucher_bytes(payee.node.context.network, channel.cid, total, claims)
    voucher = Voucher(channel.cid, total, claims, payer.signer.sign(signed))
    late = ReceiptAck(channel.cid, 1, bytes(32), bytes(64))  # lane 1 is closed: ignored
    parts = [frame(wire.encode(late)), frame(wire.encode(voucher))]
    for data in [b"".join(parts)] if joined else parts:
        read = SessionData(SessionKey(key_of(payer), False), data)
        payee.node.receive(read, world.clock.now_ns)
    return channel.total_ucr


def test_what_follows_an_ignored_message_in_the_same_read_is_taken() -> None:
    """Regression: an ignored frame took the rest of its read with it."""
    assert total_after(joined=True) == total_after(joined=False)


def test_a_frozen_channel_stays_frozen_over_a_restart() -> None:
    """Regression: FROZEN was not in the log, so a restart forgave a payee that had lied."""
    world = make_world()
    provider, requester = world.peers

    def forge(chunk: Chunk) -> Chunk:
        return Chunk(
            chunk.cid,
            chunk.lane,
            chunk.sequence,
            chunk.text,
            chunk.input_tokens,
            chunk.output_tokens,
            chunk.due_ucr,
            chunk.transcript,
            flipped(chunk.signature),
        )

    tamper(world, provider, Chunk, forge)
    world.give(requester, make_ask())
    world.run(5 * NS_PER_S)
    assert failure(requester) in ("chunk.bad_signature", "request.all_failed")
    assert channels(requester)[0].state is ChannelState.FROZEN
    world.crash(requester)
    world.restart(requester)
    assert channels(requester)[0].state is ChannelState.FROZEN
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert failure(requester, 2) == "bid.low_reputation"  # who lied is not bought from again
    assert len(channels(requester)) == 1


def test_what_came_whole_before_a_bad_header_counts() -> None:
    """Regression: a bad header took the frames before it in the same read."""
    reader = FrameReader(bytes_max=64)
    whole, bad = frame(b"abc"), (65).to_bytes(4, "big")
    assert reader.feed(whole + bad) == [b"abc"]
    assert reader.broken is not None
    with pytest.raises(RemoteError) as caught:
        reader.feed(b"")
    assert caught.value.code == "wire.oversized"


def test_a_bad_header_behind_whole_frames_ends_the_stream() -> None:
    """The node takes what came whole, then penalises, in the same read."""
    world = make_world()
    payee, payer = world.peers
    world.give(payer, make_ask())
    world.run(10 * NS_PER_S)
    (channel,) = channels(payee)
    total, claims = channel.total_ucr + 1, channel.claims()
    signed = signing.voucher_bytes(payee.node.context.network, channel.cid, total, claims)
    voucher = Voucher(channel.cid, total, claims, payer.signer.sign(signed))
    read = SessionData(SessionKey(key_of(payer), False), frame(wire.encode(voucher)) + bytes(4))
    actions = payee.node.receive(read, world.clock.now_ns)
    assert channel.total_ucr == total
    assert [item.code for item in actions if isinstance(item, Penalize)] == ["wire.malformed"]


def test_a_payer_that_pays_in_crumbs_does_not_hold_a_place_for_ever() -> None:
    """Regression: the provider had no deadline; now it is the request's."""
    world = make_world()
    provider, requester = world.peers
    paid = [0]

    def crumbs(voucher: Voucher) -> Voucher | None:
        paid[0] += 1
        return voucher if paid[0] == 1 else None

    tamper(world, requester, Voucher, crumbs, times=1_000)
    tamper(world, requester, Cancel, lambda _: None, times=1_000)
    world.give(requester, make_ask(1, 800, timeout_ns=20 * NS_PER_S, advance_max_ucr=3_000))
    world.run(2 * NS_PER_S)
    (channel,) = channels(provider)
    for _ in range(10):
        total, claims = channel.total_ucr + 1, channel.claims()
        signed = signing.voucher_bytes(provider.node.context.network, channel.cid, total, claims)
        voucher = Voucher(channel.cid, total, claims, requester.signer.sign(signed))
        key = SessionKey(key_of(requester), False)
        world.give(provider, SessionData(key, frame(wire.encode(voucher))))
        world.run(5 * NS_PER_S)
    assert provider.node.provider.serving.running == 0
