"""A run's directory read back: its tables as columns, and figures of a market."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.extra import need
from simnet.recording.tables import TABLES
from simnet.runs.directory import RUN_FILE, SUMMARY_FILE

Array = npt.NDArray[Any]
Columns = dict[str, Array]


class RunTables:
    """One run: `summary`, `origin` and each table by its name, read when first asked for.

    ConfigError when `path` holds no run, one that has not ended, or one without tables.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = read_json(path / RUN_FILE, f"{path} holds no run")
        self.summary = read_json(path / SUMMARY_FILE, f"the run in {path} has not ended")
        self._tables: dict[str, Columns] = {}
        missing = [name for name in TABLES if not (path / f"{name}.parquet").is_file()]
        if missing:
            raise ConfigError(
                "config.unreadable",
                f"{path}: there is no {missing[0]}.parquet; run it again without --no-tables",
            )

    def __getitem__(self, table: str) -> Columns:
        if table not in self._tables:
            path = self.path / f"{table}.parquet"
            try:
                read = need("pyarrow.parquet").read_table(path)
            except (OSError, ValueError) as error:
                raise ConfigError("config.unreadable", f"{path}: {error}") from error
            names = read.column_names
            self._tables[table] = {
                name: read[name].to_numpy() for name, _, _ in TABLES[table] if name in names
            }
        return self._tables[table]

    # --- what is asked for again and again -------------------------------------------------

    @cached_property
    def regions(self) -> Array:
        """The region of each node."""
        return self["nodes"]["region"]

    @cached_property
    def groups(self) -> Array:
        """The group of each node; empty for a relay."""
        return self["nodes"]["group"]

    @cached_property
    def providers(self) -> Array:
        """The numbers of the nodes that sell."""
        nodes = self["nodes"]
        sellers: Array = nodes["node"][nodes["role"] == "provider"]
        return sellers

    @cached_property
    def revenue_ucr(self) -> Array:
        """What each provider got for its jobs, in the order of `providers`."""
        jobs = self["jobs"]
        of_node = np.zeros(len(self.groups), dtype=np.int64)
        paid = jobs["provider"] >= 0
        np.add.at(of_node, jobs["provider"][paid], jobs["paid_ucr"][paid])
        return of_node[self.providers]

    def groups_of(self, role: str) -> list[str]:
        """The groups of a role, in their order in the table of nodes' first members."""
        nodes = self["nodes"]
        return list(dict.fromkeys(nodes["group"][nodes["role"] == role].tolist()))

    def by_group(self, groups: list[str], nodes: Array) -> Iterator[tuple[str, Array]]:
        """Each group, and which of `nodes` are in it."""
        of_node = self.groups[nodes]
        for group in groups:
            yield group, of_node == group


def read_json(path: Path, otherwise: str) -> dict[str, Any]:
    """The object in a file; ConfigError, which says `otherwise`, when there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{otherwise} ({path.name}: {error})") from error
    if not isinstance(found, dict):
        raise ConfigError("config.unreadable", f"{otherwise} ({path.name} is not an object)")
    return found


# --- figures of a market ---------------------------------------------------------------------


def hhi(shares: Array) -> int:
    """Herfindahl and Hirschman's index of amounts, 0..10,000: the sum of squared percentages."""
    total = float(shares.sum())
    return round(float(((shares * 100 / total) ** 2).sum())) if total else 0


def gini(amounts: Array) -> float:
    """Gini's coefficient of amounts that are not negative: 0 all alike, towards 1 one has all."""
    ordered = np.sort(amounts).astype(float)
    count, total = len(ordered), float(ordered.sum())
    if not count or not total:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float((2 * (ranks * ordered).sum()) / (count * total) - (count + 1) / count)


def seconds(times_ns: Array) -> Array:
    """ns as seconds."""
    return times_ns / NS_PER_S
