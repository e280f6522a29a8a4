"""`peerd status`: what the running daemon does; how its models and their workers are."""

import json
from pathlib import Path
from typing import Any

import click
import trio
from rich.table import Table

from peer.cli.options import data_option, json_option
from peer.cli.screen import table_console
from peer.control import call_control
from protocol.units import format_credits

Json = dict[str, Any]


@click.command("status")
@data_option
@json_option
def status_command(directory: Path, as_json: bool) -> None:
    """Say who the running node is, whom it knows, what it sells and how its models do."""
    seen: list[Json] = []
    trio.run(call_control, directory, "status", {}, seen.append)
    (status,) = seen
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
    if status["engine"]:
        offered = {model["name"] for model in status["models"]}
        console.print(models_table(status["engine"], offered))
    for model in status["engine"]:
        if model["last_error"]:
            console.print(f"{model['name'] or model['source']}: {model['last_error']}")


def models_table(models: list[Json], offered: set[str]) -> Table:
    """A row for each model; `offered` are the names that are in bids now."""
    table = Table(title="models", title_justify="left")
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
