"""Gossipsub 1.1 for one topic, lean: mesh, IHAVE/IWANT repair, bounded control messages.

Subclasses libp2p's GossipSub and keeps its wire protocol. Differences from stock, with their
reasons, beside each method. Must not know what the messages mean.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache
from libp2p.pubsub.pb import rpc_pb2

from protocol import limits

log = structlog.get_logger()

# 1.2 sends IDONTWANT to each mesh peer for each message: half of all CPU for messages of
# 500 bytes.
PROTOCOLS: Final = ("/meshsub/1.1.0",)
HEARTBEAT_S: Final = 1.0
HISTORY: Final = 5
HISTORY_OFFERED: Final = 3
LAZY_PEERS_MIN: Final = 6


def message_id(message: Any) -> bytes:
    """What names a message: sha256 of its data.

    The default, sender and sequence number, lets a forged unsigned message suppress the
    genuine one, and js-libp2p computes it differently, so that the same messages are asked for
    again at each heartbeat.
    """
    return sha256(message.data).digest()


class ContentCache(MessageCache):  # type: ignore[misc]
    """Recent messages by `message_id`; stock ignores the id function (mcache.py:67)."""

    def put(self, message: Any) -> None:
        """Keep a message for HISTORY heartbeats; over the bound, it is not kept."""
        identity = message_id(message)
        if identity in self.msgs or len(self.msgs) >= limits.GOSSIP_CACHE_MESSAGES_MAX:
            return
        self.msgs[identity] = message
        self.history[0].append(CacheEntry(identity, message.topicIDs))


class EncodedRpc:
    """An RPC to several peers, serialized once; what the outbound queue and writer ask of one."""

    __slots__ = ("_data",)

    def __init__(self, rpc: Any) -> None:
        self._data: bytes = rpc.SerializeToString()

    def ByteSize(self) -> int:
        """Bytes on the wire."""
        return len(self._data)

    def SerializeToString(self) -> bytes:
        """The bytes."""
        return self._data


class TopicRouter(GossipSub):  # type: ignore[misc]
    """The mesh of one topic. `rng` chooses among peers; `standing` are messages that a newcomer
    should have, however long ago they were said."""

    def __init__(
        self,
        topic: str,
        rng: random.Random,
        standing: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        super().__init__(
            protocols=PROTOCOLS,
            degree=limits.GOSSIP_DEGREE,
            degree_low=limits.GOSSIP_DEGREE_LOW,
            degree_high=limits.GOSSIP_DEGREE_HIGH,
            direct_peers=None,
            time_to_live=60,
            gossip_window=HISTORY_OFFERED,
            gossip_history=HISTORY,
            heartbeat_initial_delay=0.1,
            heartbeat_interval=1,  # the spec's; stock has 120 s
            direct_connect_initial_delay=0.1,
            direct_connect_interval=86_400,
            do_px=False,  # `exchange` does it, with verified records
            px_peers_count=0,
            prune_back_off=limits.GOSSIP_BACK_OFF_S,
            unsubscribe_back_off=limits.GOSSIP_BACK_OFF_S,
            score_params=None,
            max_idontwant_messages=1,
            adaptive_gossip_enabled=False,  # it raises the heartbeat to 60 s
            spam_protection_enabled=False,  # 10 messages a second of all peers together
            max_messages_per_topic_per_second=1e9,
            eclipse_protection_enabled=False,  # wants 3 addresses in each mesh
            min_mesh_diversity_ips=0,
            my_extensions=None,
            max_pending_messages_per_peer=1,
            pending_messages_ttl=1.0,
        )
        self._topic = topic
        self._rng = rng
        self._standing = standing
        self._shown: set[ID] = set()  # who got them, while connected
        self.mcache = ContentCache(HISTORY_OFFERED, HISTORY)
        # Its penalties are for guesses; the application knows who broke the protocol.
        self.scorer = None

    def _joined(self) -> list[ID]:
        """Peers of the topic that can be written to, in a stable order."""
        subscribed = self.pubsub.peer_topics.get(self._topic, set())
        return [peer for peer in self.pubsub.peers if peer in subscribed]

    # --- messages -------------------------------------------------------------------------

    async def publish(self, forwarder: ID, message: Any) -> None:
        """Send a validated message on.

        Stock also records an entry a message that nothing clears (gossipsub.py:1089), signs
        and attaches our address record to each copy, and takes a second message without
        sequence number for an equivocation of the first.
        """
        self.mcache.put(message)
        mesh = self.mesh.get(self._topic, set())
        joined = self._joined()
        targets = [peer for peer in joined if peer in mesh and peer != forwarder]
        if forwarder == self.pubsub.my_id:
            # Our own go to more than the mesh (gossipsub 1.1, "flood publishing"): a bid
            # window is shorter than the heartbeat that would repair a loss.
            others = [peer for peer in joined if peer not in mesh]
            room = max(0, limits.GOSSIP_DEGREE_HIGH - len(targets))
            targets += self._rng.sample(others, min(room, len(others)))
        if targets:
            rpc = EncodedRpc(rpc_pb2.RPC(publish=[message]))
            for peer in targets:
                self._push(peer, rpc)

    def _push(self, peer: ID, rpc: EncodedRpc) -> None:
        queue = self.pubsub.peer_queues.get(peer)
        if queue is not None and not queue.push(rpc):
            log.debug("gossip.queue_full")

    async def emit_control_message(self, control_msg: Any, to_peer: ID) -> None:
        """Queue a control message, without our signed address record: `exchange` carries it."""
        self.send_rpc(to_peer, rpc_pb2.RPC(control=control_msg), priority=True)

    async def send_recent_messages(self, peer_id: ID, topic: str) -> None:
        """Offer a newcomer what was said in the last seconds.

        Stock sends all of it at once, past the queue, on a stream that another task is
        writing to; an offer costs 32 bytes a message, and what it lacks it asks for.
        """
        recent = self.mcache.window(self._topic)
        if topic == self._topic and recent:
            await self.emit_ihave(topic, recent[: limits.GOSSIP_IDS_PER_RPC_MAX], peer_id)
        if topic != self._topic or peer_id in self._shown:
            return
        self._shown.add(peer_id)
        for data in self._standing():
            message = rpc_pb2.Message(data=data, topicIDs=[topic])
            self._push(peer_id, EncodedRpc(rpc_pb2.RPC(publish=[message])))

    def remove_peer(self, peer_id: ID) -> None:
        """A peer is gone."""
        self._shown.discard(peer_id)
        super().remove_peer(peer_id)

    # --- control messages -----------------------------------------------------------------

    async def handle_rpc(self, rpc: Any, sender: ID) -> None:
        """Act on a control message. Topics other than ours are ignored: stock keeps a back-off
        entry for whatever name a PRUNE invents, for ever, and dials the peers in it."""
        control = rpc.control
        for ihave in control.ihave[:2]:
            await self._take_offer(ihave.messageIDs, sender)
        for iwant in control.iwant[:2]:
            self._answer(iwant.messageIDs, sender)
        if any(graft.topicID == self._topic for graft in control.graft):
            await self.handle_graft(rpc_pb2.ControlGraft(topicID=self._topic), sender)
        for prune in control.prune[:2]:
            if prune.topicID == self._topic:
                self._take_prune(prune.backoff, sender)

    async def _take_offer(self, ids: Iterable[bytes], sender: ID) -> None:
        if not self._check_ihave_rate_limit(sender, self._topic):
            return
        offered = _unique_ids(ids)
        wanted = [known for known in offered if not self.pubsub.seen_messages.has(known)]
        if wanted:
            await self.emit_iwant(wanted, sender)

    def _answer(self, ids: Iterable[bytes], sender: ID) -> None:
        """Send what was asked for, each once: stock sends an id named 30,000 times as often."""
        if not self._check_iwant_rate_limit(sender):
            return
        found = (self.mcache.get(wanted) for wanted in _unique_ids(ids))
        messages = [message for message in found if message is not None]
        if messages:
            self.send_rpc(sender, rpc_pb2.RPC(publish=messages))

    def _take_prune(self, back_off_s: int, sender: ID) -> None:
        asked = min(back_off_s or limits.GOSSIP_BACK_OFF_S, limits.GOSSIP_BACK_OFF_S_MAX)
        self._add_back_off(sender, self._topic, False, asked)
        if self._topic in self.mesh:
            self.mesh[self._topic].discard(sender)

    # --- heartbeat ------------------------------------------------------------------------

    async def heartbeat(self) -> None:
        """Keep the mesh at its degree and offer recent messages, every second, for ever."""
        await trio.sleep(self.heartbeat_initial_delay)
        while True:
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 - stock code on strangers' state; must go on
                log.warning("gossip.heartbeat_failed", error=repr(error)[:200])
            await trio.sleep(HEARTBEAT_S)

    async def _beat(self) -> None:
        mesh = self.mesh.get(self._topic)
        if mesh is None:
            return
        joined = self._joined()
        mesh.intersection_update(joined)
        outside = [peer for peer in joined if peer not in mesh]
        if len(mesh) < limits.GOSSIP_DEGREE_LOW:
            free = [peer for peer in outside if not self._check_back_off(peer, self._topic)]
            for peer in self._rng.sample(free, min(limits.GOSSIP_DEGREE - len(mesh), len(free))):
                mesh.add(peer)
                await self.emit_graft(self._topic, peer)
        elif len(mesh) > limits.GOSSIP_DEGREE_HIGH:
            meshed = [peer for peer in joined if peer in mesh]
            for peer in self._rng.sample(meshed, len(meshed) - limits.GOSSIP_DEGREE):
                mesh.discard(peer)
                self._add_back_off(peer, self._topic, False)
                await self.emit_prune(self._topic, peer, False, False)
        await self._offer(outside)
        self.mcache.shift()
        self._periodic_security_cleanup()
        self._forget_back_off()

    async def _offer(self, outside: list[ID]) -> None:
        """IHAVE to some peers outside the mesh, those in back-off included.

        Stock leaves them out (gossipsub.py:1511), and a leaf that was pruned by its only hub
        gets 37 % of messages.
        """
        recent = self.mcache.window(self._topic)
        if recent and outside:
            count = min(max(LAZY_PEERS_MIN, len(outside) // 4), len(outside))
            for peer in self._rng.sample(outside, count):
                await self.emit_ihave(self._topic, recent[: limits.GOSSIP_IDS_PER_RPC_MAX], peer)

    def _forget_back_off(self) -> None:
        """Drop what has passed; stock keeps an entry a peer for ever."""
        waiting = self.back_off.get(self._topic, {})
        for peer in [
            peer for peer in list(waiting) if not self._check_back_off(peer, self._topic)
        ]:
            waiting.pop(peer, None)


def _unique_ids(ids: Iterable[bytes]) -> list[bytes]:
    """The first GOSSIP_IDS_PER_RPC_MAX ids that can be ours, each once, in order."""
    found: dict[bytes, None] = {}
    for identity in ids:
        if len(found) >= limits.GOSSIP_IDS_PER_RPC_MAX:
            break
        if len(identity) == sha256().digest_size:
            found[bytes(identity)] = None
    return list(found)
