"""Carries out a scenario's faults: scheduled, or drawn from the seed.

Acts on a simulation from outside its nodes. Every fault is over at the end of the time in which
requests come. Rule: `scenario.faults`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from protocol.units import NS_PER_MS, NS_PER_S
from simnet.entropy import Entropy
from simnet.peer import Peer
from simnet.scenario.faults import (
    AnyFault,
    Churn,
    Clog,
    Crash,
    FlashCrowd,
    Partition,
    Skew,
    SlowDisk,
    SlowNode,
)

if TYPE_CHECKING:
    from simnet.simulation import Simulation

BRIDGE, INSIDE, OUTSIDE = range(3)
USUAL_PERMILLE: Final = 1_000
SHORT_PERMILLE, LONG_PERMILLE = 100, 1_900  # of the mean: the stays of bimodal churn

Undo = Callable[[], None]


class Cut:
    """A partition: which side each node is on."""

    def __init__(self, sides: bytearray, *, one_way: bool) -> None:
        self.sides = sides
        self._one_way = one_way

    def between(self, source: int, target: int) -> bool:
        """Whether nothing gets from `source` to `target`."""
        there = self.sides[source], self.sides[target]
        return there == (OUTSIDE, INSIDE) or (not self._one_way and there == (INSIDE, OUTSIDE))


class Faults:
    """The faults of one run; `counts` says how often each kind happened."""

    def __init__(self, simulation: "Simulation", faults: Sequence[AnyFault]) -> None:
        self._simulation = simulation
        self._faults = faults
        self._cuts: list[Cut] = []
        self._clogs: list[tuple[bytearray, int]] = []
        self._undo: dict[int, Undo] = {}  # what still lasts, in the order of its beginning
        self._serial = 0
        self._end_ns = 0
        self.counts: dict[str, int] = {}

    def begin(self, start_ns: int, end_ns: int) -> None:
        """Put the first of each on the clock."""
        self._end_ns = end_ns
        clock = self._simulation.clock
        for number, fault in enumerate(self._faults):
            draw = Entropy(self._simulation.seed, f"fault {number}")
            at_ns = start_ns + fault.at_s * NS_PER_S
            if at_ns < end_ns:
                clock.at(at_ns, self._happen, fault, draw)
        if self._faults:
            clock.at(end_ns, self.end)

    def end(self) -> None:
        """Everything works again."""
        for undo in list(self._undo.values()):
            undo()
        for peer in self._simulation.peers:
            if not peer.alive:
                self._simulation.restart(peer)

    # --- one fault ---------------------------------------------------------------------------

    def _happen(self, fault: AnyFault, draw: Entropy) -> None:
        clock = self._simulation.clock
        kind = str(type(fault).__struct_config__.tag)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        chosen = self._choose(fault, draw)
        match fault:
            case Churn():
                self._churn(fault, chosen, draw)
            case FlashCrowd():
                self._simulation.crowds[fault.group].rush(fault.requests)
            case _:
                self._lasting(fault, self._do(fault, chosen, draw))
        if fault.every_s:
            again_ns = clock.now_ns + round(draw.exponential(fault.every_s * NS_PER_S))
            if again_ns < self._end_ns:
                clock.at(again_ns, self._happen, fault, draw)

    def _choose(self, fault: AnyFault, draw: Entropy) -> list[Peer]:
        """Whom it concerns, by number."""
        simulation = self._simulation
        members = simulation.roles.members.get(fault.group)
        among = list(range(len(simulation.peers))) if members is None else list(members)
        if fault.nodes and fault.nodes < len(among):
            draw.shuffle(among)
            among = sorted(among[: fault.nodes])
        return [simulation.peers[index] for index in among]

    def _lasting(self, fault: AnyFault, undo: Undo) -> None:
        """It is undone after its time, or at the end of all faults."""
        self._serial += 1
        serial = self._serial

        def end() -> None:
            if self._undo.pop(serial, None) is not None:
                undo()

        self._undo[serial] = end
        if fault.for_s:
            self._simulation.clock.after(fault.for_s * NS_PER_S, end)

    def _do(self, fault: AnyFault, chosen: list[Peer], draw: Entropy) -> Undo:
        match fault:
            case Crash():
                return self._crash(chosen, fault.lost_records, draw)
            case Partition():
                return self._partition(fault, chosen, draw)
            case Clog():
                return self._clog(fault, chosen)
            case SlowDisk():
                return self._set_each(
                    self._simulation.slow_disks_ns, chosen, fault.sync_ms * NS_PER_MS
                )
            case SlowNode():
                return self._slow(fault, chosen)
            case Skew():
                return self._skew(fault, chosen, draw)
        raise AssertionError(fault)

    # --- nodes that die ------------------------------------------------------------------------

    def _crash(self, chosen: list[Peer], lost_records: int, draw: Entropy) -> Undo:
        died = [peer for peer in chosen if peer.alive]
        for peer in died:
            self._simulation.crash(peer, draw.below(lost_records + 1))
        lives = [peer.incarnation for peer in died]

        def restart() -> None:
            for peer, life in zip(died, lives, strict=True):
                if not peer.alive and peer.incarnation == life:
                    self._simulation.restart(peer)

        return restart

    def _churn(self, fault: Churn, chosen: list[Peer], draw: Entropy) -> None:
        for peer in chosen:
            own = Entropy(self._simulation.seed, f"churn {peer.index} {draw.below(1 << 62)}")
            self._stay(fault, peer, own)

    def _stay(self, fault: Churn, peer: Peer, draw: Entropy) -> None:
        mean_ns = fault.up_s * NS_PER_S
        if fault.shape == "bimodal":
            stay_ns = mean_ns * (SHORT_PERMILLE, LONG_PERMILLE)[draw.below(2)] // 1_000
        else:
            stay_ns = round(draw.exponential(mean_ns))
        at_ns = self._simulation.clock.now_ns + stay_ns
        if at_ns < self._end_ns:
            self._simulation.clock.at(at_ns, self._leave, fault, peer, draw)

    def _leave(self, fault: Churn, peer: Peer, draw: Entropy) -> None:
        if peer.alive:
            self._simulation.crash(peer, draw.below(fault.lost_records + 1))
        away_ns = round(draw.exponential(fault.down_s * NS_PER_S))
        back_ns = min(self._simulation.clock.now_ns + away_ns, self._end_ns)
        self._simulation.clock.at(back_ns, self._come_back, fault, peer, draw)

    def _come_back(self, fault: Churn, peer: Peer, draw: Entropy) -> None:
        if not peer.alive:
            self._simulation.restart(peer)
        self._stay(fault, peer, draw)

    # --- the network ---------------------------------------------------------------------------

    def _partition(self, fault: Partition, chosen: list[Peer], draw: Entropy) -> Undo:
        sides = bytearray([OUTSIDE]) * len(self._simulation.peers)
        for peer in chosen:
            sides[peer.index] = INSIDE
        if fault.shape == "bridge":
            order = list(range(len(sides)))
            draw.shuffle(order)
            for index in order[: fault.bridges]:
                sides[index] = BRIDGE
        cut = Cut(sides, one_way=fault.shape == "one-way")
        self._cuts.append(cut)
        self._set_blocked()
        self._break_streams(cut)

        def heal() -> None:
            self._cuts.remove(cut)
            self._set_blocked()

        return heal

    def _set_blocked(self) -> None:
        cuts = self._cuts

        def blocked(source: int, target: int) -> bool:
            return any(cut.between(source, target) for cut in cuts)

        self._simulation.links.blocked = blocked if cuts else None

    def _break_streams(self, cut: Cut) -> None:
        peers, streams = self._simulation.peers, self._simulation.streams
        for one, other in streams.pairs():
            if cut.between(one, other) or cut.between(other, one):
                streams.cut(peers[one], peers[other])

    def _clog(self, fault: Clog, chosen: list[Peer]) -> Undo:
        slow = bytearray(len(self._simulation.peers))
        for peer in chosen:
            slow[peer.index] = 1
        clog = slow, fault.delay_ms * NS_PER_MS
        self._clogs.append(clog)
        self._set_clogged()

        def clear() -> None:
            self._clogs.remove(clog)
            self._set_clogged()

        return clear

    def _set_clogged(self) -> None:
        clogs = self._clogs

        def clogged_ns(source: int, target: int) -> int:
            return sum(delay_ns for slow, delay_ns in clogs if slow[source] or slow[target])

        self._simulation.links.clogged_ns = clogged_ns if clogs else None

    # --- slow and wrong parts ------------------------------------------------------------------

    def _set_each(self, values: dict[int, int], chosen: list[Peer], value: int) -> Undo:
        for peer in chosen:
            values[peer.index] = value

        def reset() -> None:
            for peer in chosen:
                values.pop(peer.index, None)

        return reset

    def _slow(self, fault: SlowNode, chosen: list[Peer]) -> Undo:
        simulation = self._simulation
        machines = [
            simulation.machines[peer.index] for peer in chosen if peer.index in simulation.machines
        ]
        for machine in machines:
            machine.slowdown_permille = fault.slowdown_permille
        reset = self._set_each(simulation.cpu.speed_permille, chosen, fault.slowdown_permille)

        def recover() -> None:
            reset()
            for machine in machines:
                machine.slowdown_permille = USUAL_PERMILLE

        return recover

    def _skew(self, fault: Skew, chosen: list[Peer], draw: Entropy) -> Undo:
        most_ns = fault.skew_ms * NS_PER_MS
        for peer in chosen:
            self._simulation.set_skew(peer, draw.below(2 * most_ns + 1) - most_ns)

        def right() -> None:
            for peer in chosen:
                self._simulation.set_skew(peer, 0)

        return right
