"""An in-memory world: production nodes on a virtual clock, over a lossy, reordering mesh.

Drives `router.node.Node` as the daemon does and keeps the same promise: actions of one input
run in order, and nothing after an Append leaves before that record is durable. Gossip is a
flood over a connected random graph; the calibrated router comes with the simulator's issue.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any

from protocol import limits
from protocol.crypto import Signer, verify
from protocol.errors import RemoteError
from protocol.fields import FinishReason
from protocol.units import NS_PER_MS, NS_PER_S, NS_PER_US
from router import actions as act
from router.actions import Action, Input, ModelOffer, SessionKey
from router.anchor import MutualCredit
from router.ledger import Ledger
from router.node import Node
from simnet.clock import EventHeap
from simnet.entropy import Entropy

EPOCH_NS = 1_700_000_000 * NS_PER_S


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """One world. Times in ns; `duplicate_percent` of frames on gossip arrive twice."""

    seed: int = 1
    network: str = "sim"
    latency_ns_min: int = 5 * NS_PER_MS
    latency_ns_max: int = 40 * NS_PER_MS
    fsync_ns: int = 200 * NS_PER_US
    degree: int = 4
    duplicate_percent: int = 0
    credit_limit_ucr: int = 10_000_000


@dataclass(frozen=True, slots=True)
class SimEngine:
    """A model with exact times: a fixed prefill, then `token_ns` a token of `text`."""

    offer: ModelOffer
    prefill_ns: int
    token_ns: int
    text: str = "virtual tokens "
    input_tokens: int = 12


@dataclass(slots=True)
class Peer:
    """One node of the world, its disk, and what its asker was told."""

    index: int
    node: Node
    signer: Signer
    engine: SimEngine | None
    entropy: Entropy
    address: str
    log: list[tuple[int, bytes]] = field(default_factory=list)
    durable: int = 0
    outbox: list[tuple[int, Action]] = field(default_factory=list)
    syncing: bool = False
    told: list[tuple[int, Any]] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    penalized: list[tuple[bytes, str]] = field(default_factory=list)
    jobs: dict[bytes, bool] = field(default_factory=dict)
    timer_ns: int | None = None
    alive: bool = True
    incarnation: int = 0

    def heard(self, kind: type) -> list[Any]:
        """The events of one kind that askers were told, in order."""
        return [event for _, event in self.told if isinstance(event, kind)]


class World:
    """Builds peers, runs them, and lets a test cut, kill and restart them."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.clock = EventHeap(EPOCH_NS)
        self.peers: list[Peer] = []
        self.by_key: dict[bytes, Peer] = {}
        self._links: dict[int, list[int]] = {}
        self._fifo: dict[tuple[int, int], int] = {}
        self._network = Entropy(settings.seed, "network")
        self._trace = blake2b(digest_size=16)
        self._memo: dict[tuple[bytes, bytes, bytes], bool] = {}
        self.frame_filter: Callable[[Peer, Peer, bytes], bytes | None] | None = None

    # --- building --------------------------------------------------------------------------

    def add(self, engine: SimEngine | None = None) -> Peer:
        """A new peer, linked at random to `degree` of those before it."""
        index = len(self.peers)
        entropy = Entropy(self.settings.seed, f"peer {index}")
        signer = Signer(entropy.bytes(32))
        address = f"/memory/{index}"
        node = self._make_node(signer, entropy, address, [])
        peer = Peer(index, node, signer, engine, entropy, address)
        self.peers.append(peer)
        self.by_key[signer.public_key] = peer
        self._links[index] = []
        others = list(range(index))
        for _ in range(min(self.settings.degree, index)):
            other = others.pop(self._network.below(len(others)))
            self._links[index].append(other)
            self._links[other].append(index)
        if engine is not None:
            self.give(peer, act.OffersChanged((engine.offer,)))
        return peer

    def _make_node(
        self, signer: Signer, entropy: Entropy, address: str, log: list[tuple[int, bytes]]
    ) -> Node:
        ledger = Ledger(self.settings.network, signer.public_key)
        for number, payload in log:
            ledger.replay(number, payload)
        ledger.finish_replay()
        node = Node(
            signer,
            self.settings.network,
            ledger,
            entropy=entropy.bytes,
            anchor=MutualCredit(self.settings.credit_limit_ucr),
            check=self._verify,
        )
        node.context.addresses = (address,)
        return node

    def _verify(self, key: bytes, message: bytes, signature: bytes) -> bool:
        """Real signatures, each checked once: many nodes verify the same bytes."""
        memo = (key, message, signature)
        if memo not in self._memo:
            self._memo[memo] = verify(key, message, signature)
        return self._memo[memo]

    # --- running ---------------------------------------------------------------------------

    def run(self, duration_ns: int) -> None:
        """Let `duration_ns` of virtual time pass."""
        self.clock.run(self.clock.now_ns + duration_ns)

    def trace(self) -> str:
        """A hash over every input that any node was given, in order."""
        return self._trace.hexdigest()

    def give(self, peer: Peer, item: Input) -> None:
        """Hand a node one input now."""
        if not peer.alive:
            return
        summary = f"{self.clock.now_ns} {peer.index} {type(item).__name__} "
        self._trace.update(summary.encode())
        if isinstance(item, act.SessionData):
            self._trace.update(item.data)
        self._take(peer, peer.node.receive(item, self.clock.now_ns))

    def _take(self, peer: Peer, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, act.Append):
                peer.log.append((action.type, action.payload))
            else:
                peer.outbox.append((len(peer.log), action))
        self._flush(peer)
        self._arm(peer)

    def _flush(self, peer: Peer) -> None:
        """Let out what no missing record holds back, in order; sync when something waits."""
        ready = 0
        while ready < len(peer.outbox) and peer.outbox[ready][0] <= peer.durable:
            ready += 1
        leaving, peer.outbox = peer.outbox[:ready], peer.outbox[ready:]
        for _, action in leaving:
            self._perform(peer, action)
        if len(peer.log) > peer.durable and not peer.syncing:
            peer.syncing = True
            target, incarnation = len(peer.log), peer.incarnation
            self.clock.after(
                self.settings.fsync_ns, lambda: self._synced(peer, target, incarnation)
            )

    def _synced(self, peer: Peer, target: int, incarnation: int) -> None:
        if incarnation != peer.incarnation or not peer.alive:
            return
        peer.syncing = False
        peer.durable = target
        self._flush(peer)

    def _arm(self, peer: Peer) -> None:
        at_ns = peer.node.next_timer()
        if at_ns is None or (peer.timer_ns is not None and peer.timer_ns <= at_ns):
            return
        peer.timer_ns = at_ns
        incarnation = peer.incarnation
        self.clock.at(at_ns, lambda: self._fire(peer, at_ns, incarnation))

    def _fire(self, peer: Peer, at_ns: int, incarnation: int) -> None:
        if peer.timer_ns != at_ns or incarnation != peer.incarnation or not peer.alive:
            return
        peer.timer_ns = None
        self._take(peer, peer.node.handle_timer(self.clock.now_ns))

    # --- actions ---------------------------------------------------------------------------

    def _perform(self, peer: Peer, action: Action) -> None:
        match action:
            case act.Publish():
                self._forward(peer, action.data, origin=peer)
            case act.SendBid():
                self._send_bid(peer, action)
            case act.OpenSession():
                self._open(peer, action.session)
            case act.Send():
                self._send(peer, action.session, action.data)
            case act.CloseSession():
                self._hang_up(peer, action.session)
            case act.StartJob():
                self._start_job(peer, action)
            case act.CancelJob():
                peer.jobs.pop(action.job_id, None)
            case act.Deliver():
                peer.told.append((action.ask_id, action.event))
            case act.Penalize():
                peer.penalized.append((action.peer, action.code))
            case act.Note():
                peer.notes.append((action.event, dict(action.fields)))
            case _:
                raise AssertionError(action)

    def _latency_ns(self) -> int:
        span = self.settings.latency_ns_max - self.settings.latency_ns_min
        return self.settings.latency_ns_min + (self._network.below(span) if span else 0)

    def _arrival_ns(self, source: Peer, target: Peer) -> int:
        """Streams keep their order: nothing arrives before what was sent earlier."""
        link = (source.index, target.index)
        at_ns = max(self.clock.now_ns + self._latency_ns(), self._fifo.get(link, 0))
        self._fifo[link] = at_ns
        return at_ns

    def _forward(self, peer: Peer, data: bytes, origin: Peer) -> None:
        for other in self._links[peer.index]:
            target = self.peers[other]
            copies = 2 if self._network.below(100) < self.settings.duplicate_percent else 1
            for _ in range(copies):
                arrive = partial(self._gossip, target, data, origin)
                self.clock.after(self._latency_ns(), arrive)

    def _gossip(self, peer: Peer, data: bytes, origin: Peer) -> None:
        if not peer.alive or peer is origin:
            return
        try:
            signed = peer.node.admit(data, self.clock.now_ns)
        except RemoteError:
            return
        self._forward(peer, data, origin)
        self.give(peer, act.GossipReceived(signed))

    def _send_bid(self, peer: Peer, action: act.SendBid) -> None:
        target = self.by_key.get(action.peer)
        if target is None or not target.alive:
            undelivered = act.BidUndelivered(action.request_id, action.data)
            self.clock.after(limits.DIAL_TIMEOUT_NS, lambda: self.give(peer, undelivered))
            return
        received = act.BidReceived(peer.signer.public_key, action.data)
        self.clock.after(self._latency_ns(), lambda: self.give(target, received))

    def _open(self, peer: Peer, session: SessionKey) -> None:
        target = self.by_key.get(session.peer)
        if target is None or not target.alive:
            closed = act.SessionClosed(session, "provider.unreachable")
            self.clock.after(limits.DIAL_TIMEOUT_NS, lambda: self.give(peer, closed))
            return
        inbound = SessionKey(peer.signer.public_key, outbound=False)
        self.clock.at(
            self._arrival_ns(peer, target),
            lambda: self.give(target, act.SessionOpened(inbound)),
        )
        opened = act.SessionOpened(session)
        self.clock.after(2 * self._latency_ns(), lambda: self.give(peer, opened))

    def _send(self, peer: Peer, session: SessionKey, data: bytes) -> None:
        target = self.by_key[session.peer]
        if self.frame_filter is not None:
            filtered = self.frame_filter(peer, target, data)
            if filtered is None:
                return
            data = filtered
        mirrored = SessionKey(peer.signer.public_key, not session.outbound)
        incarnation = target.incarnation
        self.clock.at(
            self._arrival_ns(peer, target),
            lambda: self._arrive(target, mirrored, data, incarnation),
        )

    def _arrive(self, target: Peer, session: SessionKey, data: bytes, incarnation: int) -> None:
        if target.incarnation == incarnation:
            self.give(target, act.SessionData(session, data))

    def _hang_up(self, peer: Peer, session: SessionKey) -> None:
        target = self.by_key[session.peer]
        mirrored = SessionKey(peer.signer.public_key, not session.outbound)
        closed = act.SessionClosed(mirrored, "session.closed")
        self.clock.at(self._arrival_ns(peer, target), lambda: self.give(target, closed))

    # --- the engine ------------------------------------------------------------------------

    def _start_job(self, peer: Peer, action: act.StartJob) -> None:
        engine = peer.engine
        assert engine is not None
        job_id, limit = action.job_id, action.parameters.output_tokens_max
        peer.jobs[job_id] = True
        self.give(peer, act.JobStarted(job_id, engine.input_tokens))
        incarnation = peer.incarnation

        def token(count: int) -> None:
            if peer.incarnation != incarnation or job_id not in peer.jobs:
                return
            self.give(peer, act.JobTokens(job_id, ((engine.text, 1),)))
            if count < limit:
                self.clock.after(engine.token_ns, lambda: token(count + 1))
                return
            peer.jobs.pop(job_id, None)
            duration_ns = engine.prefill_ns + engine.token_ns * (limit - 1)
            self.give(
                peer,
                act.JobFinished(
                    job_id, FinishReason.LENGTH, limit, engine.prefill_ns, duration_ns, "sim", ""
                ),
            )

        self.clock.after(engine.prefill_ns, lambda: token(1))

    # --- faults ----------------------------------------------------------------------------

    def cut(self, one: Peer, other: Peer) -> None:
        """The streams between two peers break; both notice."""
        for here, there in ((one, other), (other, one)):
            for outbound in (True, False):
                session = SessionKey(there.signer.public_key, outbound)
                if session in here.node.sessions:
                    self.give(here, act.SessionClosed(session, "session.closed"))

    def crash(self, peer: Peer, lost_records: int = 0) -> None:
        """Stop a node at once; `lost_records` un-synced ones survive less."""
        survivors = max(peer.durable, len(peer.log) - lost_records)
        del peer.log[survivors:]
        peer.alive = False
        peer.incarnation += 1
        peer.outbox.clear()
        peer.jobs.clear()
        peer.syncing = False
        peer.timer_ns = None
        for other in self.peers:
            for outbound in (True, False):
                session = SessionKey(peer.signer.public_key, outbound)
                if other.alive and session in other.node.sessions:
                    closed = act.SessionClosed(session, "session.closed")
                    self.clock.after(self._latency_ns(), partial(self.give, other, closed))

    def restart(self, peer: Peer) -> None:
        """Start a crashed node from its log."""
        peer.durable = len(peer.log)
        peer.node = self._make_node(peer.signer, peer.entropy, peer.address, peer.log)
        peer.alive = True
        if peer.engine is not None:
            self.give(peer, act.OffersChanged((peer.engine.offer,)))
