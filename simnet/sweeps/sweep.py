"""Runs a plan on workers here or elsewhere, and goes on where an earlier one was stopped.

A run that is there, of the same scenario, seed and commit, is not run again. What a worker gives
back is the summary; who started it writes it, so a directory with a summary is a whole run.
"""

import csv
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigError
from simnet.runs import directory as run_directory
from simnet.runs.estimate import MIB, estimate
from simnet.scenario import file as scenario_file
from simnet.sweeps.on_dask import on_dask
from simnet.sweeps.on_ray import on_ray
from simnet.sweeps.plan import Plan
from simnet.sweeps.processes import pool
from simnet.sweeps.work import Engine, Place, Work

SWEEP_FILE: Final = "sweep.json"
RESULTS_FILE: Final = "results.csv"


Done = Callable[[Work, dict[str, Any]], None]
Rows = dict[tuple[int, int], dict[str, Any]]  # by point and seed

ENGINES: Final[Mapping[str, Engine]] = {"pool": pool, "ray": on_ray, "dask": on_dask}


def run(
    plan: Plan, out: Path, *, engine: str, place: Place, tables: bool, check: str, told: Done
) -> list[dict[str, Any]]:
    """Run what is missing of a plan; every run's row, by point and seed.

    ConfigError: what is wrong with the plan or the place; NetworkError: workers were lost.
    """
    items = _items(plan, out, tables, check)
    commit = run_directory.commit()
    rows: Rows = {}
    missing = []
    for item in items:
        summary = _kept(plan, item, commit)
        if summary is None:
            missing.append(item)
        else:
            rows[item.point, item.seed] = summary

    def begin(item: Work) -> None:
        if item is missing[0]:
            place.hear(_expected(plan))
        _begin(plan, item)

    place = replace(place, starts=begin)
    try:
        with closing(ENGINES[engine](missing, place)) as ended:
            for item, summary in ended if missing else ():
                summary["run_dir"] = item.directory
                run_directory.end(Path(item.directory), summary)
                rows[item.point, item.seed] = summary
                told(item, summary)
    finally:
        if rows:
            _write(plan, out, items, rows)
    return [rows[item.point, item.seed] for item in items]


def _expected(plan: Plan) -> str:
    """What all runs of a plan will take, roughly."""
    each = [estimate(point.scenario) for point in plan.points]
    runs, cpu_s = len(each) * len(plan.seeds), sum(one.cpu_s for one in each) * len(plan.seeds)
    most = max(one.memory_bytes for one in each) // MIB
    return f"{runs} runs: about {cpu_s:.0f} CPU s in all, {most} MiB at most each"


def _items(plan: Plan, out: Path, tables: bool, check: str) -> list[Work]:
    items = []
    for number, point in enumerate(plan.points):
        slug = re.sub(r"[^a-z0-9]+", "-", point.name.lower()).strip("-")[:48]
        text = scenario_file.write(point.scenario, comments=False).encode()
        for seed in plan.seeds:
            folder = out / "runs" / f"{number:03}-{slug}-{seed}"
            beside = str(plan.beside.resolve())
            items.append(Work(number, seed, text, beside, str(folder), tables, check))
    return items


def _kept(plan: Plan, item: Work, commit: str) -> dict[str, Any] | None:
    """The summary of a run that need not be run again."""
    folder = Path(item.directory)
    try:
        origin, summary = run_directory.read(folder)
        same = (folder / run_directory.SCENARIO_FILE).read_bytes() == item.scenario
    except (ConfigError, OSError):
        return None
    files = run_directory.digests(plan.points[item.point].scenario, plan.beside)
    told = (origin["seed"], origin["commit"], origin.get("files", {}))
    same = same and told == (item.seed, commit, files)
    if item.tables and not (folder / "jobs.parquet").exists():
        return None
    return summary if same and summary["complete"] else None


def _begin(plan: Plan, item: Work) -> None:
    """The directory of a run that is about to start."""
    folder, source = Path(item.directory), plan.beside / f"{plan.name}.toml"
    try:
        if (folder / run_directory.RUN_FILE).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run_directory.begin(folder, plan.points[item.point].scenario, item.seed, source)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{folder}: {error}") from error


def _write(plan: Plan, out: Path, items: list[Work], found: Rows) -> None:
    """`sweep.json`: points and summaries; `results.csv`: a row a run. Of the runs that ended."""
    ended = [item for item in items if (item.point, item.seed) in found]
    rows = [found[item.point, item.seed] for item in ended]
    told = {
        "scenario": plan.name,
        "complete": len(ended) == len(items),
        "seeds": plan.seeds,
        "points": [{"name": point.name, "set": point.changes} for point in plan.points],
        "runs": [
            {"point": item.point, "summary": row} for item, row in zip(ended, rows, strict=True)
        ],
    }
    (out / SWEEP_FILE).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    keys = list(dict.fromkeys(key for point in plan.points for key in point.changes))
    flat = [flattened(row) for row in rows]
    measures = list(dict.fromkeys(name for row in flat for name in row))
    with (out / RESULTS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["point", *keys, *measures])
        for item, row in zip(ended, flat, strict=True):
            point = plan.points[item.point]
            cells = [point.changes.get(key, "") for key in keys]
            writer.writerow([point.name, *cells, *(row.get(name, "") for name in measures)])


def flattened(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, flags and texts of a summary; those within by `outer.inner`."""
    found: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in flattened(value).items()}
        elif isinstance(value, int | float | str):
            found[name] = value
    return found
