"""A calibrated model of gossipsub 1.1: which copies of a message go where, and when.

Mesh, heartbeats, GRAFT and PRUNE with back-off, IHAVE and IWANT, fanout, scores. Whether a
message may spread is the node's own admission. The model is what py-libp2p's router does on
purpose; its parameters are the scenario's. Must not know what messages mean.
"""

from collections.abc import Callable
from typing import Final

from protocol.errors import RemoteError
from protocol.units import NS_PER_MS, NS_PER_S, NS_PER_US
from simnet.clock import EventHeap
from simnet.entropy import Scatter
from simnet.network.cpu import Cpu
from simnet.network.links import Links
from simnet.network.mesh import CONTROL_BYTES, Mesh
from simnet.network.topology import Neighbours
from simnet.peer import Peer
from simnet.scenario.network import Costs, Gossip

ID_BYTES: Final = 34  # a message id in an IHAVE or IWANT
HOPS_MAX: Final = 255


class Message:
    """One gossip message on its way: what is the same for all nodes is kept once.

    `hops[node]` is 0 where it has not arrived, else one more than where it came from.
    """

    __slots__ = (
        "born_ns",
        "data",
        "duplicates",
        "hops",
        "kept",
        "kind",
        "missing",
        "origin",
        "reached",
        "serial",
    )

    def __init__(
        self, serial: int, data: bytes, kind: str, origin: int, born_ns: int, nodes: int
    ) -> None:
        self.serial = serial
        self.kind = kind
        self.data = data
        self.origin = origin
        self.born_ns = born_ns
        self.hops = bytearray(nodes)
        self.reached = 0
        self.duplicates = 0
        self.missing = nodes - 1  # nodes that it has not come to
        self.kept = False  # whether each of its deliveries is a row


