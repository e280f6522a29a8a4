"""Who has a connection to whom: graphs by networkx, as sorted neighbours of each node.

The same (kind, size, seed) gives the same graph. Graphs that fall apart are joined by single
links, so that gossip can reach everybody.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from protocol.errors import ConfigError
from simnet.entropy import Entropy
from simnet.extra import need
from simnet.scenario.network import Topology

EDGES_MAX = 10_000_000

Neighbours = list[tuple[int, ...]]


def build(
    topology: Topology, nodes: int, seed: int, regions: Sequence[int], beside: Path
) -> Neighbours:
    """The neighbours of each node; `regions` are the nodes' own, `beside` where paths start.

    ConfigError for a file that can't be read, or sizes that no such graph has.
    """
    kind = topology.kind
    degree = min(topology.degree, nodes - 1)
    if kind == "star":
        return _joined(nodes, _star(nodes, min(topology.hubs, nodes - 1)))
    if kind == "regions":
        return _joined(nodes, _regions(topology, degree, regions, seed))
    if kind == "edges":
        return _joined(nodes, _read_edges(beside / topology.path, nodes))
    networkx = need("networkx")
    if kind == "gml":
        return _joined(nodes, _read_gml(networkx, beside / topology.path, nodes))
    random_state = Entropy(seed, "topology").below(2**31)
    if kind == "random-regular":
        if degree * nodes % 2:
            degree -= 1  # no graph has an odd number of ends
        if degree < 1 or degree == nodes - 1:
            graph = networkx.complete_graph(nodes)
        else:
            graph = networkx.random_regular_graph(degree, nodes, seed=random_state)
    elif kind == "watts-strogatz":
        rewire = topology.rewire_permille / 1_000
        graph = networkx.watts_strogatz_graph(nodes, degree, rewire, seed=random_state)
    elif kind == "barabasi-albert":
        half = max(1, min(degree // 2, nodes - 1))
        graph = networkx.barabasi_albert_graph(nodes, half, seed=random_state)
    else:
        graph = networkx.random_internet_as_graph(nodes, seed=random_state)
    return _joined(nodes, graph.edges())


def _joined(nodes: int, edges: Iterable[tuple[int, int]]) -> Neighbours:
    """Sorted neighbours; parts that hang on nothing get one link to the first part."""
    near: list[dict[int, None]] = [{} for _ in range(nodes)]

    def link(one: int, other: int) -> None:
        if one != other:
            near[one][other] = near[other][one] = None

    for one, other in edges:
        link(one, other)
    reached = [False] * nodes
    for start in range(nodes):
        if reached[start]:
            continue
        if start:
            link(start, start - 1)
        stack = [start]
        reached[start] = True
        while stack:
            for other in near[stack.pop()]:
                if not reached[other]:
                    reached[other] = True
                    stack.append(other)
    return [tuple(sorted(others)) for others in near]


def _star(nodes: int, hubs: int) -> Iterable[tuple[int, int]]:
    """Hubs know each other; each leaf knows one hub, by turns."""
    for one in range(hubs):
        for other in range(one):
            yield one, other
    for leaf in range(hubs, nodes):
        yield leaf, leaf % hubs


def _regions(
    topology: Topology, degree: int, regions: Sequence[int], seed: int
) -> Iterable[tuple[int, int]]:
    """Each node dials half its degree: in its own region, but for the rewired ones."""
    draw = Entropy(seed, "topology")
    members: dict[int, list[int]] = {}
    for index, region in enumerate(regions):
        members.setdefault(region, []).append(index)
    for index, region in enumerate(regions):
        for _ in range(max(1, degree // 2)):
            home = members[region]
            away = draw.below(1_000) < topology.rewire_permille or len(home) < 2
            other = draw.below(len(regions)) if away else home[draw.below(len(home))]
            yield index, other


def _read_edges(path: Path, nodes: int) -> Iterable[tuple[int, int]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        valid = len(words) >= 2 and words[0].isdecimal() and words[1].isdecimal()
        if not valid or number > EDGES_MAX or max(int(words[0]), int(words[1])) >= nodes:
            raise ConfigError(
                "config.bad_value",
                f"{path}: line {number}: expected two node numbers from 0 to {nodes - 1}",
            )
        yield int(words[0]), int(words[1])


def _read_gml(networkx: Any, path: Path, nodes: int) -> Iterable[tuple[int, int]]:
    try:
        graph = networkx.read_gml(path, label=None)
    except (OSError, UnicodeError) as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error
    except networkx.NetworkXError as error:
        raise ConfigError("config.bad_value", f"{path}: {error}") from error
    numbers = {name: number for number, name in enumerate(sorted(graph.nodes()))}
    if len(numbers) > nodes:
        raise ConfigError(
            "config.bad_value",
            f"{path}: the graph has {len(numbers)} nodes, the scenario only {nodes}",
        )
    for one, other in graph.edges():
        yield numbers[one], numbers[other]
