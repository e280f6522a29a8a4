"""The report of a run: one page, and its plots and tables as files for those who want them."""

import csv
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigError
from protocol.units import format_credits
from simnet.recording.tables import TABLES
from simnet.reports import plots
from simnet.reports.drawing import to_png, to_svg
from simnet.reports.page import Tile, card, folded, page, table
from simnet.reports.tables_read import RunTables
from simnet.runs.directory import SCENARIO_FILE

REPORT_FILE: Final = "report.html"
BYTES_MAX: Final = 2_000_000


def write_report(run: RunTables, target: Path) -> int:
    """Write the page; its length in bytes."""
    drawn, missing = plots.draw(run)
    summary = run.summary
    rest = ""
    if summary["faults"]:
        rest += card(
            "Checks that failed", table([[fault] for fault in summary["faults"]]), "fault"
        )
    if summary["failures"]:
        rest += card("Failures", table(sorted(summary["failures"].items()), ("code", "requests")))
    if summary["offences"]:
        rest += card("Offences seen", table(sorted(summary["offences"].items()), ("code", "seen")))
    rest += card("Groups", _groups(run))
    if missing:
        names = ", ".join(one.name for one in missing)
        rest += card("Nothing to draw", f"<p>This run has no data for: {names}.</p>")
    rest += card("Where it comes from", table(_origin(run)))
    rest += folded("The scenario, resolved", _text(run.path / SCENARIO_FILE))
    about = f"{summary['nodes']} nodes, {summary['virtual_s']:.0f} virtual seconds, "
    about += f"seed {summary['seed']}"
    whole = page(summary["scenario"], about, _tiles(summary), drawn, rest)
    data = whole.encode()
    write_page(target, data)
    return len(data)


def _tiles(summary: dict[str, Any]) -> list[Tile]:
    requests, failed = summary["requests"], summary["failed"] + summary["open"]
    tiles: list[Tile] = [
        (f"{requests:,}", "requests", ""),
        (f"{summary['done'] * 100 / max(1, requests):.1f} %", "done", "bad" if failed else "good"),
    ]
    for name, label in (("award_ms", "to award, median"), ("first_text_ms", "to first text")):
        if summary[name]:
            tiles.append((f"{summary[name]['p50']:.0f} ms", label, ""))
    if requests:
        tiles.append((f"{summary['bids'] / requests:.1f}", "bids a request", ""))
    checks = ("hold", "good") if summary["checks_ok"] else ("FAIL", "bad")
    if not summary["complete"]:
        checks = ("cut short", "bad")
    return [
        *tiles,
        (format_credits(summary["paid_ucr"] // 1_000 * 1_000), "credits paid", ""),
        (f"{summary['gossip']['messages']:,}", "gossip messages", ""),
        (f"{summary['gossip']['sent_bytes'] / 1e6:,.0f} MB", "sent by all", ""),
        (checks[0], "checks", checks[1]),
    ]


def _groups(run: RunTables) -> str:
    """Who took part, in figures."""
    nodes, jobs = run["nodes"], run["jobs"]
    rows = []
    for role in ("provider", "requester", "relay"):
        for group in run.groups_of(role):
            members = nodes["node"][(nodes["group"] == group) & (nodes["role"] == role)]
            side = jobs["provider" if role == "provider" else "node"]
            own = (side[:, None] == members).any(axis=1) if role != "relay" else side < -1
            done = own & (jobs["outcome"] == "done")
            paid = format_credits(int(jobs["paid_ucr"][own].sum()))
            rows.append((role, group or "-", len(members), int(own.sum()), int(done.sum()), paid))
    return table(rows, ("role", "group", "nodes", "requests", "done", "credits"))


def _origin(run: RunTables) -> list[tuple[str, str]]:
    origin, summary = run.origin, run.summary
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    return [
        ("trace", summary["trace_hash"]),
        ("commit", origin["commit"] or "-"),
        ("again", f"simnet run {run.path / SCENARIO_FILE} --seed {summary['seed']}"),
        ("took", f"{summary['cpu_s']:.1f} CPU s, {summary['events']:,} events"),
        ("versions", versions),
    ]


# --- files ------------------------------------------------------------------------------------


def write_plots(run: RunTables, folder: Path, kind: str) -> list[Path]:
    """Each plot as a file, `svg` or `png`, on white; their paths."""
    written = []
    for plot in plots.draw(run)[0]:
        plot.drawn.suptitle(plot.title, fontsize=11)
        data = to_png(plot.drawn) if kind == "png" else standalone(to_svg(plot.drawn))
        path = folder / f"{plot.name}.{kind}"
        write_page(path, data)
        written.append(path)
    return written


def standalone(svg: str) -> bytes:
    """An SVG element as a file of its own, light on white."""
    colours = "--ink:#20242b;--faint:#9aa3ad;--face:sans-serif;background:#fff"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" style="{colours}" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink" '
    return svg.replace("<svg ", head, 1).encode()


def write_csv(run: RunTables, folder: Path) -> list[Path]:
    """Each table as CSV with a header; their paths."""
    written = []
    for name in TABLES:
        columns = run[name]
        path = folder / f"{name}.csv"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(zip(*(one.tolist() for one in columns.values()), strict=True))
        except OSError as error:
            raise ConfigError("config.unreadable", f"{path}: {error}") from error
        written.append(path)
    return written


def write_page(path: Path, data: bytes) -> None:
    """Put a file there, with its folder. ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeError):
        return ""