class GossipModel:
    """The gossip routers of all nodes. `deliver` gets what a node's admission let through."""

    def __init__(
        self,
        clock: EventHeap,
        links: Links,
        cpu: Cpu,
        peers: list[Peer],
        neighbours: Neighbours,
        settings: Gossip,
        costs: Costs,
        seed: int,
        deliver: Callable[[Peer, Message, int, object], None],
        offended: Callable[[Peer, int, str], None],
    ) -> None:
        self._clock, self._links, self._cpu, self._peers = clock, links, cpu, peers
        self._settings, self._deliver, self._offended = settings, deliver, offended
        self._hop_ns = costs.hop_us * NS_PER_US
        self._duplicate_ns = costs.duplicate_us * NS_PER_US
        self._forward_ns = costs.forward_us * NS_PER_US
        self._heartbeat_ns = settings.heartbeat_ms * NS_PER_MS
        self._flooding = settings.router == "flood"
        self._scatter = Scatter(seed, "gossip")
        self.neighbours = neighbours
        self.meshes = Mesh(clock, links, peers, neighbours, settings, seed)
        self.mesh = self.meshes.of
        self.scores = self.meshes.scores
        self.unsubscribed = self.meshes.unsubscribed
        # A node's messages by heartbeat, newest first; None while there are none.
        self._history: list[list[list[Message]] | None] = [None] * len(neighbours)
        self._fanout: dict[int, tuple[int, list[int]]] = {}
        self._serial = 0
        self.messages = 0
        self.deliveries = 0
        self.duplicates = 0  # of messages that are no longer on their way
        self.controls = 0
        self.refused = 0
        # For adversaries: to whom a node passes a message on; None: to nobody, ever.
        self.bend: Callable[[int, Message, list[int]], list[int] | None] | None = None
        self.keep: Callable[[int], bool] = lambda serial: True
        # Whether a node takes a message in: what it makes of it, or RemoteError.
        self.admit: Callable[[Peer, Message, int], object] = self._admit

    def start(self) -> None:
        """The nodes' heartbeats, each at its own phase of the first second."""
        if self._flooding:
            return
        now_ns = self._clock.now_ns
        for node in range(len(self.neighbours)):
            phase = self._scatter.draw(node, 1, 0) * self._heartbeat_ns >> 16
            self._clock.at(now_ns + phase, self._heartbeat, node)

    def gone(self, node: int) -> None:
        """A node died: its neighbours' connections to it break, and its own memory is lost."""
        self._history[node] = None
        if not self._flooding:
            self.meshes.gone(node)

    # --- messages --------------------------------------------------------------------------

    def publish(self, node: int, data: bytes, kind: str) -> Message:
        """A node's own message; it goes to more than the mesh when the settings say so."""
        self._serial += 1
        now_ns = self._clock.now_ns
        message = Message(self._serial, data, kind, node, now_ns, len(self.neighbours))
        message.kept = self.keep(self._serial)
        message.hops[node] = 1
        self.messages += 1
        if self.unsubscribed[node]:
            targets = self._fanout_of(node)
        elif self._settings.flood_publish:
            targets = self.meshes.widened(node)
        else:
            targets = self.mesh[node]
        self._remember(node, message)
        self._send(node, targets, message)
        return message

    def _fanout_of(self, node: int) -> list[int]:
        """The peers of a publisher that is outside the topic, kept for a while."""
        now_ns = self._clock.now_ns
        until_ns, targets = self._fanout.get(node, (0, []))
        if until_ns <= now_ns:
            targets = self.meshes.some(node, self.meshes.subscribed(node), self._settings.degree)
        self._fanout[node] = (now_ns + self._settings.fanout_ttl_s * NS_PER_S, targets)
        return targets

    def send_on(self, node: int, targets: list[int], message: Message) -> None:
        """Pass a message on now, unless the node is gone."""
        if self._peers[node].alive and targets:
            self._send(node, targets, message)

    def _send(self, node: int, targets: list[int], message: Message) -> None:
        cost_ns = self._forward_ns * len(targets)
        if cost_ns:
            self._cpu.take(node, self._clock.now_ns, cost_ns)
        data, serial = message.data, message.serial
        self._links.spread(node, targets, len(data), serial, self._arrive, (node, message))

    def _arrive(self, node: int, copy: tuple[int, Message]) -> None:
        source, message = copy
        hops = message.hops
        if hops[node]:
            message.duplicates += 1
            cpu, now_ns, cost_ns = self._cpu, self._clock.now_ns, self._duplicate_ns
            if cpu.speed_permille:
                cpu.take(node, now_ns, cost_ns)
                return
            # `Cpu.take`, without the call: most events of a simulation end here.
            free_ns = cpu.free_ns[node]
            cpu.free_ns[node] = (free_ns if free_ns > now_ns else now_ns) + cost_ns
            cpu.used_ns[node] += cost_ns
            return
        peer = self._peers[node]
        if not peer.alive or (self.scores.on and self.scores.graylisted(node, source)):
            return
        if self._links.penalties.held and self.meshes.apart(node, source):
            return
        hops[node] = min(hops[source] + 1, HOPS_MAX)
        message.missing -= 1
        now_ns = self._clock.now_ns
        done_ns = self._cpu.take(node, now_ns, self._hop_ns)
        if done_ns > now_ns:
            self._clock.at(done_ns, self._validate, peer, copy)
        else:
            self._validate(peer, copy)

    def _validate(self, peer: Peer, copy: tuple[int, Message]) -> None:
        if not peer.alive:
            return
        source, message = copy
        node = peer.index
        try:
            signed = self.admit(peer, message, source)
        except RemoteError as error:
            self.refused += 1
            if error.penalize:
                # An honest node passes on only what it would have admitted itself.
                self._offended(peer, source, error.code)
                if self.scores.on:
                    self.scores.invalid(node, source)
            return
        message.reached += 1
        self.deliveries += 1
        if self.scores.on:
            self.scores.first(node, source)
        self._deliver(peer, message, source, signed)
        origin = message.origin
        targets = [other for other in self.mesh[node] if other != source and other != origin]
        if self.bend is not None:
            bent = self.bend(node, message, targets)
            if bent is None:
                return
            targets = bent
        self._remember(node, message)
        if targets:
            self._send(node, targets, message)

    def _admit(self, peer: Peer, message: Message, source: int) -> object:
        return peer.node.admit(message.data, self._clock.now_ns + peer.skew_ns)

    def _remember(self, node: int, message: Message) -> None:
        history = self._history[node]
        if history is None:
            self._history[node] = [[message]]
        else:
            history[0].append(message)

    # --- heartbeats ------------------------------------------------------------------------

    def _heartbeat(self, node: int) -> None:
        clock = self._clock
        clock.at(clock.now_ns + self._heartbeat_ns, self._heartbeat, node)
        if not self._peers[node].alive or self.unsubscribed[node]:
            return
        self.meshes.tend(node)
        history = self._history[node]
        if history is not None:
            self._offer(node, history)
            history.insert(0, [])
            del history[self._settings.history :]
            if not any(history):
                self._history[node] = None

    # --- what is offered to those outside the mesh --------------------------------------------

    def _offer(self, node: int, history: list[list[Message]]) -> None:
        offered = [
            message
            for messages in history[: self._settings.history_offered]
            for message in messages
            if message.missing  # what everybody has need not be offered
        ]
        if not offered or not self._settings.degree_lazy:
            return
        mesh, neighbours = self.mesh[node], self.neighbours[node]
        # Who has all of it, will have it when the offer comes: an event that changes nothing.
        lacking = [o for message in offered for o in neighbours if not message.hops[o]]
        if not lacking:
            return
        lazy = [
            other
            for other in neighbours
            if other not in mesh and not self.unsubscribed[other] and self._offers_to(node, other)
        ]
        count = max(self._settings.degree_lazy, len(lazy) * self._settings.lazy_permille // 1_000)
        for other in self.meshes.some(node, lazy, count):
            if other not in lacking:
                continue
            self.controls += 1
            length, cargo = CONTROL_BYTES + ID_BYTES * len(offered), (node, offered)
            self._links.spread(node, (other,), length, self.controls, self._offered, cargo)

    def _offers_to(self, node: int, other: int) -> bool:
        scores = self.scores
        if scores.on and scores.of(node, other) < scores.gossip_threshold:
            return False
        if self.meshes.apart(node, other):
            return False
        return self._settings.offers_in_back_off or not self.meshes.waits(node, other)

    def _offered(self, node: int, cargo: tuple[int, list[Message]]) -> None:
        if not self._peers[node].alive:
            return
        source, offered = cargo
        wanted = [message for message in offered if not message.hops[node]]
        if wanted:
            self.controls += 1
            length, back = CONTROL_BYTES + ID_BYTES * len(wanted), (node, wanted)
            self._links.spread(node, (source,), length, self.controls, self._wanted, back)

    def _wanted(self, node: int, cargo: tuple[int, list[Message]]) -> None:
        source, wanted = cargo
        history = self._history[node]
        if history is None or not self._peers[node].alive:
            return
        for message in wanted:
            if any(message in messages for messages in history):
                self._send(node, [source], message)
