"""Hostile peers: after each attack the node lives, takes a fresh peer and gossips both ways.

The attacks are those that ended a stock host or could have (peer/README.md),
and some more against what the adapter added.
"""

import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from multiaddr import Multiaddr

from peer.libp2p_adapter.addresses import peer_id
from peer.libp2p_adapter.host import create_host
from peer.libp2p_adapter.router import message_id
from protocol import framing, limits, wire
from protocol.crypto import Signer
from protocol.envelope import sign_envelope
from protocol.messages import PeerList, PeerRecord
from protocol.units import NS_PER_S

TOPIC = "/peerd/test/requests/1"
GOSSIP = "/meshsub/1.1.0"
SOMEBODY = b"\x12\x20" + b"a" * 32  # an RSA peer's id


@dataclass
class Attacker:
    """A bare libp2p host connected to the victim."""

    host: Any
    victim: Any

    @property
    def target(self) -> Any:
        return peer_id(self.victim.key)

    @property
    def muxed(self) -> Any:
        return self.host.get_network().connections[self.target][0].muxed_conn

    async def raw(self, frame: bytes) -> None:
        """Send bytes below the multiplexer; the victim may have hung up already."""
        with suppress(Exception):
            await self.muxed.secured_conn.write(frame)

    async def send(self, data: bytes, protocol: str = GOSSIP) -> Any:
        stream = await self.host.new_stream(self.target, [protocol])
        await stream.write(data)
        return stream

    async def rpc(self, **fields: Any) -> Any:
        return await self.send(encode_varint_prefixed(rpc_pb2.RPC(**fields).SerializeToString()))

    async def message(self, **fields: Any) -> Any:
        fields = {"data": b"z", "topicIDs": [TOPIC], **fields}
        return await self.rpc(publish=[rpc_pb2.Message(**fields)])

    async def control(self, **fields: Any) -> Any:
        return await self.rpc(control=rpc_pb2.ControlMessage(**fields))


@asynccontextmanager
async def attacking(victim: Any, seed: int = 200):
    host = create_host(Signer(seed.to_bytes(32, "big")), 64)
    address = Multiaddr(victim.network.addresses[0].rsplit("/p2p/", 1)[0])
    async with host.run([]):
        await host.get_network().dial_addr(address, peer_id(victim.key))
        yield Attacker(host, victim)


async def settle(attacker: Attacker) -> None:
    """Until the victim has read what was sent: it answers a ping, or has hung up."""
    with trio.move_on_after(2):
        try:
            stream = await attacker.send(b"p" * 32, "/ipfs/ping/1.0.0")
            await stream.read(32)
        except Exception:  # noqa: BLE001 - hung up, in whichever way
            return


async def survives(victim: Any, start: Any, join: Any, seed: int = 100) -> None:
    """A fresh node joins the victim, and both hear each other."""
    fresh = await start(seed)
    await join(fresh, victim)
    await fresh.network.publish(b"fresh %d" % seed)
    await victim.network.publish(b"victim %d" % seed)
    await victim.until(lambda: b"fresh %d" % seed in victim.messages)
    await fresh.until(lambda: b"victim %d" % seed in fresh.messages)
    assert not victim.ended.is_set()


async def hung_up(victim: Any) -> None:
    """Until the victim closed a connection: long before it would for want of a subscription."""
    with trio.fail_after(limits.SUBSCRIBE_TIMEOUT_NS / NS_PER_S / 3):
        await victim.until(lambda: any(not up for _, up in victim.peer_events))


