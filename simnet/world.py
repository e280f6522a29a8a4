"""An in-memory world: production nodes on a virtual clock, over a lossy, reordering mesh.

Drives `router.node.Node` as the daemon does and keeps the same promise: actions of one input
run in order, and nothing after an Append leaves before that record is durable. Gossip is a
flood over a connected random graph; the calibrated router comes with the simulator's issue.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b

from protocol import limits
from protocol.crypto import Signer, verify
from protocol.errors import RemoteError
from protocol.fields import FinishReason
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action, Input, SessionKey
from router.anchor import MutualCredit
from router.ledger import Ledger
from router.node import Node
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.peer import Peer, SimEngine, WorldSettings
from simnet.streams import Latency, Streams

EPOCH_NS = 1_700_000_000 * NS_PER_S


class World:
    """Builds peers, runs them, and lets a test cut, kill and restart them."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.clock = EventHeap(EPOCH_NS)
        self.peers: list[Peer] = []
        self.by_key: dict[bytes, Peer] = {}
        self._links: dict[int, list[int]] = {}
        self._network = Entropy(settings.seed, "network")
        self._trace = blake2b(digest_size=16)
        self._memo: dict[tuple[bytes, bytes, bytes], bool] = {}
        self._latency = Latency(settings, self._network)
        self.streams = Streams(self.clock, self.by_key, self.give, self._latency)
        # For tests: may change or drop what leaves for a stream; is told what each step did.
        self.frame_filter: Callable[[Peer, Peer, bytes], bytes | None] | None = None
        self.after_step: Callable[[Peer, list[Action]], None] | None = None

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
        if self.after_step is not None:
            self.after_step(peer, actions)

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
                self.streams.open(peer, action.session)
            case act.Send():
                self._send(peer, action.session, action.data)
            case act.CloseSession():
                self.streams.hang_up(peer, action.session)
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

    def _forward(self, peer: Peer, data: bytes, origin: Peer) -> None:
        for other in self._links[peer.index]:
            target = self.peers[other]
            copies = 2 if self._network.below(100) < self.settings.duplicate_percent else 1
            for _ in range(copies):
                arrive = partial(self._gossip, target, data, origin)
                self.clock.after(self._latency.next_ns(), arrive)

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
        self.clock.after(self._latency.next_ns(), lambda: self.give(target, received))

    def _send(self, peer: Peer, session: SessionKey, data: bytes) -> None:
        if self.frame_filter is not None:
            filtered = self.frame_filter(peer, self.by_key[session.peer], data)
            if filtered is None:
                return
            data = filtered
        self.streams.send(peer, session, data)

    # --- the engine ------------------------------------------------------------------------

    def _start_job(self, peer: Peer, action: act.StartJob) -> None:
        engine = peer.engine
        assert engine is not None
        job_id, limit = action.job_id, action.parameters.output_tokens_max
        peer.jobs[job_id] = True
        incarnation = peer.incarnation

        def started() -> None:
            if peer.incarnation == incarnation and job_id in peer.jobs:
                self.give(peer, act.JobStarted(job_id, engine.input_tokens))

        # Never inside the step that starts it: the rest of that step's actions come first.
        self.clock.after(0, started)

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
        self.streams.cut(one, other)

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
        self.streams.died(peer)

    def restart(self, peer: Peer) -> None:
        """Start a crashed node from its log."""
        peer.durable = len(peer.log)
        peer.node = self._make_node(peer.signer, peer.entropy, peer.address, peer.log)
        peer.alive = True
        if peer.engine is not None:
            self.give(peer, act.OffersChanged((peer.engine.offer,)))
