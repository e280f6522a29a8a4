"""Drives production nodes in virtual time, with the promise that the cores rely on.

Actions of one input run in order, and nothing after an Append leaves before that record is
durable, which takes as long as the peer's disk. What an action does to the rest of the world is
up to the subclass: `World` for tests, `Simulation` for scenarios.
"""

from collections.abc import Callable
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, get_args

from protocol.crypto import Signer
from router.actions import (
    Action,
    Append,
    CloseSession,
    GossipReceived,
    Input,
    Send,
    SessionClosed,
    SessionData,
    SessionKey,
    SessionOpened,
)
from router.anchoring import AnchorSettings
from router.choosing import RequesterSettings
from router.fold import Fold
from router.node import Node
from simnet.clock import EventHeap
from simnet.memory import OpenedOnce, VerifiedOnce
from simnet.peer import Peer

TRACE_BLOCK_BYTES = 1 << 16
_MOMENT = Struct("<qI").pack
_NAMES: Final[dict[type, bytes]] = {kind: kind.__name__.encode() for kind in get_args(Input)}


class Trace:
    """A hash over everything that is told, in order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._block = bytearray()

    def add(self, data: bytes) -> None:
        """One more piece."""
        self._block += data
        if len(self._block) > TRACE_BLOCK_BYTES:
            self._hash.update(self._block)
            self._block.clear()

    def hexdigest(self) -> str:
        """The hash so far."""
        self._hash.update(self._block)
        self._block.clear()
        return self._hash.hexdigest()


class Driver:
    """Peers, their inputs, their disks and their timers.

    `with_heads`: nodes sign heads of their logs and make snapshots, which costs a second ledger.
    `standing_offers`: providers say on the topic what they sell. `bids_wanted`: they withhold
    bids beyond about so many, and requesters tell what auctions came to; 0: neither.
    """

    clock_kind = EventHeap
    with_heads = False
    standing_offers = False
    bids_wanted = 0

    def __init__(self, network: str, start_ns: int) -> None:
        self.network = network
        self.clock = self.clock_kind(start_ns)
        self.peers: list[Peer] = []
        self.by_key: dict[bytes, Peer] = {}
        self.verified = VerifiedOnce()
        self._opened = OpenedOnce(network, self.verified)
        self._trace = Trace()
        self.steps = 0
        self.stepping = 0  # the node whose step is the last that began
        # For checkers and replays: told of every step, before (None: its timer) and after it,
        # with what the node wants.
        self.before_step: Callable[[Peer, Input | None], None] | None = None
        self.after_step: Callable[[Peer, list[Action]], None] | None = None

    # --- what a subclass says --------------------------------------------------------------

    def _perform(self, peer: Peer, action: Action) -> None:
        """Carry out an action other than Append; never calls back into the node at once."""
        raise NotImplementedError

    def _anchor(self, peer: Peer) -> AnchorSettings:
        """How far payers are believed."""
        raise NotImplementedError

    def _sync_ns(self, peer: Peer) -> int:
        """How long the peer's disk takes to make what is written durable."""
        raise NotImplementedError

    def _core(self, peer: Peer) -> type[Node]:
        """The code that the peer runs."""
        return Node

    # --- nodes -----------------------------------------------------------------------------

    def make_node(self, peer: Peer) -> Node:
        """The peer's node as it starts from its log."""
        fold = Fold(self.network, peer.signer.public_key, verify=self.verified)
        for number, payload in peer.log:
            fold.replay(number, payload)
        node = self._core(peer)(
            peer.signer,
            self.network,
            fold.live(),
            entropy=peer.entropy.bytes,
            anchor=self._anchor(peer),
            check=self.verified,
            opening=self._opened,
            log=fold if self.with_heads else None,
            standing_offers=self.standing_offers,
            bids_wanted=self.bids_wanted,
            requester=RequesterSettings(explanations=0, tell_clearing=self.bids_wanted > 0),
        )
        node.context.addresses = (peer.address,)
        return node

    def make_signer(self, seed: bytes) -> Signer:
        """A real key whose signatures need no check here."""
        return self.verified.signer(seed)

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
        now_ns = self.clock.now_ns
        kind = type(item)
        self._trace.add(_MOMENT(now_ns, peer.index) + _NAMES[kind])
        if kind is SessionData:
            self._trace.add(item.data)  # type: ignore[union-attr]
        elif kind is GossipReceived:
            self._trace.add(item.signed.digest)  # type: ignore[union-attr]
        elif kind is SessionOpened or kind is SessionClosed:
            self._forget(peer, item.session)  # type: ignore[union-attr]
        self.steps += 1
        self.stepping = peer.index
        if self.before_step is not None:
            self.before_step(peer, item)
        self._take(peer, peer.node.receive(item, now_ns + peer.skew_ns))

    def _take(self, peer: Peer, actions: list[Action]) -> None:
        log, outbox = peer.log, peer.outbox
        for action in actions:
            if isinstance(action, Append):
                log.append((action.type, action.payload))
            elif outbox or len(log) > peer.durable:
                outbox.append((len(log), action))
            else:
                self._perform(peer, action)
        if outbox or len(log) > peer.durable:
            self._flush(peer)
        self._arm(peer)
        if self.after_step is not None:
            self.after_step(peer, actions)

    def soon(
        self, peer: Peer, perform: Callable[..., None], *arguments: Any, after_ns: int = 0
    ) -> None:
        """Behind what this moment does at once, if the node still lives then: what a daemon has
        tasks for (dialling, bids, gossip, jobs) comes after what it does itself (sending)."""
        self.clock.after(after_ns, self._if_alive, peer, peer.incarnation, perform, arguments)

    def _if_alive(
        self, peer: Peer, life: int, perform: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if peer.alive and peer.incarnation == life:
            perform(*arguments)

    def _forget(self, peer: Peer, ended: SessionKey) -> None:
        """A stream is new or gone: what waits for the disk was made for the one before it."""
        if peer.outbox:
            peer.outbox = [
                (place, action)
                for place, action in peer.outbox
                if not (isinstance(action, Send | CloseSession) and action.session == ended)
            ]

    def _flush(self, peer: Peer) -> None:
        """Let out what no missing record holds back, in order; sync when something waits."""
        ready = 0
        while ready < len(peer.outbox) and peer.outbox[ready][0] <= peer.durable:
            ready += 1
        leaving, peer.outbox = peer.outbox[:ready], peer.outbox[ready:]
        for _, action in leaving:
            self._perform(peer, action)
        if len(peer.log) <= peer.durable:
            return
        now_ns = self.clock.now_ns
        if not peer.syncing:
            peer.syncing, peer.sync_began_ns = True, now_ns
            self.clock.after(self._sync_ns(peer), self._synced, peer, peer.incarnation)
        if peer.sync_began_ns == now_ns:
            # What one moment brings is written together, as the daemon's journal does.
            peer.sync_target = len(peer.log)

    def _synced(self, peer: Peer, incarnation: int) -> None:
        if incarnation != peer.incarnation or not peer.alive:
            return
        peer.syncing = False
        peer.durable = peer.sync_target
        self._flush(peer)

    def _arm(self, peer: Peer) -> None:
        at_ns = peer.node.next_timer()
        if at_ns is not None:
            at_ns -= peer.skew_ns
        if at_ns == peer.timer_ns:
            return
        # Whenever it changes, as in the daemon: who set it last comes last in a moment of many.
        peer.timer_ns = at_ns
        peer.armed += 1
        if at_ns is not None:
            self.clock.at(at_ns, self._fire, peer, peer.armed)

    def _fire(self, peer: Peer, armed: int) -> None:
        if peer.armed != armed:
            return
        peer.timer_ns = None
        self.steps += 1
        self.stepping = peer.index
        if self.before_step is not None:
            self.before_step(peer, None)
        self._take(peer, peer.node.handle_timer(self.clock.now_ns + peer.skew_ns))

    # --- faults ----------------------------------------------------------------------------

    def set_skew(self, peer: Peer, skew_ns: int) -> None:
        """A node's clock is set, to so far ahead of virtual time."""
        peer.skew_ns = skew_ns
        if peer.alive:
            peer.timer_ns = None
            self._arm(peer)

    def stop(self, peer: Peer, lost_records: int) -> None:
        """A node dies at once; `lost_records` un-synced ones survive less."""
        survivors = max(peer.durable, len(peer.log) - lost_records)
        del peer.log[survivors:]
        peer.alive = False
        peer.incarnation += 1
        peer.outbox.clear()
        peer.jobs.clear()
        peer.syncing = False
        peer.timer_ns = None
        peer.armed += 1

    def start(self, peer: Peer) -> None:
        """A dead node comes back from what is left of its log."""
        peer.durable = len(peer.log)
        peer.node = self.make_node(peer)
        peer.alive = True
        self._arm(peer)