Attack = Callable[[Attacker], Awaitable[Any]]
ATTACKS: dict[str, Attack] = {
    "garbage_protobuf": lambda a: a.send(encode_varint_prefixed(b"\xff\xfe\xfd" * 20)),
    "bad_from_id": lambda a: a.message(from_id=b"\x01", seqno=b"1" * 8, signature=b"s" * 64),
    "bad_key": lambda a: a.message(
        from_id=SOMEBODY, seqno=b"1" * 8, signature=b"s" * 64, key=b"\xff\xff\xff"
    ),
    "key_of_unknown_type": lambda a: a.message(
        from_id=SOMEBODY, seqno=b"1" * 8, signature=b"s" * 64, key=b"\x08\x03\x12\x02hi"
    ),
    "key_of_wrong_length": lambda a: a.message(
        from_id=SOMEBODY, seqno=b"1" * 8, signature=b"s" * 64, key=b"\x08\x01\x12\x02hi"
    ),
    "signature_of_wrong_length": lambda a: a.message(
        from_id=a.host.get_id().to_bytes(), seqno=b"1" * 8, signature=b"s"
    ),
    "message_without_fields": lambda a: a.rpc(publish=[rpc_pb2.Message(topicIDs=[TOPIC])]),
    "topic_not_utf8": lambda a: a.send(
        encode_varint_prefixed(bytes([0x12, 8, 0x22, 2, 0xFF, 0xFE, 0x12, 2, 0x41, 0x42]))
    ),
    "subscription_not_utf8": lambda a: a.send(
        encode_varint_prefixed(bytes([0x0A, 6, 0x08, 1, 0x12, 2, 0xFF, 0xFE]))
    ),
    "bad_sender_record": lambda a: a.rpc(senderRecord=b"garbage"),
    "endless_back_off": lambda a: a.control(
        prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=2**64 - 1)]
    ),
    "bad_peer_exchange": lambda a: a.control(
        prune=[
            rpc_pb2.ControlPrune(
                topicID=TOPIC,
                peers=[rpc_pb2.PeerInfo(peerID=b"\x00", signedPeerRecord=b"xx")],
            )
        ]
    ),
    "offer_of_too_many_ids": lambda a: a.control(
        ihave=[
            rpc_pb2.ControlIHave(topicID=TOPIC, messageIDs=[b"%08d" % i for i in range(20_000)])
        ]
    ),
    "grafts_of_unknown_topics": lambda a: a.control(
        graft=[rpc_pb2.ControlGraft(topicID=f"x{i}") for i in range(5000)]
    ),
    "too_many_subscriptions": lambda a: a.rpc(
        subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"t{i}") for i in range(5000)]
    ),
    "oversized_rpc": lambda a: a.send(b"\xff\xff\xff\x7f" + b"x" * 100),
    "endless_varint": lambda a: a.send(b"\xff" * 12),
    "garbage_bid": lambda a: a.send(b"\xff" * 200, "/peerd/test/bid/1.0.0"),
    "garbage_peer_list": lambda a: a.send(b"\0\0\0\x05hello", "/peerd/test/peers/1.0.0"),
    "garbage_identify": lambda a: a.send(b"\xff" * 200, "/ipfs/id/1.0.0"),
    "yamux_garbage": lambda a: a.raw(os.urandom(400)),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_the_node_survives(name: str, start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await ATTACKS[name](attacker)
            await settle(attacker)
            await survives(victim, start, join)
    assert set(victim.messages) <= {b"fresh 100", b"victim 100"}


async def test_bytes_that_are_not_noise_are_hung_up_on(start, join) -> None:
    victim = await start(1)
    port = int(victim.network.addresses[0].split("/")[4])
    with trio.fail_after(20):
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(os.urandom(500))
            await stream.aclose()
        async with attacking(victim) as attacker:
            raw = attacker.muxed.secured_conn.conn.read_writer.read_write_closer
            await raw.write(b"\x00\x40" + os.urandom(64))  # a frame that does not decrypt
            await survives(victim, start, join)


async def test_peers_that_vanish_abruptly_leave_nothing_behind(start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        for seed in range(200, 210):
            async with attacking(victim, seed) as attacker:
                await attacker.rpc(
                    subscriptions=[rpc_pb2.RPC.SubOpts(subscribe=True, topicid=TOPIC)]
                )
                raw = attacker.muxed.secured_conn.conn.read_writer.read_write_closer
                tcp = raw.stream.stream.socket
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                tcp.close()
        await victim.until(lambda: len(victim.peer_events) >= 20)
        assert not victim.network.peers
        await survives(victim, start, join)
        assert len(victim.network._host.get_peerstore().peer_data_map) <= 2


async def test_a_flood_of_streams_closes_the_connection(start, join) -> None:
    # Stock accepts 5,000, a task each.
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            for number in range(1000):
                header = struct.pack("!BBHII", 0, 1, 1, 1001 + 2 * number, 0)
                await attacker.raw(header)
            await hung_up(victim)
        await survives(victim, start, join)


async def test_ignoring_flow_control_closes_the_connection(start, join) -> None:
    # Stock libp2p buffers whatever comes.
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            stream = await attacker.host.new_stream(attacker.target, ["/peerd/test/job/1.0.0"])
            await victim.until(lambda: bool(victim.sessions))
            number = stream.muxed_stream.stream_id
            frame = struct.pack("!BBHII", 0, 0, 0, number, 60_000) + b"x" * 60_000
            for _ in range(10):
                await attacker.raw(frame)
            await hung_up(victim)
        await survives(victim, start, join)


async def test_one_huge_frame_closes_the_connection(start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            header = struct.pack("!BBHII", 0, 0, 1, 1001, 8 * 1024 * 1024)
            await attacker.raw(header + b"x" * 100_000)
            await hung_up(victim)
        await survives(victim, start, join)


async def test_an_id_asked_for_often_is_sent_once(start, join) -> None:
    # Stock answers one RPC of 30,000 times the same id with 30,000 copies.
    victim, listener = await start(1), await start(2)
    await join(listener, victim)
    data = b"m" * 16_000
    await victim.network.publish(data)
    answer: list[Any] = []
    router = victim.network._router
    stock = router.send_rpc
    wanted = message_id(rpc_pb2.Message(data=data))
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            own = attacker.host.get_id()  # the listener may ask as well, once
            router.send_rpc = lambda peer, rpc, priority=False: (
                answer.append(rpc) if rpc.publish and peer == own else stock(peer, rpc, priority)
            )
            await attacker.control(iwant=[rpc_pb2.ControlIWant(messageIDs=[wanted] * 5000)])
            await settle(attacker)
    assert [len(rpc.publish) for rpc in answer] == [1]


async def test_prunes_of_invented_topics_are_not_remembered(start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            for prefix in "ab":
                await attacker.control(
                    prune=[rpc_pb2.ControlPrune(topicID=f"{prefix}{i}") for i in range(2000)]
                )
            await settle(attacker)
            assert not victim.network._router.back_off
            await attacker.control(prune=[rpc_pb2.ControlPrune(topicID=TOPIC, backoff=2**63)])
            await settle(attacker)
    waiting = victim.network._router.back_off[TOPIC]
    assert max(waiting.values()) < 2**40


async def test_a_prune_does_not_make_us_dial(start, join, monkeypatch) -> None:
    victim = await start(1)
    dialled: list[Any] = []
    monkeypatch.setattr(victim.network._router, "_do_px", dialled.append)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await ATTACKS["bad_peer_exchange"](attacker)
            await settle(attacker)
    assert not dialled


async def test_a_bad_message_is_judged_once_however_often_it_comes(start, join) -> None:
    victim = await start(1)
    victim.accept = lambda data, forwarder: data != b"bad"
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            message = rpc_pb2.Message(data=b"bad", topicIDs=[TOPIC])
            await attacker.rpc(publish=[message] * 500)
            await settle(attacker)
            await survives(victim, start, join)
    assert victim.messages.count(b"bad") == 1


async def test_messages_that_are_not_plain_are_not_judged(start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await attacker.message(seqno=b"1" * 8)
            await attacker.message(from_id=attacker.host.get_id().to_bytes())
            await attacker.message(topicIDs=["another"])
            await attacker.message(topicIDs=[TOPIC, "another"])
            await attacker.message(data=b"x" * (limits.GOSSIP_BYTES_MAX + 1))
            await attacker.message(data=b"plain")
            await victim.until(lambda: bool(victim.messages))
    assert victim.messages == [b"plain"]


async def test_a_handler_that_raises_costs_its_stream_alone(start, join) -> None:
    # Stock libp2p ends the host.
    victim = await start(1)

    async def broken(stream: Any) -> None:
        await stream.read(1)
        raise ValueError("a bug")

    victim.network._host.set_stream_handler("/broken/1", broken)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await attacker.send(b"x", "/broken/1")
            ping = await attacker.send(b"p" * 32, "/ipfs/ping/1.0.0")
            assert await ping.read(32) == b"p" * 32
            await survives(victim, start, join)


async def test_a_peer_has_a_bounded_number_of_sessions(start, join) -> None:
    victim = await start(1)
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            streams = [
                await attacker.host.new_stream(attacker.target, ["/peerd/test/job/1.0.0"])
                for _ in range(limits.STREAMS_PER_PEER_AND_PROTOCOL_MAX + 4)
            ]
            await settle(attacker)
            assert len(victim.sessions) == limits.STREAMS_PER_PEER_AND_PROTOCOL_MAX
            await streams[0].reset()
            await survives(victim, start, join)


async def test_a_forged_peer_record_is_an_offence(start, join) -> None:
    victim = await start(1)
    record = PeerRecord(addresses=("/ip4/127.0.0.1/tcp/4001",))
    data = sign_envelope(Signer(b"\3" * 32), "test", record, time.time_ns()).data
    forged = data[:-1] + bytes([data[-1] ^ 1])
    body = wire.encode(PeerList(records=(forged,)))
    with trio.fail_after(20):
        async with attacking(victim) as attacker:
            await attacker.send(framing.frame(body), "/peerd/test/peers/1.0.0")
            await hung_up(victim)
        await survives(victim, start, join)
