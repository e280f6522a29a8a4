"""Runs a plan on a pool of processes, and goes on where an earlier one was stopped.

A run that is there, of the same scenario, seed and commit, is not run again. What a worker gives
back is the summary; who started it writes it, so a directory with a summary is a whole run.
"""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigError
from simnet import run_directory, scenario_file
from simnet.recorder import Recorder
from simnet.runner import Run
from simnet.sweep_plan import Plan, Point

SWEEP_FILE: Final = "sweep.json"
RESULTS_FILE: Final = "results.csv"


@dataclass(frozen=True, slots=True)
class Work:
    """One run, as it is handed to a worker."""

    point: int
    seed: int
    scenario: bytes  # TOML, resolved
    beside: str
    directory: str
    tables: bool
    check: str


Done = Callable[[Work, dict[str, Any]], None]
Engine = Callable[[Sequence[Work], int], Iterator[tuple[Work, dict[str, Any]]]]


def work(item: Work) -> dict[str, Any]:
    """Do one run; its summary. Runs in a process of its own."""
    scenario = scenario_file.parse(item.scenario)
    recorder = Recorder(Path(item.directory) if item.tables else None)
    check: Any = item.check
    summary = Run(scenario, item.seed, Path(item.beside), recorder, check=check).go()
    recorder.close()
    return summary


def pool(items: Sequence[Work], jobs: int) -> Iterator[tuple[Work, dict[str, Any]]]:
    """All of it on processes of this machine, in the order in which they end."""
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        waiting: dict[Future[dict[str, Any]], Work] = {}
        queue = list(reversed(items))
        while queue or waiting:
            while queue and len(waiting) < jobs:
                item = queue.pop()
                waiting[executor.submit(work, item)] = item
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


ENGINES: Final[Mapping[str, Engine]] = {"pool": pool}


def run(
    plan: Plan, out: Path, *, jobs: int, engine: str, tables: bool, check: str, told: Done
) -> list[dict[str, Any]]:
    """Run what is missing of a plan; every run's row, by point and seed. ConfigError."""
    items = _items(plan, out, tables, check)
    commit = run_directory.commit()
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    missing = []
    for item in items:
        summary = _kept(item, commit)
        if summary is None:
            missing.append(item)
        else:
            rows[item.point, item.seed] = summary
    for item in missing:
        _begin(item, plan.points[item.point], commit)
    for item, summary in ENGINES[engine](missing, jobs or os.cpu_count() or 1):
        summary["run_dir"] = item.directory
        run_directory.end(Path(item.directory), summary)
        rows[item.point, item.seed] = summary
        told(item, summary)
    ordered = [rows[item.point, item.seed] for item in items]
    _write(plan, out, items, ordered)
    return ordered


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


def _kept(item: Work, commit: str) -> dict[str, Any] | None:
    """The summary of a run that need not be run again."""
    folder = Path(item.directory)
    try:
        origin, summary = run_directory.read(folder)
        same = (folder / run_directory.SCENARIO_FILE).read_bytes() == item.scenario
    except (ConfigError, OSError):
        return None
    same = same and (origin["seed"], origin["commit"]) == (item.seed, commit)
    if item.tables and not (folder / "jobs.parquet").exists():
        return None
    return summary if same and summary["complete"] else None


def _begin(item: Work, point: Point, commit: str) -> None:
    folder = Path(item.directory)
    try:
        if (folder / run_directory.RUN_FILE).exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        run_directory.begin(folder, point.scenario, item.seed, Path(item.beside))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{folder}: {error}") from error


def _write(plan: Plan, out: Path, items: list[Work], rows: list[dict[str, Any]]) -> None:
    """`sweep.json`: points and summaries; `results.csv`: a row a run."""
    told = {
        "scenario": plan.name,
        "seeds": plan.seeds,
        "points": [{"name": point.name, "set": point.changes} for point in plan.points],
        "runs": [
            {"point": item.point, "summary": row} for item, row in zip(items, rows, strict=True)
        ],
    }
    (out / SWEEP_FILE).write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    keys = list(dict.fromkeys(key for point in plan.points for key in point.changes))
    flat = [flattened(row) for row in rows]
    measures = list(dict.fromkeys(name for row in flat for name in row))
    with (out / RESULTS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["point", *keys, *measures])
        for item, row in zip(items, flat, strict=True):
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
