"""What libp2p 0.8.1 gets wrong over time; each test fails without its remedy (peer/README.md)."""

import logging
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.pubsub.pubsub as pubsub
import pytest
import trio
import trio.lowlevel
import trio.testing
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import Service, background_trio_service

from peer.libp2p_adapter import hardening
from peer.libp2p_adapter.addresses import parse_address, peer_id
from peer.libp2p_adapter.pubsub import RpcError, RpcReader, SeenIds, TopicPubsub
from peer.libp2p_adapter.router import ContentCache, TopicRouter, message_id
from peer.libp2p_adapter.yamux import BoundedYamux
from peer.libp2p_adapter.yamux_stream import BoundedStream
from protocol import limits
from protocol.errors import NetworkError


async def test_connections_over_time_are_not_capped_together(start, join) -> None:
    # Fatal 2: stock's inbound limiter counts all connections ever; 250 by default, 4 here.
    hub = await start(1, connections_max=4)
    for seed in range(2, 12):
        visitor = await start(seed)
        await join(visitor, hub)
        await visitor.stop()
        await hub.until(lambda v=visitor: (v.key, False) in hub.peer_events)
    assert hub.network._host.get_network()._inbound_limiter.borrowed_tokens <= 1


async def test_connections_at_once_are_capped(start, join) -> None:
    hub = await start(1, connections_max=3, peers_wanted=0)
    visitors = [await start(seed, peers_wanted=0) for seed in range(2, 8)]
    for visitor in visitors:
        with trio.move_on_after(1), suppress(NetworkError):
            await visitor.network.dial(hub.key, hub.network.addresses)
    assert len(hub.network.peers) <= 3


async def test_a_full_hub_lets_the_longest_connected_go(start, join) -> None:
    # Else a bootstrap node that is full admits nobody to the network.
    hub = await start(1, connections_max=4, peers_wanted=0)
    for seed in range(2, 10):
        visitor = await start(seed, peers_wanted=0)
        await join(visitor, hub)
        await hub.until(lambda: len(hub.network.peers) <= 3)


class Relay:
    """A TCP relay that can be told to stop reading while its sockets stay open."""

    def __init__(self) -> None:
        self.address = ""
        self.flowing = trio.Event()
        self.flowing.set()

    def freeze(self) -> None:
        self.flowing = trio.Event()

    async def pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        while True:
            await self.flowing.wait()
            data = await source.receive_some(4096)
            await self.flowing.wait()
            if not data:
                return
            await sink.send_all(data)


@asynccontextmanager
async def relayed(target: str) -> AsyncIterator[Relay]:
    """A relay to `target` with small buffers."""
    relay = Relay()
    port = int(target.split("/")[4])

    async def serve(stream: trio.SocketStream) -> None:
        onward = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            async with trio.open_nursery() as both:
                both.start_soon(relay.pump, stream, onward)
                both.start_soon(relay.pump, onward, stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # a side hung up

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        relay.address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}"
        yield relay
        nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_noticed(start, monkeypatch) -> None:
    # Stock waits for TCP, that is for minutes or for ever.
    monkeypatch.setattr(BoundedYamux, "keepalive_s", 0.1)
    monkeypatch.setattr(BoundedYamux, "keepalive_timeout_s", 0.3)
    one, other = await start(1), await start(2)
    async with relayed(other.network.addresses[0]) as relay:
        with trio.fail_after(20):
            await one.network.dial(other.key, (relay.address,))
            await one.network.wait_topic_peers(1)
            relay.freeze()
            await one.until(lambda: (other.key, False) in one.peer_events)
            await other.until(lambda: (one.key, False) in other.peer_events)
    assert not one.network.topic_peers()


async def test_a_writer_that_is_cancelled_leaves_the_connection_whole(start) -> None:
    # Fatal 4: stock stops in the middle of an encrypted message, and no stream works any more.
    one, other = await start(1), await start(2)
    async with relayed(other.network.addresses[0]) as relay:
        with trio.fail_after(20):
            near = await one.network.open_session(other.key, (relay.address,))
            await other.until(lambda: bool(other.sessions))
            raw = near._stream
            tcp = raw.muxed_conn.secured_conn.conn.read_writer.read_write_closer.stream.stream
            tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            relay.freeze()
            scope, ended = trio.CancelScope(), trio.Event()

            async def write() -> None:
                with scope:
                    await raw.write(b"z" * 200_000)
                ended.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not ended.is_set(), "the write was not blocked: nothing is tested"
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked(0.01)
                relay.flowing.set()
                await ended.wait()
            fresh = await one.network.open_session(other.key, ())
            fresh.send_nowait(b"still here")
            await other.until(lambda: len(other.sessions) == 2)
            assert await other.sessions[1].receive() == b"still here"
    assert (other.key, False) not in one.peer_events


