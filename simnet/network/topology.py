"""Who has a connection to whom: graphs by networkx, as sorted neighbours of each node.

The same (kind, size, seed) gives the same graph. Graphs that fall apart are joined by single
links, so that gossip can reach everybody.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from protocol.errors import ConfigError
from simnet.entropy import Entropy
from simnet.extra import need
from simnet.scenario.network import Topology
from simnet.text_file import text_of

EDGES_MAX: Final = 10_000_000
GML_BYTES_MAX: Final = 64 << 20  # parsed, a graph takes some thirty times its text
_NODE: Final = re.compile(r"[0-9]{1,9}", re.ASCII).fullmatch

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
        return _joined(nodes, read_edges(beside / topology.path, nodes))
    if kind == "gml":
        return _joined(nodes, read_gml(beside / topology.path, nodes))
    networkx = need("networkx")
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


def read_edges(path: Path, nodes: int) -> Iterator[tuple[int, int]]:
    """Two node numbers a line, split by blanks or a comma. ConfigError names the line."""
    for number, line in enumerate(text_of(path).splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        if number > EDGES_MAX:
            raise ConfigError("config.bad_value", f"{path}: expected at most {EDGES_MAX} lines")
        valid = len(words) >= 2 and all(_NODE(word) for word in words[:2])
        if not valid or max(int(words[0]), int(words[1])) >= nodes:
            raise ConfigError(
                "config.bad_value",
                f"{path}: line {number}: expected two node numbers from 0 to {nodes - 1}, "
                f"not {line.strip()[:40]!r}",
            )
        yield int(words[0]), int(words[1])


def read_gml(path: Path, nodes: int) -> Iterator[tuple[int, int]]:
    """The links of a GML graph, its nodes numbered by their ids. ConfigError."""
    networkx = need("networkx")
    text = text_of(path, GML_BYTES_MAX)
    try:
        graph = networkx.parse_gml(text.splitlines(), label=None)
        numbers = {name: number for number, name in enumerate(sorted(graph.nodes()))}
    except networkx.NetworkXError as error:
        told = re.sub(r"^(.*) at \((\d+), \d+\)$", r"line \2: \1", str(error)[:200])
        raise ConfigError("config.bad_value", f"{path}: expected a GML graph: {told}") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        what = "expected a GML graph: nodes with ids of one kind, edges with source and target"
        raise ConfigError("config.bad_value", f"{path}: {what}") from error
    if len(numbers) > nodes:
        raise ConfigError(
            "config.bad_value",
            f"{path}: expected at most {nodes} nodes, as the scenario has; it has {len(numbers)}",
        )
    for one, other in graph.edges():
        yield numbers[one], numbers[other]
