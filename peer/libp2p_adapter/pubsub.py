"""Publish and subscribe on one topic: read RPCs, let the application judge, pass on.

Subclasses libp2p's Pubsub and keeps its wire protocol; messages carry data and topic alone
(StrictNoSign): the application's envelope is the signature. Differences from stock, with their
reasons, beside each method. Must not know what the messages mean.
"""

from collections.abc import Callable
from typing import Any, Final

import trio
from libp2p.abc import IHost
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.utils.varint import encode_uvarint

from peer.libp2p_adapter.router import TopicRouter, message_id
from protocol import limits

READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 64 * 1024
_VARINT_BYTES_MAX: Final = 5

Judge = Callable[[bytes, ID], bool]


class RpcError(Exception):
    """A neighbour's gossip stream can't be read any further."""


class RpcReader:
    """Length-prefixed RPCs out of a byte stream.

    Stock reads byte by byte (varint.py:159), a lock and a task switch each.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The RPCs that `data` completes. RpcError when a length is malformed or too large."""
        buffer = self._buffer
        buffer += data
        rpcs: list[bytes] = []
        start = 0
        while True:
            length, header = _varint(buffer, start)
            end = start + header + length
            if not header or len(buffer) < end:
                break
            rpcs.append(bytes(buffer[start + header : end]))
            start = end
        del buffer[:start]
        return rpcs


def _varint(buffer: bytearray, start: int) -> tuple[int, int]:
    """The number at `start` and its size in bytes; size 0 when it is not whole yet."""
    value = 0
    for index in range(start, min(len(buffer), start + _VARINT_BYTES_MAX)):
        byte = buffer[index]
        value |= (byte & 0x7F) << (7 * (index - start))
        if byte < 0x80:
            if value > limits.RPC_BYTES_MAX:
                raise RpcError(f"RPC of {value} bytes")
            return value, index - start + 1
    if len(buffer) - start >= _VARINT_BYTES_MAX:
        raise RpcError("malformed length")
    return 0, 0


class SeenIds:
    """The last SEEN_MESSAGES_MAX message ids, oldest out first.

    Stock's grows without bound for two minutes and sweeps in a thread of its own.
    """

    def __init__(self) -> None:
        self._ids: dict[bytes, None] = {}

    def has(self, identity: bytes) -> bool:
        """Whether the id is among them."""
        return identity in self._ids

    def add(self, identity: bytes) -> bool:
        """Remember an id; False when it was known."""
        if identity in self._ids:
            return False
        if len(self._ids) >= limits.SEEN_MESSAGES_MAX:
            del self._ids[next(iter(self._ids))]
        self._ids[identity] = None
        return True


