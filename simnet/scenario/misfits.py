"""What no single key of a scenario can be checked for: sizes and names that fit each other."""

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from simnet.network.latency import ROUND_TRIPS_MS
from simnet.scenario import Scenario
from simnet.scenario.adversaries import Asker, Eclipse, Rollback, Seller
from simnet.scenario.faults import AnyFault, FlashCrowd, Partition
from simnet.scenario.market import GPUS, Requesters
from simnet.scenario.network import Gossip, Topology
from simnet.scenario.roles import NETWORK

Where = tuple[str | int, ...]
Misfit = tuple[Where, str]

OF_A_DEGREE: Final = ("random-regular", "watts-strogatz", "barabasi-albert", "regions")
OF_HALVES: Final = ("watts-strogatz", "barabasi-albert")
INTERNET_NODES_MIN: Final = 7  # its core and what hangs on that


def misfits(scenario: Scenario) -> Iterator[Misfit]:
    """Where something does not fit, and what was expected there."""
    yield from _names(scenario)
    models = [model.name for model in scenario.models]
    gpus = [gpu.name for gpu in (*GPUS, *scenario.gpus)]
    for number, seller in enumerate(scenario.providers):
        if seller.gpu not in gpus:
            yield ("providers", number, "gpu"), _unknown(seller.gpu, gpus)
        for name in seller.models:
            if name not in models:
                yield ("providers", number, "models"), _unknown(name, models)
        if len({*seller.models}) != len(seller.models):
            yield ("providers", number, "models"), "expected each model once"
    for number, asker in enumerate(scenario.requesters):
        for key, what in _asker(asker, models):
            yield ("requesters", number, key), what
    yield from _adversaries(scenario)
    yield from _count(scenario)
    yield from _faults(scenario)
    for path, what in _gossip(scenario.gossip):
        yield ("gossip", *path), what
    for key, what in _topology(scenario.topology, scenario.nodes):
        yield ("topology", key), what
    if not any(scenario.access.links.values()):
        yield ("access", "links"), "expected a weight over 0"
    if not scenario.latency.matrix:
        for region in scenario.latency.regions:
            if region not in ROUND_TRIPS_MS:
                yield ("latency", "regions"), _unknown(region, list(ROUND_TRIPS_MS))
    if scenario.latency.regions and not any(scenario.latency.regions.values()):
        yield ("latency", "regions"), "expected a weight over 0"


def _names(scenario: Scenario) -> Iterator[Misfit]:
    sellers = [group.name for group in scenario.providers]
    for kind, names in (
        ("models", [model.name for model in scenario.models]),
        ("gpus", [gpu.name for gpu in (*GPUS, *scenario.gpus)]),
        ("providers", sellers),
        ("requesters", [*sellers, *(group.name for group in scenario.requesters)]),
    ):
        if len(set(names)) != len(names):
            yield (kind,), f"each needs a name of its own, not {', '.join(names)}"
            return


def _asker(asker: Requesters, models: list[str]) -> Iterator[tuple[str, str]]:
    for name in asker.models:
        if name not in models:
            yield "models", _unknown(name, models)
    if asker.models and not any(asker.models.values()):
        yield "models", "expected a weight over 0"
    if asker.arrivals == "trace" and not asker.trace:
        yield "trace", "expected the path of a CSV file"
    timeout_ms = asker.timeout_s * 1_000
    if asker.bid_window_ms >= timeout_ms:
        told = f"timeout_s, {asker.timeout_s} s, in which bids and the answer come"
        yield "bid_window_ms", f"expected less than {told}"
    if asker.hedge_percent and asker.hedge_floor_ms >= timeout_ms:
        yield "hedge_floor_ms", f"expected less than timeout_s, {asker.timeout_s} s"
    for key, tokens in (
        ("input_tokens", asker.input_tokens),
        ("output_tokens", asker.output_tokens),
    ):
        if tokens.median > tokens.max:
            yield key, f"expected median <= max, not {tokens.median} and {tokens.max}"


def _count(scenario: Scenario) -> Iterator[Misfit]:
    sellers = sum(group.count for group in scenario.providers)
    askers = sum(group.count for group in scenario.requesters)
    others = sum(kind.nodes for kind in scenario.adversaries if isinstance(kind, NETWORK))
    if sellers + askers + others > scenario.nodes:
        also = f" and {others} adversaries" if others else ""
        needed = sellers + askers + others
        what = f"{sellers} providers and {askers} requesters{also} need {needed} nodes"
        yield ("nodes",), f"{what}, not {scenario.nodes}"


def _gossip(gossip: Gossip) -> Iterator[tuple[tuple[str, ...], str]]:
    if not gossip.degree_low <= gossip.degree <= gossip.degree_high:
        yield ("degree",), "expected degree_low <= degree <= degree_high"
    if gossip.history_offered > gossip.history:
        what = f"expected at most history, {gossip.history}: what is offered can be asked for"
        yield ("history_offered",), what
    scoring = gossip.scoring
    if scoring.graylist_threshold > scoring.gossip_threshold:
        what = f"expected at most gossip_threshold, {scoring.gossip_threshold}"
        yield ("scoring", "graylist_threshold"), what


# --- the graph ---------------------------------------------------------------------------------


