"""Fits what a gossip message costs in the model to real stacks, and says what error remains.

A line of nodes has no duplicates and gives the cost of a first delivery and of a copy sent; where
all are linked to all, most copies are duplicates. The model then runs other graphs with the
fitted costs, beside real stacks: what it gets wrong there is the error that remains.
"""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.units import NS_PER_S, NS_PER_US
from router.actions import CancelAsk
from simnet.market.workload import Arrival, Asking
from simnet.network import topology
from simnet.network.topology import Neighbours
from simnet.peer import Peer
from simnet.recording.recorder import Recorder
from simnet.scenario import Scenario
from simnet.scenario.market import Providers, Requesters
from simnet.scenario.network import Access, Costs, Latency, Topology
from simnet.simulation import Simulation
from simnet.tiers.stacks import REPAIR_S, SETTLE_S, Measured, interval_s, measure

LINE_NODES: Final = 8
GRAPH_NODES, GRAPH_DEGREE = 20, 8
LEAVES: Final = 20
MESSAGES: Final = 100

Tell = Callable[[str], None]


def line(nodes: int) -> Neighbours:
    """Each next to the one before."""
    return [
        tuple(other for other in (node - 1, node + 1) if 0 <= other < nodes)
        for node in range(nodes)
    ]


def complete(nodes: int) -> Neighbours:
    """All linked to all."""
    return [tuple(other for other in range(nodes) if other != node) for node in range(nodes)]


def graph(kind: str, nodes: int) -> Neighbours:
    """As the scenarios' topologies."""
    wanted = msgspec.convert({"kind": kind, "degree": GRAPH_DEGREE}, Topology)
    return topology.build(wanted, nodes, 1, [0] * nodes, Path())


# --- fitting -------------------------------------------------------------------------------------


def fit(lines: list[Measured], completes: list[Measured]) -> Costs:
    """Costs by which the stacks' CPU time comes out, each the median of its runs."""
    hop_ns = _median([run.read_ns / run.firsts for run in lines])
    forward_ns = _median([run.write_ns / run.copies for run in (*lines, *completes)])
    duplicate_ns = _median(
        [(run.read_ns - hop_ns * run.firsts) / run.duplicates for run in completes]
    )
    dial_ns = _median([run.dial_ns / 2 for run in (*lines, *completes)])
    return Costs(
        hop_us=_us(hop_ns),
        duplicate_us=_us(duplicate_ns),
        forward_us=_us(forward_ns),
        dial_us=_us(dial_ns),
    )


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _us(ns: float) -> int:
    return max(0, round(ns / NS_PER_US))


# --- the model beside ----------------------------------------------------------------------------


class _Deliveries(Recorder):
    """Keeps the rows of deliveries alone."""

    def __init__(self) -> None:
        super().__init__(None)
        self.found: list[tuple[Any, ...]] = []

    @property
    def keeps(self) -> bool:
        """Every delivery."""
        return True

    def add(self, table: str, row: tuple[Any, ...]) -> None:
        """One row."""
        if table == "deliveries":
            self.found.append(row)


