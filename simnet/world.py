"""An in-memory world for tests: production nodes over a lossy, reordering mesh.

Gossip is a flood over a connected random graph, latency is even between two bounds, CPU time
costs nothing; a test can look on, cut, kill, restart and change what is sent. Scenarios for
people run in `simulation`, on the same driver.
"""

from collections.abc import Callable

from protocol import limits
from protocol.errors import RemoteError
from protocol.fields import FinishReason
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action, SessionKey
from router.anchoring import AnchorSettings
from simnet.driver import Driver
from simnet.entropy import Entropy
from simnet.network.streams import Latency, Streams
from simnet.peer import Peer, SimEngine, WorldSettings

EPOCH_NS = 1_700_000_000 * NS_PER_S


class World(Driver):
    """Builds peers, runs them, and lets a test cut, kill and restart them."""

    with_heads = True

    def __init__(self, settings: WorldSettings) -> None:
        super().__init__(settings.network, EPOCH_NS)
        self.settings = settings
        self.standing_offers = settings.standing_offers
        self._links: dict[int, list[int]] = {}
        self._network = Entropy(settings.seed, "network")
        self._latency = Latency(settings, self._network)
        self.streams = Streams(self.clock, self.peers, self.by_key, self.give, self._latency)
        # For tests: may change or drop what leaves for a stream.
        self.frame_filter: Callable[[Peer, Peer, bytes], bytes | None] | None = None

    def _anchor(self, peer: Peer) -> AnchorSettings:
        return AnchorSettings(self.settings.credit_limit_ucr)

    def _sync_ns(self, peer: Peer) -> int:
        return self.settings.fsync_ns

    def add(self, engine: SimEngine | None = None) -> Peer:
        """A new peer, linked at random to `degree` of those before it."""
        index = len(self.peers)
        entropy = Entropy(self.settings.seed, f"peer {index}")
        signer = self.make_signer(entropy.bytes(32))
        peer = Peer(index, signer, engine, entropy, f"/memory/{index}")
        peer.node = self.make_node(peer)
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
                self.clock.after(self._latency.next_ns(), self._gossip, target, data, origin)

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
            self.clock.after(limits.DIAL_TIMEOUT_NS, self.give, peer, undelivered)
            return
        received = act.BidReceived(peer.signer.public_key, action.data)
        self.clock.after(self._latency.next_ns(), self.give, target, received)

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
            text = engine.token(action.prompt, count)
            self.give(peer, act.JobTokens(job_id, ((text, 1),)))
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
        self.stop(peer, lost_records)
        self.streams.died(peer)

    def restart(self, peer: Peer) -> None:
        """Start a crashed node from its log."""
        self.start(peer)
        if peer.engine is not None:
            self.give(peer, act.OffersChanged((peer.engine.offer,)))