def _topology(topology: Topology, nodes: int) -> Iterator[tuple[str, str]]:
    kind, degree = topology.kind, topology.degree
    if kind in ("edges", "gml") and not topology.path:
        yield "path", "expected the path of a file"
    if kind == "internet" and nodes < INTERNET_NODES_MIN:
        yield "kind", f"expected {INTERNET_NODES_MIN} nodes or more for it, not {nodes}"
    if kind == "star" and topology.hubs >= nodes:
        yield "hubs", f"expected at most {nodes - 1}, of {nodes} nodes"
    if kind not in OF_A_DEGREE:
        return
    if degree >= nodes:
        yield "degree", f"expected at most {nodes - 1}, of {nodes} nodes"
    elif degree != fitting_degree(topology, nodes):
        what = "an even number of 2 or more" if kind in OF_HALVES else "an even degree * nodes"
        yield "degree", f"expected {what} for {kind}"


def fitting_degree(topology: Topology, nodes: int) -> int:
    """The topology's degree, or the next lower one that a graph of so many nodes has."""
    degree = min(topology.degree, nodes - 1)
    if topology.kind in OF_HALVES:
        return max(2, degree - degree % 2)
    if topology.kind == "random-regular" and degree * nodes % 2:
        return max(1, degree - 1)
    return degree


def fitted(scenario: Scenario) -> Scenario:
    """The scenario with numbers that fit fewer nodes: degree, hubs, whom faults concern."""
    topology = scenario.topology
    degree, hubs = fitting_degree(topology, scenario.nodes), min(topology.hubs, scenario.nodes - 1)
    counts = _sizes(scenario)
    return replace(
        scenario,
        topology=replace(topology, degree=degree, hubs=hubs),
        faults=tuple(
            replace(one, nodes=min(one.nodes, counts.get(one.group, scenario.nodes)))
            for one in scenario.faults
        ),
        adversaries=tuple(
            replace(one, victim_nodes=min(one.victim_nodes, counts.get(one.victims, 0)))
            if isinstance(one, Eclipse)
            else one
            for one in scenario.adversaries
        ),
    )


# --- faults and adversaries --------------------------------------------------------------------


def _sizes(scenario: Scenario) -> dict[str, int]:
    """How many nodes each group has."""
    sellers = {group.name: group.count for group in scenario.providers}
    return sellers | {group.name: group.count for group in scenario.requesters}


def _faults(scenario: Scenario) -> Iterator[Misfit]:
    askers = [group.name for group in scenario.requesters]
    counts = _sizes(scenario)
    for number, fault in enumerate(scenario.faults):
        known = askers if isinstance(fault, FlashCrowd) else ["", *counts]
        if fault.group not in known:
            yield ("faults", number, "group"), _unknown(fault.group, known)
            continue
        for key, what in _fault(fault, counts.get(fault.group, scenario.nodes), scenario):
            yield ("faults", number, *key), what


def _fault(
    fault: AnyFault, among: int, scenario: Scenario
) -> Iterator[tuple[tuple[str, ...], str]]:
    if fault.at_s >= scenario.duration_s:
        yield (
            ("at_s",),
            f"expected less than duration_s, {scenario.duration_s}: it is over by then",
        )
    if fault.nodes > among:
        yield ("nodes",), f"expected at most {among}, as many as there are to choose from"
    if isinstance(fault, Partition):
        chosen = fault.nodes or among
        if not fault.group and not fault.nodes:
            yield (), "a partition needs group or nodes: who is on one side"
        elif chosen >= scenario.nodes:
            yield ("nodes",), f"expected less than {scenario.nodes}: there are two sides"
        if fault.shape == "bridge" and fault.bridges >= scenario.nodes:
            yield ("bridges",), f"expected less than nodes, {scenario.nodes}"


def _adversaries(scenario: Scenario) -> Iterator[Misfit]:
    sellers = [group.name for group in scenario.providers]
    askers = [group.name for group in scenario.requesters]
    counts = _sizes(scenario)
    taken: list[str] = []
    for number, kind in enumerate(scenario.adversaries):
        if isinstance(kind, NETWORK):
            name = str(kind.__struct_config__.tag)
            victims = getattr(kind, "victims", "")
            if victims not in counts and (victims or isinstance(kind, Eclipse)):
                yield ("adversaries", number, "victims"), _unknown(victims, [*counts])
            elif isinstance(kind, Eclipse) and kind.victim_nodes > counts[victims]:
                what = f"expected at most {counts[victims]}, as many as {victims} has"
                yield ("adversaries", number, "victim_nodes"), what
        else:
            name = kind.group
            known = sellers if isinstance(kind, Seller) else askers
            known = known if isinstance(kind, Seller | Asker) else sellers + askers
            if name not in known:
                yield ("adversaries", number, "group"), _unknown(name, known)
        if isinstance(kind, Rollback) and kind.at_s >= scenario.duration_s:
            what = f"expected less than duration_s, {scenario.duration_s}"
            yield ("adversaries", number, "at_s"), what
        if name in taken or (isinstance(kind, NETWORK) and name in sellers + askers):
            yield ("adversaries", number), f"{name!r} is taken already"
        taken.append(name)


def _unknown(name: str, known: list[str]) -> str:
    told = ", ".join(filter(None, known))
    return f"there is no {name!r}; there are {told}"
