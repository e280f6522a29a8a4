"""The `simnet` command (floor F5): scenarios run, listed, checked, begun."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.cli.results import compare_command, report_command
from simnet.cli.status import OneLineGroup, plainly, told
from simnet.cli.sweep import sweep_command
from simnet.recording.recorder import Recorder
from simnet.reports.report import REPORT_FILE, write_report
from simnet.reports.tables_read import RunTables
from simnet.runs import directory as run_directory
from simnet.runs.estimate import MIB, estimate, memory_available_bytes
from simnet.runs.progress import Progress
from simnet.runs.replay import Replay
from simnet.runs.runner import Check, Run
from simnet.runs.shrink import shrink
from simnet.scenario import Scenario
from simnet.scenario import file as scenario_file
from simnet.scenario.named_files import NamedFiles
from simnet.simulation import EPOCH_NS, Simulation
from simnet.tiers.command import calibrate_command

LONG_CPU_S = 60.0


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peerd", message="%(prog)s %(version)s")
def main() -> None:
    """Run whole markets of production nodes on virtual time."""


main.add_command(report_command)
main.add_command(compare_command)
main.add_command(sweep_command)
main.add_command(calibrate_command)


# --- run -----------------------------------------------------------------------------------------


@contextmanager
def _stoppable(run: Run) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run at its next pause; a second one ends the process."""

    def stop(number: int, _frame: Any) -> None:
        if run.stop:
            raise KeyboardInterrupt
        run.stop = signal.Signals(number).name
        # Not click: the handler may interrupt the progress line as it is written.
        os.write(2, b"\nsimnet: stopping; what there is will be kept\n")

    before = [(name, signal.signal(name, stop)) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for name, handler in before:
            signal.signal(name, handler)


def _check_memory(scenario: Scenario, memory_mib: int | None, quiet: bool) -> int:
    """The bound in bytes. ConfigError when the run would not fit; a long one is announced."""
    expected = estimate(scenario)
    bound = memory_mib * MIB if memory_mib else memory_available_bytes()
    if expected.memory_bytes > bound:
        raise ConfigError(
            "config.too_large",
            f"{scenario.name}: about {expected.memory_bytes // MIB} MiB for {scenario.nodes} "
            f"nodes and {expected.requests} requests, and {bound // MIB} MiB are free; "
            "take fewer, or raise --memory-mib if you know better",
        )
    if expected.cpu_s > LONG_CPU_S and not quiet:
        click.echo(
            f"simnet: about {expected.events / 1e6:.0f} M events, "
            f"{expected.cpu_s / 60:.0f} min of CPU time, {expected.memory_bytes // MIB} MiB",
            err=True,
        )
    return bound


@main.command("run")
@click.argument("scenario", metavar="NAME|FILE")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True)
@click.option("--out", metavar="DIR", help="Where to put the run  [default: simnet-runs/...]")
@click.option(
    "--tier",
    type=click.Choice(["des", "trio", "live"]),
    default="des",
    show_default=True,
    help="des: cores on an event heap; trio: whole daemons on virtual time, checked against "
    "des; live: whole daemons with libp2p on loopback.",
)
@click.option("--no-tables", is_flag=True, help="Only the summary, no Parquet.")
@click.option("--report", "as_report", is_flag=True, help="Draw it too: report.html.")
@click.option("--memory-mib", type=click.IntRange(1), help="Refuse and stop at this much memory.")
@click.option(
    "--check",
    type=click.Choice(["every", "end", "off"]),
    default="every",
    show_default=True,
    help="What must hold is checked after every step, at the end, or not.",
)
@click.option(
    "--shrink", "shrinks", is_flag=True, help="If a check fails, look for a smaller scenario."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def run_command(
    scenario: str,
    seed: int,
    out: str | None,
    tier: str,
    no_tables: bool,
    as_report: bool,
    memory_mib: int | None,
    check: Check,
    shrinks: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a scenario; equal scenarios, seeds and commits give equal trace hashes (not live)."""
    if as_report and no_tables:
        raise ConfigError("config.bad_value", "--report draws tables; leave out --no-tables")
    if shrinks and tier != "des":
        raise ConfigError("config.bad_value", "--shrink looks for runs of --tier des")
    source = scenario_file.find(scenario)
    loaded = scenario_file.load(source)
    bound = _check_memory(loaded, memory_mib, quiet)
    made = Run if tier == "des" else _shell(tier, loaded)
    directory = run_directory.choose(out, loaded.name, seed)
    recorder = Recorder(None if no_tables else directory)
    total_s = loaded.warmup_s + loaded.duration_s
    progress = Progress(quiet=quiet, total_ns=total_s * NS_PER_S)

    def watch(simulation: Simulation) -> None:
        totals = simulation.market.totals
        passed_ns = simulation.clock.now_ns - EPOCH_NS
        ended = totals.done + totals.failed
        progress.show(passed_ns, simulation.clock.events, totals.requests, ended)

    run = made(loaded, seed, source.parent, recorder, bound, watch, check=check)
    with _stoppable(run):
        run_directory.begin(directory, loaded, seed, source, tier)
        summary = run.go()
        recorder.close()
    progress.done()
    summary["run_dir"] = str(directory)
    if shrinks and summary["faults"]:
        summary["shrunk"] = str(_shrunk(run, summary, directory, quiet=quiet))
    run_directory.end(directory, summary)
    if as_report:
        write_report(RunTables(directory), directory / REPORT_FILE)
    click.echo(json.dumps(summary) if as_json else told(summary))
    if not summary["checks_ok"]:
        sys.exit(1)


def _shell(tier: str, scenario: Scenario) -> type[Run]:
    """The run of another tier. ConfigError when the scenario is not for it."""
    # Here, as it takes a second to import libp2p.
    from simnet.tiers.tier import run_of

    return run_of(tier, scenario)


def _shrunk(run: Run, summary: dict[str, Any], directory: Path, *, quiet: bool) -> Path:
    """The file of a smaller scenario in which the same rule breaks."""

    def told(line: str) -> None:
        if not quiet:
            click.echo(f"simnet: still fails, run {line}", err=True)

    smaller = shrink(run.scenario, summary, run.beside, check=run.check, told=told)
    path = directory / "shrunk.toml"
    path.write_text(scenario_file.write(smaller, comments=False), "utf-8")
    return path


@main.command("replay")
@click.argument("run", metavar="RUN_DIR")
@click.option("--step", type=click.IntRange(1), help="Another step than the one that failed.")
@click.option("--node", type=click.IntRange(0), help="Another node than the one that failed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def replay_command(run: str, step: int | None, node: int | None, as_json: bool) -> None:
    """Run it again to just before a check failed, and show what led there."""
    path = Path(run)
    began, ended = run_directory.read(path)
    if began.get("tier", "des") != "des":
        what = f"{run} is a run of --tier {began['tier']}, which has no steps; run it in des"
        raise ConfigError("config.tier", what)
    failure = ended.get("failure", {})
    if not failure and (step is None or node is None):
        raise ConfigError("config.bad_value", f"no check failed in {run}; give --step and --node")
    here = run_directory.commit()
    if here != began["commit"]:
        click.echo(f"simnet: the run was made by {began['commit']}, this is {here}", err=True)
    step = failure["step"] if step is None else step
    node = failure["node"] if node is None else node
    beside = Path(began["source"]).parent
    loaded = scenario_file.load(path / run_directory.SCENARIO_FILE, files=NamedFiles(beside))
    lines = Replay(step, node).go(loaded, began["seed"], beside)
    if as_json:
        told = {"run_dir": run, "seed": began["seed"], "step": step, "node": node}
        click.echo(json.dumps(told | {"lines": lines, "failure": failure or None}))
        return
    for line in lines:
        click.echo(line)
    if failure:
        click.echo(f"then: {failure['rule']}: {failure['detail']}")


# --- scenarios -----------------------------------------------------------------------------------


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@plainly
def list_command(as_json: bool) -> None:
    """The scenarios that come with the package."""
    found = [(name, scenario_file.load(path)) for name, path in scenario_file.ready().items()]
    if as_json:
        rows = [
            {"name": name, "nodes": one.nodes, "description": one.description}
            for name, one in found
        ]
        click.echo(json.dumps(rows))
        return
    for name, one in found:
        expected = estimate(one)
        click.echo(f"{name:14} {one.nodes:6} nodes {expected.cpu_s:6.0f} CPU s  {one.description}")


@main.command("validate")
@click.argument("scenario", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def validate_command(scenario: str, as_json: bool) -> None:
    """Check a scenario file, and say what a run of it would take."""
    loaded = scenario_file.load(scenario_file.find(scenario))
    expected = estimate(loaded)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "scenario": loaded.name,
                    "valid": True,
                    "requests": expected.requests,
                    "events": expected.events,
                    "cpu_s": round(expected.cpu_s, 1),
                    "memory_mib": expected.memory_bytes // MIB,
                }
            )
        )
        return
    click.echo(
        f"{loaded.name}: valid; about {expected.requests} requests, {expected.events} events, "
        f"{expected.cpu_s:.0f} CPU s, {expected.memory_bytes // MIB} MiB"
    )


@main.command("init")
@click.argument("file", metavar="FILE")
@click.option("--from", "base", default="hello", show_default=True, metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def init_command(file: str, base: str, as_json: bool) -> None:
    """Write a scenario with every key, its value and its meaning, to change as you like."""
    path = Path(file)
    if path.exists():
        raise ConfigError("config.exists", f"{path} exists; choose another name")
    loaded = scenario_file.load(scenario_file.find(base))
    try:
        path.write_text(scenario_file.write(loaded, comments=True), "utf-8")
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error
    told = f"wrote {path}; run it with: simnet run {path}"
    click.echo(json.dumps({"scenario": loaded.name, "file": str(path)}) if as_json else told)
