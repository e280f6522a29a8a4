"""`peerd balance`: the node's sums, and what they are made of."""

import json
from pathlib import Path

import click

from peer.cli.books import listed_channels
from peer.cli.channels import balance_line
from peer.cli.jobs import read_jobs, sums_table
from peer.cli.options import data_option, json_option
from peer.cli.screen import table_console
from peer.history import GROUPS, sums_json
from protocol.units import format_credits


@click.command("balance")
@data_option
@click.option("--by", type=click.Choice(GROUPS), help="What it is made of.")
@json_option
def balance_command(directory: Path, by: str | None, as_json: bool) -> None:
    """Say what was earned and spent, what open channels hold, and what is not yet covered."""
    balance = listed_channels(directory)["balance"]
    rows = sums_json(read_jobs(directory), by) if by else None
    if as_json:
        click.echo(json.dumps(balance if rows is None else {**balance, "by": rows}))
        return
    console = table_console()
    if by is not None and rows is not None:
        console.print(sums_table(rows, by))
    console.print(balance_line(balance))
    if balance["cheques_ucr"]:
        console.print(f"{format_credits(balance['cheques_ucr'])} credits earned by cheques")
    if balance["unpaid_ucr"]:
        console.print(f"{format_credits(balance['unpaid_ucr'])} credits delivered, no voucher yet")
