"""Frames of one read: each is judged alone. Source: router/README.md, the driver's contract."""

from protocol import signing, wire
from protocol.channel import ChannelState
from protocol.framing import frame
from protocol.messages import Chunk, ReceiptAck, Voucher
from protocol.units import NS_PER_S
from router.actions import SessionData, SessionKey
from tests.router.support import (
    channels,
    failure,
    flipped,
    key_of,
    make_ask,
    make_world,
    succeeded,
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
    assert succeeded(requester, 2)
    assert len(channels(requester)) == 2
