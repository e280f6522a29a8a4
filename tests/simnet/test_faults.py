"""Faults of every kind: the market goes on, no rule breaks, and all is well when they stop.

Source: simnet/README.md, "Faults".
"""

from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.runs.runner import Run
from simnet.scenario import file as scenario_file
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
from simnet.scenario.market import Providers, Requesters
from simnet.simulation import EPOCH_NS, Simulation
from tests.simnet.test_simulation import scenario, summary_of

EACH: dict[str, AnyFault] = {
    "crash": Crash(nodes=5, at_s=2, for_s=2, every_s=3, lost_records=8),
    "churn": Churn(nodes=15, up_s=4, down_s=2, lost_records=8),
    "bimodal": Churn(nodes=15, up_s=4, down_s=2, shape="bimodal"),
    "clean": Partition(nodes=10, at_s=3, for_s=4),
    "one-way": Partition(nodes=10, at_s=3, for_s=4, shape="one-way"),
    "bridge": Partition(nodes=10, at_s=3, for_s=4, shape="bridge", bridges=2),
    "clog": Clog(nodes=10, at_s=2, delay_ms=700),
    "slow-disk": SlowDisk(group="providers", sync_ms=150),
    "skew": Skew(skew_ms=1_500),
    "slow-node": SlowNode(group="providers", nodes=5, slowdown_permille=6_000),
    "flash-crowd": FlashCrowd(group="requesters", requests=25, at_s=3),
}


@pytest.mark.parametrize("name", list(EACH))
def test_a_fault_hurts_and_is_over(name: str) -> None:
    """It happens, changes the run, breaks no rule; afterwards all requests and channels end."""
    calm = summary_of(scenario())
    told = summary_of(scenario(faults=(EACH[name],)))
    assert told["faults"] == []
    assert told["happened"]
    assert told["trace_hash"] != calm["trace_hash"]
    assert told["done"] > 0
    if name == "flash-crowd":
        assert told["requests"] == calm["requests"] + 25


def test_all_faults_at_once_give_one_trace() -> None:
    """A seed decides which nodes, when, and what is lost."""
    everything = scenario(faults=tuple(EACH.values()))
    told = summary_of(everything)
    assert told["faults"] == []
    assert sum(told["happened"].values()) >= len(EACH)
    assert summary_of(everything)["trace_hash"] == told["trace_hash"]


def watched(fault: AnyFault, seconds: dict[int, Any]) -> None:
    """Runs the small scenario with a fault, and looks at it at seconds after its first request."""

    def prepare(simulation: Simulation) -> None:
        start_ns = EPOCH_NS + simulation.scenario.warmup_s * NS_PER_S
        for second, look in seconds.items():
            simulation.clock.at(start_ns + second * NS_PER_S, look, simulation)

    Run(scenario(faults=(fault,)), 1, Path(), prepare=prepare).go()


def test_a_partition_cuts_between_its_sides_for_its_time() -> None:
    """One way or both, and not at all for bridges; before and after, all reach all."""
    seen: list[tuple[int, int, int]] = []

    def look(simulation: Simulation) -> None:
        blocked, nodes = simulation.links.blocked, range(30)
        if blocked is None:
            seen.append((0, 0, 0))
            return
        pairs = [(one, other) for one in nodes for other in nodes if blocked(one, other)]
        both = sum((other, one) in pairs for one, other in pairs)
        reaching = sum(all(one not in pair for pair in pairs) for one in nodes)
        seen.append((len(pairs), both, reaching))

    looks = {2: look, 5: look, 8: look}
    for shape in ("clean", "one-way"):
        watched(Partition(nodes=10, at_s=3, for_s=4, shape=shape), looks)  # type: ignore[arg-type]
    assert seen == [(0,) * 3, (400, 400, 0), (0,) * 3, (0,) * 3, (200, 0, 0), (0,) * 3]
    seen.clear()
    watched(Partition(nodes=10, at_s=3, for_s=4, shape="bridge", bridges=3), looks)
    assert seen[1][2] == 3


def test_a_crash_takes_nodes_down_for_its_time() -> None:
    """Exactly those of the group, and they come back."""
    down: list[int] = []

    def look(simulation: Simulation) -> None:
        dead = [peer.index for peer in simulation.peers if not peer.alive]
        assert set(dead) <= set(simulation.roles.members["providers"])
        down.append(len(dead))

    crash = Crash(group="providers", nodes=4, at_s=3, for_s=4)
    watched(crash, {2: look, 5: look, 8: look})
    assert down == [0, 4, 0]


def test_slow_disks_and_slow_machines_delay_the_first_text() -> None:
    """What a sync or a prefill takes is what a requester waits for."""
    calm = summary_of(scenario())["first_text_ms"]["p50"]
    for fault in (SlowDisk(sync_ms=150), EACH["clog"], SlowNode(slowdown_permille=20_000)):
        assert summary_of(scenario(faults=(fault,)))["first_text_ms"]["p50"] > calm


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('kind = "crahs"', "'crahs': expected 'crash'"),
        ('kind = "crash"\nlost_recods = 3', "did you mean lost_records?"),
        ('kind = "crash"\ngroup = "nobody"', "there is no 'nobody'"),
        ('kind = "partition"', "needs group or nodes"),
        ('kind = "flash-crowd"\ngroup = "providers"', "there are requesters"),
    ],
)
def test_a_wrong_fault_is_named_with_its_line(tmp_path: Path, table: str, expected: str) -> None:
    """One line: where, and what was expected."""
    path = tmp_path / "wrong.toml"
    path.write_text(f"nodes = 40\n\n[[faults]]\n{table}\n")
    with pytest.raises(ConfigError, match=r"wrong.toml:[345]: faults") as raised:
        scenario_file.load(path)
    assert expected in str(raised.value)


def test_faults_survive_writing_and_reading(tmp_path: Path) -> None:
    """The resolved scenario of a run has them all."""
    path = tmp_path / "all.toml"
    given = scenario(faults=tuple(EACH.values()))
    path.write_text(scenario_file.write(given, comments=True))
    assert scenario_file.load(path) == given


@pytest.mark.parametrize("name", ["churn", "partition"])
def test_the_ready_scenario_holds(name: str) -> None:
    """At a size that a test can have."""
    loaded = scenario_file.load(scenario_file.find(name))
    groups = {"providers": (Providers(count=10),), "requesters": (Requesters(count=10),)}
    small = scenario(nodes=40, duration_s=45, faults=loaded.faults, **groups)
    told = summary_of(small)
    assert told["faults"] == []
    assert told["happened"]