class TopicPubsub(Pubsub):  # type: ignore[misc]
    """Gossip on one topic. `judge` gets each new message once, with its forwarder."""

    def __init__(self, host: IHost, router: TopicRouter, topic: str, judge: Judge) -> None:
        super().__init__(
            host=host,
            router=router,
            cache_size=1,
            seen_ttl=120,
            sweep_interval=86_400,
            strict_signing=False,
            msg_id_constructor=message_id,
            max_concurrent_validator_count=1,
            validation_cache_ttl=1,
            validation_cache_size=1,
            validation_timeout=1.0,
            max_subscriptions_per_rpc=16,
            max_subscriptions_per_peer=1,
            max_inbound_rpc_size=limits.RPC_BYTES_MAX,
            allowed_topics=frozenset((topic,)),
        )
        self._topic = topic
        self._judge = judge
        stock_seen: Any = self.seen_messages
        stock_seen.stop()
        self.seen_messages: Any = SeenIds()
        self.duplicates = 0  # copies of messages that were known
        self._changed = trio.Event()

    # --- who listens ----------------------------------------------------------------------

    def joined(self) -> int:
        """How many peers are subscribed and can be written to."""
        return len(self.router._joined())

    def has_joined(self, peer: ID) -> bool:
        """Whether `peer` is one of them."""
        return peer in self.peers and peer in self.peer_topics.get(self._topic, ())

    async def wait_changed(self) -> None:
        """Until the set of those peers may have changed."""
        await self._changed.wait()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def handle_subscription(self, origin_id: ID, sub_message: Any) -> None:
        """A peer joins or leaves."""
        super().handle_subscription(origin_id, sub_message)
        self._signal()

    # --- our streams to them --------------------------------------------------------------

    async def _handle_new_peer(self, peer_id: ID) -> None:
        """Open our gossip stream to a peer that connected.

        Stock skips one that reconnected before the end of its old connection was noticed, and
        writes to the old stream for ever; and if the peer's subscription came first, its place
        in the mesh waits for a heartbeat.
        """
        self._drop_stale(peer_id)
        await super()._handle_new_peer(peer_id)
        if self.has_joined(peer_id):
            await self.router.on_peer_subscribed(peer_id, self._topic)
        self._signal()

    def _drop_stale(self, peer: ID) -> bool:
        stream = self.peers.get(peer)
        if stream is None or not stream.muxed_conn.event_shutting_down.is_set():
            return False
        self._drop(peer)
        return True

    def _drop(self, peer: ID) -> None:
        if self.peers.pop(peer, None) is not None:
            self.peer_queues.pop(peer).close()
            self.router.remove_peer(peer)

    def _handle_dead_peer(self, peer_id: ID) -> None:
        """Our stream to a peer broke, or its connection.

        Stock forgets its subscriptions even when it is still connected; it does not repeat
        them, and is never written to again.
        """
        self._clear_pending_announce_retries_for_peer(peer_id)
        self._drop(peer_id)
        if self._peer_is_connected(peer_id):
            self._schedule_peer_stream_retry(peer_id)
        else:
            self._forget_all_subscriptions(peer_id)
        self._signal()

    async def handle_dead_peer_queue(self) -> None:
        """Take note of connections that ended, even when the peer has another one."""
        async with self.dead_peer_receive_channel:
            self.event_handle_dead_peer_queue_started.set()
            async for peer in self.dead_peer_receive_channel:
                if self._drop_stale(peer) or not self._peer_is_connected(peer):
                    self._handle_dead_peer(peer)

    # --- in -------------------------------------------------------------------------------

    async def continuously_read_stream(self, stream: Any) -> None:
        """Read RPCs until the stream ends; a malformed one ends it.

        Messages are handled here, one after the other: stock starts a task for each, which
        costs a walk over all tasks, reorders them, and puts no back-pressure on the sender.
        """
        peer = stream.muxed_conn.peer_id
        reader = RpcReader()
        try:
            while True:
                data = await stream.muxed_stream.read(READ_BYTES)
                if not data:
                    return
                for body in reader.feed(data):
                    await self._take(body, peer)
        except (StreamError, MuxedStreamError, IOException, RawConnError):
            return  # the connection or stream ended
        except Exception as error:
            # protobuf's errors have no common base: reset the stream, keep the host.
            await stream.reset()
            raise RpcError(type(error).__name__) from error

    async def _take(self, body: bytes, peer: ID) -> None:
        rpc = rpc_pb2.RPC()
        rpc.ParseFromString(body)
        for message in rpc.publish:
            await self.push_msg(peer, message)
        for subscription in rpc.subscriptions[: self.max_subscriptions_per_rpc]:
            self.handle_subscription(peer, subscription)
        if rpc.HasField("control"):
            await self.router.handle_rpc(rpc, peer)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        """Judge a message once and pass it on if it is good.

        Bad ones are remembered as well: ids are digests, so the same bytes stay bad, and a
        flood of one bad message costs one judgement.
        """
        if list(msg.topicIDs) != [self._topic] or not msg.data:
            return
        if any(map(msg.HasField, ("from_id", "seqno", "signature", "key"))):
            return
        if len(msg.data) > limits.GOSSIP_BYTES_MAX:
            return
        if not self.seen_messages.add(message_id(msg)):
            self.duplicates += 1
            return
        if self._judge(msg.data, msg_forwarder):
            await self.router.publish(msg_forwarder, msg)

    # --- out ------------------------------------------------------------------------------

    async def publish(self, topic_id: Any, data: bytes) -> None:
        """Publish `data`; without sender, sequence number and signature of libp2p's."""
        await self.push_msg(self.my_id, rpc_pb2.Message(data=data, topicIDs=[self._topic]))

    def get_hello_packet(self) -> Any:
        """Our subscription, without the signed address record that stock adds."""
        subscriptions = [
            rpc_pb2.RPC.SubOpts(subscribe=True, topicid=topic) for topic in self.topic_ids
        ]
        return rpc_pb2.RPC(subscriptions=subscriptions)

    def _build_announce_rpc(self, topic_id: str, subscribe: bool) -> tuple[Any, Any]:
        option = rpc_pb2.RPC.SubOpts(subscribe=subscribe, topicid=topic_id)
        return rpc_pb2.RPC(subscriptions=[option]), option

    async def handle_sending_messages(self, peer_id: ID, stream: Any, queue: Any) -> None:
        """Write what is queued for a peer, several RPCs at once when several wait."""
        try:
            while (rpc := await queue.pop()) is not None:
                out = bytearray()
                while rpc is not None:
                    body = rpc.SerializeToString()
                    out += encode_uvarint(len(body)) + body
                    rpc = queue._queue.pop() if len(out) < WRITE_BYTES else None
                await stream.muxed_stream.write(bytes(out))
        except (StreamError, MuxedStreamError, IOException, RawConnError):
            if self.peers.get(peer_id) is stream:
                self._handle_dead_peer(peer_id)
