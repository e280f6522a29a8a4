"""Gossipsub 1.1's peer scores: what each node thinks of its neighbours. Off unless asked for.

P1 time in the mesh, P2 first deliveries, P4 invalid messages, P7 behaviour. P3 (mesh deliveries)
is left out, as most networks turn it off, and so are P5 and P6: no application scores here, and no
two nodes have one address. The daemon keeps no scores at all.
"""

from typing import Final

from protocol.units import NS_PER_S
from simnet.scenario.network import Scoring

TIME_IN_MESH_S_MAX: Final = 100
FIRST_DELIVERIES_MAX: Final = 100.0
FORGET_UNDER: Final = 0.01

JOINED, FIRST, INVALID, BEHAVIOUR = range(4)


class Scores:
    """Marks by node and neighbour; a neighbour without any has score 0."""

    def __init__(self, nodes: int, settings: Scoring, heartbeat_ns: int) -> None:
        self.on = settings.enabled
        self.gossip_threshold = settings.gossip_threshold
        self._settings = settings
        self._left = settings.decay_permille / 1_000
        self._beats_per_s = NS_PER_S / heartbeat_ns
        self._marks: list[dict[int, list[float]]] = [{} for _ in range(nodes if self.on else 0)]

    def _mark(self, node: int, other: int) -> list[float]:
        return self._marks[node].setdefault(other, [-1.0, 0.0, 0.0, 0.0])

    def joined(self, node: int, other: int) -> None:
        """`other` came into the mesh."""
        self._mark(node, other)[JOINED] = 0.0

    def left(self, node: int, other: int) -> None:
        """`other` left the mesh."""
        self._mark(node, other)[JOINED] = -1.0

    def first(self, node: int, other: int) -> None:
        """`other` brought a message that was new and right."""
        mark = self._mark(node, other)
        mark[FIRST] = min(FIRST_DELIVERIES_MAX, mark[FIRST] + 1)

    def invalid(self, node: int, other: int) -> None:
        """`other` brought a message that breaks the rules."""
        self._mark(node, other)[INVALID] += 1

    def misbehaved(self, node: int, other: int) -> None:
        """`other` broke the router's rules: grafted in back-off, promised what it did not have."""
        self._mark(node, other)[BEHAVIOUR] += 1

    def decay(self, node: int) -> None:
        """A heartbeat has passed."""
        marks = self._marks[node]
        for other in list(marks):
            mark = marks[other]
            for name in (FIRST, INVALID, BEHAVIOUR):
                mark[name] = mark[name] * self._left if mark[name] > FORGET_UNDER else 0.0
            if mark[JOINED] >= 0:
                mark[JOINED] += 1
            elif not any(mark[FIRST:]):
                del marks[other]

    def of(self, node: int, other: int) -> float:
        """The score that `node` gives to `other`."""
        mark = self._marks[node].get(other)
        if mark is None:
            return 0.0
        settings = self._settings
        mesh_s = min(TIME_IN_MESH_S_MAX, max(0.0, mark[JOINED]) / self._beats_per_s)
        return (
            settings.time_in_mesh_points * mesh_s
            + settings.first_delivery_points * mark[FIRST]
            + settings.invalid_message_points * mark[INVALID] ** 2
            + settings.behaviour_points * mark[BEHAVIOUR] ** 2
        )

    def graylisted(self, node: int, other: int) -> bool:
        """Whether `node` listens to `other` no more."""
        return self.of(node, other) < self._settings.graylist_threshold