async def test_a_bootstrap_that_restarts_is_found_again(start) -> None:
    # Stock refuses a peer for 60 s after one failed dial.
    hub = await start(1)
    address = hub.network.addresses[0]
    leaf = await start(2, bootstrap=(address,))
    with trio.fail_after(10):
        await leaf.network.wait_topic_peers(1)
    await hub.stop()
    await leaf.until(lambda: (hub.key, False) in leaf.peer_events)
    again = await start(1, listen=(hub.last_address,))
    with trio.fail_after(15):
        await leaf.network.wait_topic_peers(1)
        await again.network.wait_topic_peers(1)
        await again.network.publish(b"back")
    await leaf.until(lambda: b"back" in leaf.messages)


async def test_a_node_that_comes_back_at_once_is_gossiped_to(start, join) -> None:
    # Stock keeps writing to the stream of the old connection when a new one came before its
    # end was noticed.
    one, other = await start(1), await start(2)
    await join(one, other)
    swarm = one.network._host.get_network()
    address = parse_address(other.network.addresses[0])
    with trio.fail_after(10):
        await swarm.dial_addr(address.multiaddr, peer_id(other.key))
        for node in (one, other):
            pubsub_of, network = node.network._pubsub, node.network._host.get_network()
            while True:
                stream = next(iter(pubsub_of.peers.values()), None)
                connections = network.get_connections()
                if (
                    stream
                    and len(connections) == 1
                    and stream.muxed_conn is connections[0].muxed_conn
                ):
                    break
                await trio.sleep(0.01)
        await one.network.wait_topic_peers(1)
        await other.network.wait_topic_peers(1)
        await other.network.publish(b"there")
        await one.network.publish(b"and back")
    await one.until(lambda: b"there" in one.messages)
    await other.until(lambda: b"and back" in other.messages)
    assert (other.key, False) not in one.peer_events


async def test_a_host_may_be_dialled_while_it_starts(start, nursery) -> None:
    # Fatal 3: an inbound gossip stream before pubsub runs ends a stock host.
    hub = await start(1)
    address = hub.network.addresses[0]
    leaves = [await start(seed, bootstrap=(address,)) for seed in range(2, 5)]
    await hub.stop()
    again = await start(1, listen=(hub.last_address,))
    with trio.fail_after(20):
        await again.network.wait_topic_peers(len(leaves))


async def test_a_task_that_raises_does_not_end_its_service() -> None:
    hardening.apply()
    after = trio.Event()

    class Fragile(Service):
        async def run(self) -> None:
            self.manager.run_task(self.fail)
            self.manager.run_task(self.go_on)
            await self.manager.wait_finished()

        async def fail(self) -> None:
            raise ValueError("one packet")

        async def go_on(self) -> None:
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            after.set()

    with trio.fail_after(5):
        async with background_trio_service(Fragile()) as manager:
            await after.wait()
            assert manager.is_running


def test_applying_twice_changes_nothing() -> None:
    hardening.apply()
    before = (pubsub.RpcQueue, swarm_connection.SwarmConn._handle_muxed_stream)
    hardening.apply()
    assert before == (pubsub.RpcQueue, swarm_connection.SwarmConn._handle_muxed_stream)


def test_libp2p_never_configures_the_root_logger() -> None:
    hardening.apply()
    assert swarm_connection.logging is not logging
    assert not logging.getLogger("libp2p.network.swarm").isEnabledFor(logging.ERROR)
    assert not logging.getLogger("libp2p.network.auto_connector").isEnabledFor(logging.INFO)


async def test_nothing_grows_with_messages(start, join) -> None:
    # Stock keeps an entry a message in recent_message_deliveries, for ever.
    one, other = await start(1), await start(2)
    await join(one, other)
    for number in range(200):
        await one.network.publish(b"%d" % number)
    await other.until(lambda: len(other.messages) == 200)
    for node in (one, other):
        router = node.network._router
        assert not any(router.recent_message_deliveries.values())
        assert not router.message_rate_limits
        assert not router.equivocation_detection
        assert not router._pending_messages


