"""The files that a scenario names: opened and read to their ends before anything runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from protocol.errors import ConfigError
from simnet.market.workload import read_trace
from simnet.network.latency import read_matrix
from simnet.network.topology import read_edges, read_gml
from simnet.scenario import Scenario

Found = tuple[tuple[str | int, ...], ConfigError]


class NamedFiles:
    """Reads files beside a scenario; each once for all points of a sweep that read it alike."""

    def __init__(self, beside: Path) -> None:
        self._beside = beside
        self._known: dict[tuple[Any, ...], ConfigError | Any] = {}

    def faults(self, scenario: Scenario) -> Iterator[Found]:
        """What is wrong with them: the key that names each, and the reader's error."""
        graph, nodes = scenario.topology, scenario.nodes
        if graph.kind == "edges":
            path = self._beside / graph.path
            error, _ = self._read(lambda: _size(read_edges(path, nodes)), "edges", path, nodes)
            yield from _at(("topology", "path"), error)
        elif graph.kind == "gml":
            path = self._beside / graph.path
            error, _ = self._read(lambda: _size(read_gml(path, nodes)), "gml", path, nodes)
            yield from _at(("topology", "path"), error)
        if scenario.latency.matrix:
            path = self._beside / scenario.latency.matrix
            error, names = self._read(lambda: read_matrix(path).regions, "matrix", path)
            yield from _at(("latency", "matrix"), error)
            for region in scenario.latency.regions if names else ():
                if region not in names:
                    what = f"there is no {region!r} in {path}; there are {', '.join(names)}"
                    yield ("latency", "regions"), ConfigError("config.bad_value", what)
        models = tuple(model.name for model in scenario.models)
        for number, group in enumerate(scenario.requesters):
            if group.arrivals == "trace":
                yield from _at(("requesters", number, "trace"), self._trace(group.trace, models))

    def _trace(self, name: str, models: tuple[str, ...]) -> ConfigError | None:
        path = self._beside / name
        return self._read(lambda: _size(read_trace(path, models)), "trace", path, models)[0]

    def _read(self, read: Callable[[], Any], *what: Any) -> tuple[ConfigError | None, Any]:
        """An error, or what the file holds."""
        if what not in self._known:
            try:
                self._known[what] = read()
            except ConfigError as error:
                self._known[what] = error
        known = self._known[what]
        return (known, None) if isinstance(known, ConfigError) else (None, known)


def _size(rows: Iterator[Any]) -> int:
    return sum(1 for _ in rows)


def _at(where: tuple[str | int, ...], error: ConfigError | None) -> Iterator[Found]:
    if error is not None:
        yield where, error
