"""`peerd history`: what was bought and sold, job by job or summed up.

Reads the log, which holds all of it, whether a daemon runs or not.
"""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from peer import past
from peer.cli.options import data_option, json_option, load_node
from peer.cli.screen import Listing, short, table_console
from peer.history import GROUPS, sums_json
from peer.identity import public_key
from protocol.errors import ConfigError
from protocol.units import NS_PER_S, format_credits

Json = dict[str, Any]


def time_text(at_ns: int) -> str:
    """A moment for people: UTC, to the second."""
    return datetime.fromtimestamp(at_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def read_jobs(directory: Path) -> list[Json]:
    """Every job that ended, oldest first, by the log of a data directory. StorageError."""
    signer, _ = load_node(directory, {})
    return past.read_jobs(directory, signer.public_key)


def jobs_table(jobs: list[Json]) -> Table:
    """Jobs as a table, amounts in credits."""
    table = Listing("jobs (credits)")
    for name in ("when", "we", "peer", "model"):
        table.add_column(name)
    for name in ("in", "out", "cost"):
        table.add_column(name, justify="right")
    table.add_column("receipt")
    for job in jobs:
        receipt = job["error"] or (job["receipt_id"] or "")[:12]
        table.add_row(
            time_text(job["at_ns"]).removesuffix(" UTC"),
            "bought" if job["role"] == "payer" else "sold",
            short(job["peer"]),
            job["model"],
            str(job["input_tokens"]),
            str(job["output_tokens"]),
            format_credits(job["cost_ucr"]),
            receipt if job["error"] or job["countersigned"] else f"{receipt} (one signature)",
        )
    return table


def sums_table(rows: list[Json], by: str) -> Table:
    """Sums of jobs as a table, amounts in credits."""
    table = Listing(f"by {by} (credits)")
    table.add_column(by)
    for name in ("jobs", "failed", "in", "out", "spent", "earned", "net"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = (row[name] for name in ("jobs", "failed", "input_tokens", "output_tokens"))
        amounts = (format_credits(row[f"{name}_ucr"]) for name in ("spent", "earned", "net"))
        table.add_row(row[by], *map(str, counts), *amounts)
    return table


@click.command("history")
@data_option
@click.option("--peer", metavar="PEER", help="Only jobs with this peer.")
@click.option("--model", metavar="NAME", help="Only jobs of this model.")
@click.option("--since", metavar="DAY", help="Only from this UTC day on, 2026-01-31.")
@click.option("--by", type=click.Choice(GROUPS), help="Sums instead.")
@click.option("--last", type=click.IntRange(1), help="Only the last so many jobs.")
@json_option
def history_command(directory: Path, as_json: bool, **chosen: Any) -> None:
    """List the jobs that were bought and sold, oldest first, with what they cost."""
    jobs = _chosen(read_jobs(directory), **chosen)
    by = chosen["by"]
    result = sums_json(jobs, by) if by else jobs
    if as_json:
        click.echo(json.dumps({"by" if by else "jobs": result}))
        return
    console = table_console()
    console.print(sums_table(result, by) if by else jobs_table(result))


def _chosen(
    jobs: list[Json],
    peer: str | None,
    model: str | None,
    since: str | None,
    by: str | None,
    last: int | None,
) -> list[Json]:
    """The jobs that the options ask for. ConfigError `config.bad_value`."""
    if peer is not None:
        public_key(peer)  # a mistyped id would find nothing and say so of a peer that is there
    if since is not None:
        try:
            since = date.fromisoformat(since).isoformat()
        except ValueError as error:
            raise ConfigError("config.bad_value", f"--since: {error}") from error
    found = [
        job
        for job in jobs
        if peer in (None, job["peer"])
        and model in (None, job["model"])
        and (since is None or job["day"] >= since)
    ]
    return found[-last:] if last else found
