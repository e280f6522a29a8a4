"""The nodes' time series: what a run looks like from above, every so often."""

from typing import TYPE_CHECKING

from simnet.recording.recorder import Recorder
from simnet.scenario import Scenario

if TYPE_CHECKING:
    from simnet.simulation import Simulation


class Series:
    """Rows of the table `series`, sellers first, then askers, then relays."""

    def __init__(self, scenario: Scenario, recorder: Recorder, epoch_ns: int) -> None:
        self._nodes_max = scenario.record.series_nodes_max if recorder.keeps else 0
        self._recorder = recorder
        self._epoch_ns = epoch_ns
        self._nodes: list[int] = []
        self._used_ns: dict[int, int] = {}
        self._last_ns = epoch_ns

    def sample(self, simulation: "Simulation") -> None:
        """One row a node, now."""
        if not self._nodes_max:
            return
        if not self._nodes:
            roles = simulation.roles
            order = [*sorted(roles.providers), *sorted(roles.requesters)]
            others = (peer.index for peer in simulation.peers)
            known = dict.fromkeys([*order, *others])
            self._nodes = list(known)[: self._nodes_max]
        now_ns = simulation.clock.now_ns
        for index in self._nodes:
            self._row(simulation, index, now_ns, max(1, now_ns - self._last_ns))
        self._last_ns = now_ns

    def _row(self, simulation: "Simulation", index: int, now_ns: int, passed_ns: int) -> None:
        peer = simulation.peers[index]
        ledger = peer.node.context.ledger
        balance = ledger.balance()
        seller = simulation.sellers.get(index)
        jobs = busy = price_ucr = 0
        if seller is not None:
            jobs = seller.machine.running
            busy = jobs * 1_000 // seller.machine.gpu.places
            price_ucr = seller.price_ucr(seller.models[0], output=True)
        used_ns = simulation.cpu.used_ns[index]
        cpu = (used_ns - self._used_ns.get(index, 0)) * 1_000 // passed_ns
        self._used_ns[index] = used_ns
        self._recorder.add(
            "series",
            (
                now_ns - self._epoch_ns,
                index,
                peer.alive,
                len(simulation.gossip.mesh[index]),
                jobs,
                busy,
                price_ucr,
                cpu,
                ledger.open_channels,
                balance.spent_ucr,
                balance.earned_ucr,
                balance.locked_ucr,
                balance.unpaid_ucr,
            ),
        )