def model(neighbours: Neighbours, costs: Costs, messages: int) -> Measured:
    """What the model says of the same graph, where every way takes no time."""
    nodes = len(neighbours)
    with tempfile.TemporaryDirectory(prefix="simnet-calibrate-") as name:
        beside = Path(name)
        edges = [(a, b) for a, others in enumerate(neighbours) for b in others if a < b]
        (beside / "edges").write_text("".join(f"{a} {b}\n" for a, b in edges), "utf-8")
        (beside / "matrix.csv").write_text(",here\nhere,0\n", "utf-8")
        scenario = Scenario(
            name="calibrate",
            nodes=nodes,
            topology=Topology(kind="edges", path="edges"),
            latency=Latency(matrix="matrix.csv", jitter_permille=0),
            access=Access(links={"fast": 1}),
            costs=costs,
            providers=(Providers(count=1),),
            requesters=(Requesters(count=1),),
        )
        deliveries = _Deliveries()
        simulation = Simulation(scenario, 1, deliveries, beside)
    asking = Asking(scenario, scenario.requesters[0], 1, beside)
    simulation.gossip.start()
    simulation.run(round(SETTLE_S * NS_PER_S))

    def ask(peer: Peer, number: int) -> None:
        simulation.give(peer, asking.make(number, Arrival(0))[0])
        simulation.give(peer, CancelAsk(number))  # its message alone is wanted

    every_ns = round(interval_s(neighbours) * NS_PER_S)
    for number in range(messages):
        simulation.clock.after(number * every_ns, ask, simulation.peers[number % nodes], number)
    simulation.run(messages * every_ns + round(REPAIR_S * NS_PER_S))
    simulation.finish()
    gossip = simulation.gossip
    return Measured(
        nodes,
        expected=messages * (nodes - 1),
        firsts=gossip.deliveries,
        duplicates=gossip.duplicates,
        hops=sum(row[3] for row in deliveries.found),
        read_ns=sum(simulation.cpu.used_ns),
        latencies_ns=[row[4] for row in deliveries.found],
    )


# --- all of it -----------------------------------------------------------------------------------


def calibrate(rounds: int, tell: Tell) -> dict[str, Any]:
    """Costs, the scenario's defaults beside them, and checks of the model against stacks."""
    scenario = Scenario(name="calibrate")
    lines, completes, pairs = [], [], []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}: a line of {LINE_NODES}, all to all, a pair")
        lines.append(measure(line(LINE_NODES), scenario, MESSAGES))
        completes.append(measure(complete(LINE_NODES), scenario, MESSAGES))
        pairs.append(measure(complete(2), scenario, MESSAGES))
    costs = fit(lines, completes)
    random_graph, star = graph("random-regular", GRAPH_NODES), graph("star", LEAVES + 1)
    tell(f"checks: a graph of {GRAPH_NODES}, a star of {LEAVES} leaves")
    checks = [
        *_check_graph(random_graph, measure(random_graph, scenario, MESSAGES), costs),
        _check(
            f"deliveries, a star of {LEAVES} leaves, %",
            100 * measure(star, scenario, MESSAGES).ratio,
            100 * model(star, costs, MESSAGES).ratio,
        ),
        _check(
            "a hop between two idle nodes, us",
            _median([run.latency_ns() for run in pairs]) / NS_PER_US,
            model(complete(2), costs, MESSAGES).latency_ns() / NS_PER_US,
        ),
    ]
    return {
        "costs": {name: getattr(costs, name) for name in FITTED},
        "defaults": {name: getattr(Costs(), name) for name in FITTED},
        "spread_percent": {
            "hop_us": _spread([run.read_ns / run.firsts for run in lines]),
            "forward_us": _spread([run.write_ns / run.copies for run in lines]),
        },
        "checks": checks,
        "rounds": rounds,
        "messages": MESSAGES,
    }


FITTED: Final = ("hop_us", "duplicate_us", "forward_us", "dial_us")


def _check_graph(neighbours: Neighbours, real: Measured, costs: Costs) -> list[dict[str, Any]]:
    said = model(neighbours, costs, MESSAGES)
    what = f"a graph of {len(neighbours)}, degree {GRAPH_DEGREE}"
    cpu = (real.read_ns + real.write_ns) / real.firsts / NS_PER_US
    return [
        _check(f"deliveries, {what}, %", 100 * real.ratio, 100 * said.ratio),
        _check("copies a delivery", real.copies / real.firsts, said.copies / said.firsts),
        _check("hops a delivery", real.hops / real.firsts, said.hops / said.firsts),
        _check("CPU time a delivery, us", cpu, said.read_ns / said.firsts / NS_PER_US),
    ]


def _check(what: str, real: float, said: float) -> dict[str, Any]:
    error = 100 * (said - real) / real if real else 0.0
    return {
        "what": what,
        "libp2p": round(real, 2),
        "model": round(said, 2),
        "error_percent": round(error, 1),
    }


def _spread(values: list[float]) -> float:
    return round(100 * (max(values) - min(values)) / statistics.median(values), 1)
