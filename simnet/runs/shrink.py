"""Looks for a smaller scenario in which the same rule breaks, with the same seed.

Greedy: of each round's changes, largest first, the first that still fails is kept, until none
does. What it ends with is smaller, not the smallest.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.runs.runner import Check, Run
from simnet.scenario import Scenario
from simnet.scenario.misfits import fitted, misfits
from simnet.scenario.network import Topology
from simnet.scenario.roles import NETWORK

TRIES_MAX: Final = 100


def broken(summary: dict[str, Any]) -> str:
    """The rule that broke first, without the numbers of this run; empty when none did."""
    if "failure" in summary:
        return str(summary["failure"]["rule"])
    return re.sub(r"\d+", "_", summary["faults"][0]) if summary["faults"] else ""


def shrink(
    scenario: Scenario,
    summary: dict[str, Any],
    beside: Path,
    *,
    check: Check = "every",
    tries_max: int = TRIES_MAX,
    told: Callable[[str], None] = lambda line: None,
) -> Scenario:
    """The smallest found in `tries_max` runs; the scenario itself when all smaller ones hold."""
    rule, seed = broken(summary), summary["seed"]
    tries = 0
    smaller = True
    while smaller:
        smaller = False
        for changed in map(fitted, _smaller(scenario, summary)):
            if tries >= tries_max or any(misfits(changed)):
                continue
            tries += 1
            try:
                found = Run(changed, seed, beside, check=check).go()
            except (ConfigError, ValueError):
                continue  # no such graph, for one
            if broken(found) == rule:
                scenario, summary, smaller = changed, found, True
                told(f"{tries}: {size(scenario)}")
                break
    return scenario


def size(scenario: Scenario) -> str:
    """How large a scenario is, in a few words."""
    sellers = sum(group.count for group in scenario.providers)
    askers = sum(group.count for group in scenario.requesters)
    return (
        f"{scenario.nodes} nodes, {sellers} sell, {askers} ask, {scenario.duration_s} s, "
        f"{len(scenario.faults)} faults, {len(scenario.adversaries)} adversaries"
    )


def _smaller(scenario: Scenario, summary: dict[str, Any]) -> Iterator[Scenario]:
    """Each way to make it smaller once, those that save most first."""
    failed_s = summary.get("failure", {}).get("at_ns", 0) // NS_PER_S + 1 - scenario.warmup_s
    if 0 < failed_s < scenario.duration_s:
        yield replace(scenario, duration_s=failed_s)
    for name in ("faults", "adversaries", "providers", "requesters"):
        values = getattr(scenario, name)
        if name in ("faults", "adversaries") or len(values) > 1:
            yield from (replace(scenario, **{name: less}) for less in _without_one(values))
    if scenario.duration_s > 1:
        yield replace(scenario, duration_s=scenario.duration_s // 2)
    yield from chain(_fewer(scenario, "providers"), _fewer(scenario, "requesters"))
    groups: tuple[Any, ...] = (*scenario.providers, *scenario.requesters)
    needed = sum(group.count for group in groups)
    needed += sum(kind.nodes for kind in scenario.adversaries if isinstance(kind, NETWORK))
    for nodes in (max(2, needed, scenario.nodes // 2), max(2, needed, scenario.nodes - 1)):
        if nodes < scenario.nodes:
            yield replace(scenario, nodes=nodes)
    plain = fitted(replace(scenario, topology=Topology()))
    if scenario.topology != plain.topology:
        yield plain


def _without_one(values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for index in range(len(values)):
        yield values[:index] + values[index + 1 :]


def _fewer(scenario: Scenario, name: str) -> Iterator[Scenario]:
    """Half of a group's members, or one fewer."""
    groups = getattr(scenario, name)
    for index, group in enumerate(groups):
        for count in sorted({group.count // 2, group.count - 1}):
            if 0 < count < group.count:
                less = replace(group, count=count)
                changed = (*groups[:index], less, *groups[index + 1 :])
                yield replace(scenario, **{name: changed})
