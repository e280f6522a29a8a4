"""Who is in whose mesh: filling up, pruning, GRAFT and PRUNE, back-off, scores.

A part of the model of gossipsub 1.1; knows no messages. Rule: `gossip`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from protocol.units import NS_PER_MS, NS_PER_S
from simnet.clock import EventHeap
from simnet.entropy import Scatter
from simnet.network.links import Links
from simnet.network.scores import Scores
from simnet.network.topology import Neighbours
from simnet.peer import Peer
from simnet.scenario.network import Gossip

CONTROL_BYTES: Final = 40  # a GRAFT or PRUNE with its topic
OPPORTUNISTIC_PEERS: Final = 2


class Mesh:
    """The meshes of all nodes, by number."""

    def __init__(
        self,
        clock: EventHeap,
        links: Links,
        peers: list[Peer],
        neighbours: Neighbours,
        settings: Gossip,
        seed: int,
    ) -> None:
        self._clock, self._links, self._peers, self._settings = clock, links, peers, settings
        self._scatter = Scatter(seed, "mesh")
        self._beats = 0
        nodes = len(neighbours)
        self.neighbours = neighbours
        self.of: list[list[int]] = [
            list(others) if settings.router == "flood" else [] for others in neighbours
        ]
        self._back_off: list[dict[int, int] | None] = [None] * nodes
        self.unsubscribed = bytearray(nodes)
        self.scores = Scores(nodes, settings.scoring, settings.heartbeat_ms * NS_PER_MS)
        self.controls = 0

    def tend(self, node: int) -> None:
        """A heartbeat: too few peers are filled up, too many and bad ones pruned."""
        mesh, settings = self.of[node], self._settings
        self._beats += 1
        if self.scores.on:
            self.scores.decay(node)
            for other in [other for other in mesh if self.scores.of(node, other) < 0]:
                self._prune(node, other)
        if len(mesh) < settings.degree_low:
            self._fill(node)
        elif len(mesh) > settings.degree_high:
            for other in self.some(node, mesh, len(mesh) - settings.degree):
                self._prune(node, other)
        every = settings.scoring.opportunistic_heartbeats
        beat = self._clock.now_ns // (settings.heartbeat_ms * NS_PER_MS)
        if self.scores.on and every and beat % every == 0:
            self._improve(node)

    def gone(self, node: int) -> None:
        """A node died: its neighbours' connections to it break, and its own memory is lost."""
        for other in self.of[node]:
            if node in self.of[other]:
                self._leave(other, node)
        self.of[node].clear()
        self._back_off[node] = None

    def part(self, one: int, other: int) -> None:
        """The connection between two nodes ends."""
        for node, lost in ((one, other), (other, one)):
            if lost in self.of[node]:
                self._leave(node, lost)

    def apart(self, one: int, other: int) -> bool:
        """Whether a penalty keeps two neighbours from being connected now."""
        return self._links.penalties.between(one, other, self._clock.now_ns)

    def subscribed(self, node: int) -> list[int]:
        """Neighbours that take part in the topic and are connected."""
        silent = self.unsubscribed
        others = [other for other in self.neighbours[node] if not silent[other]]
        if self._links.penalties.held:
            return [other for other in others if not self.apart(node, other)]
        return others

    def widened(self, node: int) -> list[int]:
        """The mesh and others beside it, D_hi in all: whom the daemon sends its own messages."""
        mesh = self.of[node]
        outside = [other for other in self.subscribed(node) if other not in mesh]
        return mesh + self.some(node, outside, max(0, self._settings.degree_high - len(mesh)))

    def some(self, node: int, others: Sequence[int], count: int) -> list[int]:
        """`count` of `others`, drawn for this heartbeat."""
        if len(others) <= count:
            return list(others)
        beat, draw = self._beats, self._scatter.draw
        return sorted(others, key=lambda other: (draw(node, other, beat), other))[:count]

    # --- back-off --------------------------------------------------------------------------

    def waits(self, node: int, other: int) -> bool:
        """Whether `other` may not be grafted yet."""
        back_off = self._back_off[node]
        if back_off is None or other not in back_off:
            return False
        if back_off[other] > self._clock.now_ns:
            return True
        del back_off[other]
        if not back_off:
            self._back_off[node] = None
        return False

    def _wait(self, node: int, other: int) -> None:
        until_ns = self._clock.now_ns + self._settings.back_off_s * NS_PER_S
        back_off = self._back_off[node]
        if back_off is None:
            back_off = self._back_off[node] = {}
        back_off[other] = until_ns

    # --- grafting and pruning --------------------------------------------------------------

    def _fill(self, node: int) -> None:
        self._graft(node, self._candidates(node), self._settings.degree - len(self.of[node]))

    def _improve(self, node: int) -> None:
        """Opportunistic grafting: a mesh of peers that bring little gets some that bring more."""
        score, mesh = self.scores.of, self.of[node]
        median = sorted(score(node, other) for other in mesh)[len(mesh) // 2] if mesh else 0.0
        if mesh and median < self._settings.scoring.opportunistic_threshold:
            candidates = self._candidates(node)
            better = [other for other in candidates if score(node, other) > median]
            self._graft(node, better, OPPORTUNISTIC_PEERS)

    def _candidates(self, node: int) -> list[int]:
        """Neighbours that could be in the mesh and are not."""
        mesh, peers = self.of[node], self._peers
        return [
            other
            for other in self.subscribed(node)
            if other not in mesh
            and peers[other].alive
            and not self.waits(node, other)
            and (not self.scores.on or self.scores.of(node, other) >= 0)
        ]

    def _graft(self, node: int, candidates: list[int], count: int) -> None:
        for other in self.some(node, candidates, count):
            self._join(node, other)
            self._control(node, other, self._grafted)

    def _join(self, node: int, other: int) -> None:
        self.of[node].append(other)
        if self.scores.on:
            self.scores.joined(node, other)

    def _leave(self, node: int, other: int) -> None:
        self.of[node].remove(other)
        if self.scores.on:
            self.scores.left(node, other)

    def _prune(self, node: int, other: int) -> None:
        self._leave(node, other)
        self._wait(node, other)
        self._control(node, other, self._pruned)

    def _control(self, node: int, other: int, arrive: Callable[[int, int], None]) -> None:
        self.controls += 1
        self._links.spread(node, (other,), CONTROL_BYTES, self.controls, arrive, node)

    def _grafted(self, node: int, source: int) -> None:
        mesh = self.of[node]
        if source in mesh or not self._peers[node].alive or self.apart(node, source):
            return
        early = self.waits(node, source)
        if early and self.scores.on:
            self.scores.misbehaved(node, source)
        bad = self.scores.on and self.scores.of(node, source) < 0
        # One too many is taken all the same, until the next heartbeat prunes: as py-libp2p does.
        if early or bad or self.unsubscribed[node]:
            self._wait(node, source)
            self._control(node, source, self._pruned)
            return
        self._join(node, source)

    def _pruned(self, node: int, source: int) -> None:
        if source in self.of[node]:
            self._leave(node, source)
        self._wait(node, source)
