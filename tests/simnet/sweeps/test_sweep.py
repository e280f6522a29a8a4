"""`simnet sweep`: points times seeds, resumed where it stopped, with intervals over seeds.

Source: simnet/README.md, "Sweeps".
"""

import csv
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from protocol.errors import ConfigError
from simnet.cli import main
from simnet.reports import plots_sweep
from simnet.scenario import file as scenario_file
from simnet.sweeps import plan as sweep_plan

TINY = """
nodes = 10
duration_s = 6
[[providers]]
name = "one"
count = 2
[[providers]]
name = "two"
count = 2
[[requesters]]
count = 3
"""
RING = """
nodes = 4
duration_s = 2
topology = { kind = "edges", path = "ring.csv" }
[[providers]]
count = 1
[[requesters]]
count = 1
"""
PLAN = """
scenario = "tiny.toml"
seeds = "4,6"
[set]
duration_s = 4
[[points]]
name = "short"
set = { "requesters.bid_window_ms" = 100 }
[[points]]
name = "long"
set = { "requesters.bid_window_ms" = 1000 }
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small scenario's file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def simnet(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_a_sweep_is_its_runs_and_goes_on_where_it_stopped(tiny: Path, tmp_path: Path) -> None:
    """Each run has the trace of `simnet run`; only what is missing runs again."""
    out = tmp_path / "sweep"
    sweep = ("sweep", str(tiny), "--set", "requesters.requests_per_s=1,2", "--seeds", "1..2")
    sweep = (*sweep, "--out", str(out), "--jobs", "2", "--json")
    status, told, said = simnet(*sweep)
    assert status == 0
    assert said.startswith("simnet: 4 runs: about 0 CPU s in all, ")
    assert {key: json.loads(told)[key] for key in ("runs", "new")} == {"runs": 4, "new": 4}
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = "requesters.requests_per_s"
    assert [(row[key], row["seed"]) for row in rows] == [
        ("1", "1"),
        ("1", "2"),
        ("2", "1"),
        ("2", "2"),
    ]
    place = ("--out", str(tmp_path / "again"))
    again = simnet("run", rows[3]["run_dir"] + "/scenario.toml", "--seed", "2", "--json", *place)
    assert json.loads(again[1])["trace_hash"] == rows[3]["trace_hash"]
    # As after a stop: one run has no end, another was of another seed.
    (Path(rows[1]["run_dir"]) / "summary.json").unlink()
    origin = Path(rows[2]["run_dir"]) / "run.json"
    assert json.loads(origin.read_text())["source"] == str(tiny)
    origin.write_text(origin.read_text().replace('"seed": 1', '"seed": 9'))
    first = (out / "sweep.html").read_bytes()
    assert json.loads(simnet(*sweep)[1])["new"] == 2
    with (out / "results.csv").open() as file:
        traces = [row["trace_hash"] for row in csv.DictReader(file)]
    assert traces == [row["trace_hash"] for row in rows]
    assert json.loads(simnet(*sweep)[1])["new"] == 0
    assert (out / "sweep.html").read_bytes() == first
    assert b"<svg" in first


def test_a_file_that_changed_is_run_again(tmp_path: Path) -> None:
    """What a scenario reads is part of it."""
    (tmp_path / "ring.csv").write_text("0 1\n1 2\n2 3\n")
    (tmp_path / "ring.toml").write_text(RING)
    sweep = ("sweep", str(tmp_path / "ring.toml"), "--seeds", "1", "--jobs", "1", "--json")
    place = ("--out", str(tmp_path / "sweep"))
    assert [json.loads(simnet(*sweep, *place)[1])["new"] for _ in range(2)] == [1, 0]
    (tmp_path / "ring.csv").write_text("0 1\n1 2\n2 3\n3 0\n")
    assert json.loads(simnet(*sweep, *place)[1])["new"] == 1


def test_a_plan_has_points_of_its_own(tiny: Path, tmp_path: Path) -> None:
    """Values for all, values of each, and flags that multiply them."""
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    plan = sweep_plan.read(str(path), ["nodes=10,12"], None)
    assert plan.seeds == (4, 6)
    assert [point.name for point in plan.points] == [
        "short, nodes 10",
        "short, nodes 12",
        "long, nodes 10",
        "long, nodes 12",
    ]
    assert {point.scenario.duration_s for point in plan.points} == {4}
    windows = [point.scenario.requesters[0].bid_window_ms for point in plan.points]
    assert windows == [100, 100, 1_000, 1_000]
    assert [point.scenario.nodes for point in plan.points] == [10, 12, 10, 12]


def test_a_key_names_all_tables_of_a_list_or_one(tiny: Path) -> None:
    """And makes tables that the file leaves out."""
    changes = {"providers.count": 3, "providers.two.gpu": "laptop", "gossip.scoring.enabled": True}
    scenario = scenario_file.load(tiny, changes)
    assert [(group.count, group.gpu) for group in scenario.providers] == [
        (3, "desktop"),
        (3, "laptop"),
    ]
    assert scenario.gossip.scoring.enabled


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "nodes"),
        ("--set", "nodes="),
        ("--set", "nodez=5"),
        ("--set", "nodes=5,many"),
        ("--set", "nodes.deep=5"),
        ("--set", "providers.two.gpu=abacus"),
        ("--seeds", "5..1"),
        ("--seeds", "1,1"),
        ("--seeds", "one"),
        ("--seeds", "1..99999999"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, str], tiny: Path, tmp_path: Path) -> None:
    """Status 2, before anything runs."""
    out = tmp_path / "sweep"
    status, told, error = simnet("sweep", str(tiny), "--out", str(out), *arguments)
    assert (status, told) == (2, "")
    assert error.startswith("simnet: config.")
    assert error.count("\n") == 1
    assert not out.exists()


def test_bare_words_are_values_too() -> None:
    """TOML where it is, words where it is not."""
    assert sweep_plan.parse_set("a.b=1,2.5,true") == ("a.b", [1, 2.5, True])
    assert sweep_plan.parse_set("pricing=fixed, cost-plus") == ("pricing", ["fixed", "cost-plus"])
    with pytest.raises(ConfigError):
        sweep_plan.parse_set("=1")


def test_an_interval_is_students() -> None:
    """Known figures: 1..5 is 3 ± 2.776 · 1.5811 / √5; one seed says nothing about spread."""
    five = plots_sweep.interval([1, 2, 3, 4, 5])
    assert five.mean == 3
    assert five.half == pytest.approx(1.963, abs=0.001)
    assert plots_sweep.interval([7, 7, 7]) == plots_sweep.Interval(7, 0)
    assert math.isnan(plots_sweep.interval([7]).half)