async def test_messages_carry_no_sender_signature_or_record(start, join, monkeypatch) -> None:
    seen: list[rpc_pb2.RPC] = []
    stock = TopicPubsub._take

    async def take(self: TopicPubsub, body: bytes, peer: object) -> None:
        seen.append(rpc_pb2.RPC.FromString(body))
        await stock(self, body, peer)

    monkeypatch.setattr(TopicPubsub, "_take", take)
    one, other = await start(1), await start(2)
    await join(one, other)
    await one.network.publish(b"plain")
    await other.until(lambda: bool(other.messages))
    assert any(rpc.subscriptions for rpc in seen)
    assert not any(rpc.HasField("senderRecord") for rpc in seen)
    message = next(rpc.publish[0] for rpc in seen if rpc.publish)
    assert [field.name for field, _ in message.ListFields()] == ["data", "topicIDs"]


async def test_the_window_is_given_back_by_halves(start, join, monkeypatch) -> None:
    # Stock answers each read with a frame: a third of the CPU of gossip.
    updates: list[int] = []
    stock = BoundedStream.send_window_update

    async def counting(self: BoundedStream, increment: int, skip_lock: bool = False) -> None:
        updates.append(increment)
        await stock(self, increment, skip_lock)

    monkeypatch.setattr(BoundedStream, "send_window_update", counting)
    one, other = await start(1), await start(2)
    await join(one, other)
    for number in range(100):
        await one.network.publish(b"%d" % number)
        await other.until(lambda n=number: len(other.messages) > n)
    assert updates == []


def test_the_cache_and_the_ids_use_the_content() -> None:
    # Stock's cache ignores the id function, so that nothing asked for is ever found.
    cache = ContentCache(3, 5)
    message = rpc_pb2.Message(data=b"data", topicIDs=["t"])
    cache.put(message)
    assert cache.get(message_id(message)) == message
    assert cache.window("t") == [message_id(message)]


async def test_a_newcomer_gets_what_was_said_just_before(start, join) -> None:
    one, other, late = await start(1), await start(2), await start(3)
    await join(one, other)
    await one.network.publish(b"early")
    await join(late, one)
    await late.until(lambda: b"early" in late.messages)


async def test_a_leaf_outside_the_mesh_gets_everything(start, join) -> None:
    # Stock offers nothing to a peer in back-off: pruned leaves of a hub get 37 %.
    hub, leaf = await start(1), await start(2)
    await join(leaf, hub)
    router = hub.network._router
    topic = hub.network._topic
    identity = next(iter(hub.network._pubsub.peers))
    router.mesh[topic].clear()
    router._add_back_off(identity, topic, False, 3600)
    leaf.network._router.mesh[topic].clear()
    leaf.network._router._add_back_off(next(iter(leaf.network._pubsub.peers)), topic, False, 3600)
    # Not published here but passed on, so that only an offer can bring it.
    message = rpc_pb2.Message(data=b"from elsewhere", topicIDs=[topic])
    await hub.network._pubsub.push_msg(identity, message)
    await leaf.until(lambda: b"from elsewhere" in leaf.messages)


def test_options_that_stock_sets_for_somebody_else() -> None:
    router = TopicRouter("t", random.Random(1))
    assert router.protocols == ["/meshsub/1.1.0"]
    assert (router.heartbeat_interval, router.adaptive_gossip_enabled) == (1, False)
    assert (router.spam_protection_enabled, router.eclipse_protection_enabled) == (False, False)


def test_seen_ids_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(limits, "SEEN_MESSAGES_MAX", 3)
    seen = SeenIds()
    assert [seen.add(bytes([i])) for i in (1, 1, 2, 3, 4)] == [True, False, True, True, True]
    assert [seen.has(bytes([i])) for i in (1, 2, 3, 4)] == [False, True, True, True]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_rpcs_are_read_however_they_are_cut(size: int) -> None:
    bodies = [b"", b"a", b"b" * 127, b"c" * 128, b"d" * 20_000]
    stream = b"".join(pubsub.encode_varint_prefixed(body) for body in bodies)
    reader = RpcReader()
    found = []
    for start in range(0, len(stream), size):
        found += reader.feed(stream[start : start + size])
    assert found == bodies


@pytest.mark.parametrize("data", [b"\xff" * 5, b"\x80\x80\x80\x80\x80", b"\xff\xff\xff\x7f"])
def test_a_malformed_or_huge_length_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(RpcError):
        RpcReader().feed(data)
