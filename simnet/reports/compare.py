"""Two runs beside each other: what was set otherwise, and what came of it."""

import tomllib
from pathlib import Path
from typing import Any, Final

import numpy as np

from protocol.errors import ConfigError
from protocol.units import NS_PER_MS
from simnet.reports.drawing import COLOURS, cdf, cdf_axes, figure, legend
from simnet.reports.page import card, page, table
from simnet.reports.plots_market import Plot
from simnet.reports.plots_sweep import MEASURES, measured
from simnet.reports.report import write_page
from simnet.reports.tables_read import RunTables, gini, hhi, read_json
from simnet.runs.directory import SCENARIO_FILE

PROPAGATION: Final = "ms from publication to admission"


def differences(one: Path, other: Path) -> list[tuple[str, str, str]]:
    """The keys of two resolved scenarios that differ, with their values."""
    left, right = _keys(one), _keys(other)
    return [
        (key, str(left.get(key, "-")), str(right.get(key, "-")))
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    ]


def _keys(folder: Path) -> dict[str, Any]:
    path = folder / SCENARIO_FILE
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("config.unreadable", f"{folder} holds no run ({error})") from error
    return dict(_flat(content, ""))


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        inner = [(f"{path}.{key}".lstrip("."), one) for key, one in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        named = [one.get("name", number) for number, one in enumerate(value)]
        inner = [(f"{path}.{name}", one) for name, one in zip(named, value, strict=True)]
    else:
        return [(path, value)]
    return [pair for key, one in inner for pair in _flat(one, key)]


def figures(folders: tuple[Path, Path]) -> list[tuple[str, float, float]]:
    """The measures that both runs have: label, of the one, of the other."""
    found = []
    for folder in folders:
        summary = read_json(folder / "summary.json", f"{folder} holds no run that ended")
        row = measured(summary)
        if (folder / "jobs.parquet").exists():
            revenue_ucr = RunTables(folder).revenue_ucr
            row |= {"hhi": float(hhi(revenue_ucr)), "gini": round(gini(revenue_ucr), 4)}
        found.append(row)
    left, right = found
    labels = [*MEASURES, ("hhi", "concentration of revenue, HHI"), ("gini", "Gini of revenue")]
    return [
        (label, left[key], right[key]) for key, label in labels if key in left and key in right
    ]


def change(one: float, other: float) -> str:
    """From the one to the other, in percent."""
    return "=" if one == other else f"{(other / one - 1) * 100:+.1f} %" if one else "new"


def write_comparison(folders: tuple[Path, Path], target: Path) -> None:
    """A page with both runs' distributions in each drawing. Both need their tables."""
    runs = [RunTables(folder) for folder in folders]
    names = _names(folders)
    plots = []
    for key, title, unit in (
        ("award_ns", "Request to award", "ms"),
        ("first_text_ns", "Request to first text", "ms"),
        ("paid_ucr", "Paid for a job", "ucr"),
        ("latency_ns", "Propagation", PROPAGATION),
    ):
        drawn, axes = figure()
        values = []
        for run in runs:
            table_name = "deliveries" if key == "latency_ns" else "jobs"
            column = run[table_name][key]
            known = column[column > 0]
            values.append(known / NS_PER_MS if key.endswith("_ns") else known)
        if not all(map(len, values)):
            continue
        for name, one, colour in zip(names, values, COLOURS, strict=False):
            cdf(axes, one, name, colour)
        cdf_axes(axes, unit, values)
        legend(axes, loc="lower right")
        medians = [float(np.median(one)) for one in values]
        caption = f"Medians {medians[0]:.4g} and {medians[1]:.4g} ({change(*medians)})."
        plots.append(Plot(key.removesuffix("_ns"), title, caption, drawn))
    rows = [(label, one, other, change(one, other)) for label, one, other in figures(folders)]
    rest = card("Figures", table(rows, ("", *names, "")))
    rest += card("Set otherwise", table(differences(*folders), ("key", *names)))
    whole = page(f"{names[0]} and {names[1]}", "two runs compared", (), plots, rest)
    write_page(target, whole.encode())


def _names(folders: tuple[Path, Path]) -> tuple[str, str]:
    one, other = folders
    if one.name != other.name:
        return one.name, other.name
    return str(one), str(other)
