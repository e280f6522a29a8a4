"""The `simnet` command: real runs, repeatable by seed; wrong input in one line.

Source: simnet/README.md, "Commands".
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from simnet import cli
from simnet.cli import main
from simnet.recording.tables import TABLES

PROMISED = (
    "scenario",
    "seed",
    "trace_hash",
    "events",
    "virtual_s",
    "cpu_s",
    "events_per_cpu_s",
    "rss_mib",
    "requests",
    "awarded",
    "failed",
    "paid_ucr",
    "checks_ok",
    "run_dir",
)
TINY = "nodes = 8\nduration_s = 4\n[[providers]]\ncount = 3\n[[requesters]]\ncount = 2\n"


def simnet(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small scenario's file."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def run(scenario: Path | str, out: Path, *more: str) -> dict[str, object]:
    """The summary of one run."""
    status, told, _ = simnet("run", str(scenario), "--out", str(out), "--json", *more)
    assert status == 0
    summary: dict[str, object] = json.loads(told)
    return summary


def test_hello_runs_and_says_what_it_promises(tmp_path: Path) -> None:
    """One object on stdout; every request served; the books balance."""
    summary = run("hello", tmp_path / "out")
    assert set(PROMISED) <= set(summary)
    assert summary["scenario"] == "hello"
    assert summary["checks_ok"] is True
    assert summary["requests"] == summary["awarded"] == summary["done"]
    assert int(str(summary["requests"])) > 10


def test_the_directory_of_a_run_holds_the_whole_of_it(tiny: Path, tmp_path: Path) -> None:
    """Scenario, origin, summary, and each table with the columns that are documented."""
    out = tmp_path / "out"
    summary = run(tiny, out, "--seed", "5")
    assert json.loads((out / "summary.json").read_text()) == summary
    origin = json.loads((out / "run.json").read_text())
    assert origin["seed"] == 5
    assert origin["versions"]["python"]
    rows = {}
    for name, columns in TABLES.items():
        table = pyarrow.parquet.read_table(out / f"{name}.parquet")
        assert table.column_names == [column for column, _, _ in columns]
        rows[name] = table.num_rows
    assert rows["nodes"] == 8
    assert rows["jobs"] == rows["requests"] == summary["requests"]
    assert rows["bids"] == summary["bids"]
    assert rows["deliveries"] == summary["gossip"]["deliveries"]  # type: ignore[index]
    again = run(out / "scenario.toml", tmp_path / "again", "--seed", "5")
    assert again["trace_hash"] == summary["trace_hash"]


def test_another_seed_is_another_run_and_tables_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """Looking on does not disturb."""
    first = run(tiny, tmp_path / "1")["trace_hash"]
    assert run(tiny, tmp_path / "2", "--no-tables")["trace_hash"] == first
    assert not (tmp_path / "2" / "jobs.parquet").exists()
    assert run(tiny, tmp_path / "3", "--seed", "2")["trace_hash"] != first


def test_a_replay_says_where_it_stands(tiny: Path, tmp_path: Path) -> None:
    """One object: the step, the node, what led there and what it held."""
    out = tmp_path / "out"
    run(tiny, out, "--no-tables")
    arguments = ("replay", str(out), "--step", "30", "--node", "2")
    status, told, _ = simnet(*arguments, "--json")
    found = json.loads(told)
    assert status == 0
    assert (found["step"], found["node"], found["seed"], found["failure"]) == (30, 2, 1, None)
    assert found["lines"] == simnet(*arguments)[1].splitlines()


def test_a_run_is_never_written_over(tiny: Path, tmp_path: Path) -> None:
    """The same --out again is refused; without --out each run has a place of its own."""
    out = tmp_path / "out"
    run(tiny, out, "--no-tables")
    status, _, told = simnet("run", str(tiny), "--out", str(out))
    assert status == 2
    assert told.startswith("simnet: config.exists: ")


def test_what_does_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    """With the estimate, and nothing made."""
    out = tmp_path / "out"
    status, told, error = simnet("run", "tenthousand", "--out", str(out), "--memory-mib", "50")
    assert (status, told) == (2, "")
    assert error.startswith("simnet: config.too_large: tenthousand: about ")
    assert not out.exists()


def test_what_grows_too_large_stops_and_is_kept(tiny: Path, tmp_path: Path) -> None:
    """The estimate may be wrong: the bound holds during the run too."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_check_memory", lambda *_: 1)
        status, told, _ = simnet("run", str(tiny), "--out", str(out), "--json")
    summary = json.loads(told)
    assert status == 1
    assert (summary["complete"], summary["stopped_by"]) == (False, "memory")
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "jobs.parquet").exists()


def test_scenarios_are_listed_checked_and_begun(tmp_path: Path) -> None:
    """What init writes is valid, runs, and is not written over."""
    status, told, _ = simnet("list", "--json")
    names = [row["name"] for row in json.loads(told)]
    assert status == 0
    assert {"hello", "thousand", "tenthousand", "regions"} <= set(names)
    mine = str(tmp_path / "mine.toml")
    status, told, _ = simnet("init", mine, "--json")
    assert (status, json.loads(told)) == (0, {"scenario": "hello", "file": mine})
    status, told, _ = simnet("validate", mine, "--json")
    assert status == 0
    assert json.loads(told)["valid"] is True
    assert simnet("init", mine)[0] == 2
    assert all(name in simnet("list")[1] for name in names)


def test_a_name_that_is_nearly_right_gets_a_hint() -> None:
    """One line, status 2."""
    status, _, error = simnet("run", "helo")
    assert status == 2
    assert "did you mean hello?" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_what_there_is_and_marks_it(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in mid-run: a summary, readable tables, status 1."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from simnet.cli import main; main()", "run", "thousand"]
    with subprocess.Popen(
        [*command, "--out", str(out), "--json"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (out / "run.json").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        told, error = process.communicate(timeout=60)
    summary = json.loads(told)
    assert process.returncode == 1
    assert "stopping" in error
    assert (summary["complete"], summary["stopped_by"]) == (False, number.name)
    assert summary["checks_ok"] is False
    assert pyarrow.parquet.read_table(out / "jobs.parquet").num_rows <= summary["requests"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("run", "hello", "--tier", "nope"), "config.usage"),
        (("run",), "config.usage"),
        (("nope",), "config.usage"),
        (("validate", "no-such-file"), "config.unreadable"),
    ],
)
def test_wrong_use_is_one_line_and_an_object(
    arguments: tuple[str, ...], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json the object is on stdout, as of `peerd`."""
    monkeypatch.setattr(sys, "argv", ["simnet", *arguments, "--json"])
    status, out, err = simnet(*arguments)
    assert status == 2
    assert err.startswith(f"simnet: {code}: ")
    assert err.count("\n") == 1
    assert json.loads(out)["error"] == code
