"""`peerd status`: what the running daemon does; how its models and their workers are."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import trio
from rich.table import Table

from peer.cli.jobs import read_jobs
from peer.cli.options import data_option, json_option
from peer.cli.screen import Listing, table_console
from peer.control import call_control
from peer.history import sums_json
from protocol.units import format_credits

Json = dict[str, Any]


@click.command("status")
@data_option
@json_option
def status_command(directory: Path, as_json: bool) -> None:
    """Say who the running node is, whom it knows, what it sells and how its models do."""
    seen: list[Json] = []
    trio.run(call_control, directory, "status", {}, seen.append)
    status = {**seen[0], "today": today_json(read_jobs(directory))}
    if as_json:
        click.echo(json.dumps(status))
        return
    console = table_console()
    console.print(f"peerd {status['peer_id']} on network {status['network']}")
    for address in status["addresses"]:
        console.print(f"  {address}")
    balance = status["balance"]
    console.print(
        f"{len(status['peers'])} peers, {status['topic_peers']} on the topic · "
        f"{status['running_jobs']} jobs running, {status['open_requests']} requests open · "
        f"balance {format_credits(balance['net_ucr'])} credits"
    )
    today = status["today"]
    console.print(
        f"today {today['jobs']} jobs ended, {today['failed']} without a receipt · "
        f"earned {format_credits(today['earned_ucr'])} · "
        f"spent {format_credits(today['spent_ucr'])} credits"
    )
    if status["bids"]["withheld"]:
        sent, withheld = status["bids"]["sent"], status["bids"]["withheld"]
        console.print(f"{sent} bids sent, {withheld} withheld that could not win")
    if silent := status["bids"]["not_made"]:
        reasons = sorted(silent.items(), key=lambda item: (-item[1], item[0]))
        told = ", ".join(f"{count} {code}" for code, count in reasons)
        console.print(f"no bid on {sum(silent.values())} requests: {told}")
    if status["engine"]:
        offered = {model["name"] for model in status["models"]}
        console.print(models_table(status["engine"], offered))
    if status["served"]:
        console.print(served_table(status["served"]))
    for model in status["engine"]:
        if model["last_error"]:
            console.print(f"{model['name'] or model['source']}: {model['last_error']}")


def today_json(jobs: list[Json]) -> Json:
    """What the jobs of this UTC day come to, bought and sold, from the log."""
    day = datetime.now(UTC).date().isoformat()
    rows = [row for row in sums_json(jobs, "day") if row["day"] == day]
    none = {"day": day, "jobs": 0, "failed": 0, "spent_ucr": 0, "earned_ucr": 0, "net_ucr": 0}
    return rows[0] if rows else none | {"input_tokens": 0, "output_tokens": 0}


def served_table(served: dict[str, Json]) -> Table:
    """What each model did since the daemon started, and how its bids were kept."""
    table = Listing("served since the start")
    table.add_column("name")
    for name in ("jobs", "failed", "waited", "first token", "tokens/s", "used"):
        table.add_column(name, justify="right")
    for name in ("promises kept", "first token off by", "tokens/s off by"):
        table.add_column(name, justify="right")
    for name, model in served.items():
        promises = model["promises"]
        kept = promises["kept_percent"]
        table.add_row(
            name,
            str(model["jobs"]),
            str(model["failed"]),
            f"{model['queue_ms_mean']:.0f} ms",
            f"{model['ttft_ms_mean']:.0f} ms",
            f"{model['tokens_per_s_mean']:.0f}",
            f"{model['utilisation']:.0%}",
            "" if kept is None else f"{kept:.0f}%",
            _spread(promises["ttft_error"]),
            _spread(promises["tokens_per_s_error"]),
        )
    return table


def _spread(error: Json) -> str:
    """The median error and the 95th percentile."""
    return f"{error['p50']:+.0%}, {error['p95']:+.0%}"


def models_table(models: list[Json], offered: set[str]) -> Table:
    """A row for each model; `offered` are the names that are in bids now."""
    table = Listing("models")
    table.add_column("name")
    table.add_column("state")
    table.add_column("offered")
    for name in ("running", "queued", "restarts", "MiB", "of at most", "process"):
        table.add_column(name, justify="right")
    for model in models:
        table.add_row(
            model["name"] or model["source"],
            model["stage"],
            "yes" if model["name"] in offered and model["stage"] != "skipped" else "no",
            str(model["running"]),
            str(model["queued"]),
            str(model["restarts"]),
            _mib(model["resident_bytes"]),
            _mib(model["limit_bytes"]),
            str(model["pid"] or ""),
        )
    return table


def _mib(size_bytes: int) -> str:
    return str(size_bytes >> 20) if size_bytes else ""
