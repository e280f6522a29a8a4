"""`simnet sweep` (floor F5): many runs, and what differs between them."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from protocol.errors import NetworkError
from simnet.cli.status import plainly
from simnet.reports import plots_sweep
from simnet.reports.drawing import to_png, to_svg
from simnet.reports.page import card, page, table
from simnet.reports.report import standalone, write_page
from simnet.sweeps import plan as sweep_plan
from simnet.sweeps import sweep
from simnet.sweeps.work import Place, Work

PAGE_FILE = "sweep.html"


@click.command("sweep")
@click.argument("scenario", metavar="NAME|FILE")
@click.option("--set", "sets", multiple=True, metavar="KEY=V1,V2", help="Every combination.")
@click.option("--seeds", metavar="1..5", help="Of each point  [default: 1..3]")
@click.option("--out", metavar="DIR", help="Where  [default: simnet-runs/sweep-NAME]")
@click.option("--jobs", type=click.IntRange(1, 1_024), help="Processes  [default: all cores]")
@click.option("--engine", type=click.Choice([*sweep.ENGINES]), default="pool", show_default=True)
@click.option("--cluster", metavar="ADDRESS", help="Ray's or Dask's  [default: one begun here]")
@click.option("--tables", is_flag=True, help="Keep each run's Parquet tables.")
@click.option("--check", type=click.Choice(["every", "end", "off"]), default="end")
@click.option("--plots", type=click.Choice(["png", "svg"]), help="Each plot as a file too.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@plainly
def sweep_command(
    scenario: str,
    sets: tuple[str, ...],
    seeds: str | None,
    out: str | None,
    jobs: int | None,
    engine: str,
    cluster: str | None,
    tables: bool,
    check: str,
    plots: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a scenario with other values and seeds; the same command goes on after a stop."""
    plan = sweep_plan.read(scenario, sets, seeds)
    folder = Path(out or f"simnet-runs/sweep-{Path(scenario).stem}")
    total, done = len(plan.points) * len(plan.seeds), 0

    def told(item: Work, summary: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if not quiet:
            name = plan.points[item.point].name
            say = f"{name}, seed {item.seed}: {summary['done']}/{summary['requests']} done"
            click.echo(f"[{done} new of {total}] {say}", err=True)

    def hear(line: str) -> None:
        if not quiet:
            click.echo(f"simnet: {line}", err=True)

    place = Place(jobs or 0, cluster or "", hear)
    try:
        with _stoppable():
            rows = sweep.run(
                plan, folder, engine=engine, place=place, tables=tables, check=check, told=told
            )
    except (KeyboardInterrupt, NetworkError) as error:
        if isinstance(error, NetworkError):
            click.echo(f"simnet: {error.code}: {error.detail}", err=True)
        click.echo(f"simnet: stopped after {done} runs; the same command goes on", err=True)
        sys.exit(1)
    names = [point.name for point in plan.points]
    numbered = [(number // len(plan.seeds), row) for number, row in enumerate(rows)]
    found = plots_sweep.by_point(names, numbered)
    _draw(plan, folder, names, found, plots)
    failed = [row["run_dir"] for row in rows if not row["checks_ok"]]
    if as_json:
        measures = {
            name: {key: {"mean": one.mean, "half": one.half} for key, one in row.items()}
            for name, row in zip(names, found, strict=True)
        }
        told_all = {"sweep": str(folder), "runs": total, "new": done, "failed_checks": failed}
        click.echo(json.dumps(told_all | {"points": measures}))
    else:
        click.echo(_lines(names, found))
        click.echo(f"{total} runs, {done} new; in {folder}: {PAGE_FILE}, {sweep.RESULTS_FILE}")
        for path in failed:
            click.echo(f"CHECKS FAILED in {path}")
    if failed:
        sys.exit(1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _rows(names: list[str], found: list[dict[str, plots_sweep.Interval]]) -> list[list[str]]:
    rows = []
    for name, row in zip(names, found, strict=True):
        cells = [name]
        for measure, _ in plots_sweep.MEASURES:
            one = row.get(measure)
            cells.append("-" if one is None else _told(one))
        rows.append(cells)
    return rows


def _told(one: plots_sweep.Interval) -> str:
    half = "" if one.half != one.half else f" ±{one.half:.2g}"
    return f"{one.mean:.4g}{half}"


def _lines(names: list[str], found: list[dict[str, plots_sweep.Interval]]) -> str:
    """A table for a terminal."""
    head = ["point", *(name for name, _ in plots_sweep.MEASURES)]
    rows = [head, *_rows(names, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    pad = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(pad)


def _draw(
    plan: sweep_plan.Plan,
    folder: Path,
    names: list[str],
    found: list[dict[str, plots_sweep.Interval]],
    kind: str | None,
) -> None:
    drawn = plots_sweep.draw(names, found)
    head = ["point", *(label for _, label in plots_sweep.MEASURES)]
    rest = card("All figures, mean and 95 % interval", table(_rows(names, found), head))
    about = f"{len(names)} points, {len(plan.seeds)} seeds each"
    whole = page(f"{plan.name}: a sweep", about, (), drawn, rest)
    write_page(folder / PAGE_FILE, whole.encode())
    for plot in drawn if kind else ():
        data = to_png(plot.drawn) if kind == "png" else standalone(to_svg(plot.drawn))
        write_page(folder / "plots" / f"{plot.name}.{kind}", data)
