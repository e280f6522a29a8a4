"""The adversaries of a run: which node is one, and what those of the network do to gossip.

Rule: `scenario.adversaries`; those of the market are cores of their own, in `core`.
"""

from typing import TYPE_CHECKING, Final

from protocol.units import NS_PER_MS, NS_PER_S
from router.node import Node
from simnet.adversaries.core import (
    Adversary,
    Boasting,
    Colluding,
    Inventing,
    Miscopying,
    Overcounting,
    Repeating,
    Sniping,
    Vanishing,
    Withholding,
)
from simnet.adversaries.publishers import Flooding, Silencing
from simnet.network.gossip import Message
from simnet.network.topology import Neighbours
from simnet.peer import Peer
from simnet.scenario import adversaries as kinds
from simnet.scenario.adversaries import AnyAdversary, Censor, Degrade, Eclipse, Rollback
from simnet.scenario.roles import Roles

if TYPE_CHECKING:
    from simnet.simulation import Simulation

CORES: Final[dict[type, type[Adversary]]] = {
    kinds.Vanish: Vanishing,
    kinds.Garbage: Inventing,
    kinds.WrongDigest: Miscopying,
    kinds.OverClaim: Overcounting,
    kinds.OverPromise: Boasting,
    kinds.Collude: Colluding,
    kinds.Snipe: Sniping,
    kinds.StopPaying: Withholding,
    kinds.DoubleSpend: Repeating,
    kinds.ClearingLies: Silencing,
    kinds.Rollback: Adversary,
    kinds.Flood: Flooding,
    kinds.Censor: Adversary,
    kinds.Degrade: Adversary,
    kinds.Eclipse: Adversary,
}


class Intruders:
    """All adversaries, by node."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self.kinds: dict[int, AnyAdversary] = roles.adversaries
        self._victims = {
            number: self._members(one.victims, getattr(one, "victim_nodes", 0))
            for number, one in enumerate(roles.kinds)
            if isinstance(one, Censor | Eclipse)
        }
        self._numbers = {node: roles.kinds.index(kind) for node, kind in self.kinds.items()}

    def _members(self, group: str, nodes: int) -> bytearray:
        """Flags of a group's first nodes, or of all of it; of everybody where none is named."""
        chosen = self._roles.members.get(group)
        if chosen is None:
            return bytearray([1]) * self._roles.nodes
        flags = bytearray(self._roles.nodes)
        for node in chosen[: nodes or len(chosen)]:
            flags[node] = 1
        return flags

    # --- cores -------------------------------------------------------------------------------

    def core(self, node: int) -> type[Node]:
        """The code that a node runs."""
        kind = self.kinds.get(node)
        return Node if kind is None else CORES[type(kind)]

    def instruct(self, index: int, core: Node) -> None:
        """Tell an adversary's core what it is to do."""
        if isinstance(core, Adversary):
            kind = self.kinds[index]
            ring = [node for node, other in self.kinds.items() if other is kind]
            core.settings = kind
            core.turn, core.members = ring.index(index), len(ring)

    # --- gossip ------------------------------------------------------------------------------

    def surround(self, neighbours: Neighbours) -> Neighbours:
        """The graph of connections after eclipses: victims know adversaries alone."""
        linked = [list(others) for others in neighbours]
        for number, kind in enumerate(self._roles.kinds):
            if not isinstance(kind, Eclipse):
                continue
            ring = [node for node, other in self.kinds.items() if other is kind]
            for victim, flag in enumerate(self._victims[number]):
                if not flag:
                    continue
                for other in linked[victim]:
                    linked[other].remove(victim)
                linked[victim] = list(ring)
                for node in ring:
                    if victim not in linked[node]:
                        linked[node].append(victim)
        return [tuple(sorted(others)) for others in linked]

    def begin(self, simulation: "Simulation", start_ns: int) -> None:
        """What adversaries do from outside their cores."""
        network = any(isinstance(kind, Censor | Degrade | Eclipse) for kind in self._roles.kinds)
        if network:
            simulation.gossip.bend = lambda node, message, targets: self._bend(
                simulation, node, message, targets
            )
        for node, kind in self.kinds.items():
            if isinstance(kind, Rollback):
                at_ns = start_ns + kind.at_s * NS_PER_S
                peer = simulation.peers[node]
                simulation.clock.at(at_ns, self._roll_back, simulation, peer, kind)

    def _bend(
        self, simulation: "Simulation", node: int, message: Message, targets: list[int]
    ) -> list[int] | None:
        """To whom a node passes a message on; None: to nobody, ever."""
        kind = self.kinds.get(node)
        match kind:
            case Censor():
                victims = self._victims[self._numbers[node]]
                return None if victims[message.origin] else targets
            case Eclipse():
                victims = self._victims[self._numbers[node]]
                if victims[message.origin]:
                    return None
                return [target for target in targets if not victims[target]]
            case Degrade():
                delay_ns = kind.delay_ms * NS_PER_MS
                simulation.clock.after(delay_ns, simulation.gossip.send_on, node, targets, message)
                return []
        return targets

    def _roll_back(self, simulation: "Simulation", peer: Peer, kind: Rollback) -> None:
        """Stop, put an old copy of the log in its place, start."""
        if not peer.alive:
            return
        simulation.crash(peer)
        del peer.log[len(peer.log) * kind.keep_permille // 1_000 :]
        simulation.restart(peer)
