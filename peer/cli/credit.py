"""`peerd credit` and `peerd witness`: who owes us, and whose funds we hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import trio

from peer.cli.books import read_ledger
from peer.cli.options import data_option, json_option, load_node
from peer.cli.screen import Listing, table_console
from peer.config import credits_of
from peer.control import call_control, daemon_answers
from peer.trust import accounts_json, credit_json
from protocol.units import format_credits
from router.ledger import Ledger

Json = dict[str, Any]


def listed(
    directory: Path, method: str, name: str, from_log: Callable[[Ledger], list[Json]]
) -> list[Json]:
    """From the daemon where it runs, else from the log."""
    signer, _ = load_node(directory, {})
    found: list[Json] = []

    async def ask() -> None:
        if await daemon_answers(directory):
            await call_control(directory, method, {}, found.append)

    trio.run(ask)
    return found[0][name] if found else from_log(read_ledger(directory, signer.public_key))


def print_rows(title: str, rows: list[Json]) -> None:
    """A table, whose columns are the names in the first row; a line where there is none."""
    if not rows:
        click.echo(f"no {title}")
        return
    table = Listing(f"{title} (credits)")
    names = list(rows[0])
    for name in names:
        table.add_column(name.removesuffix("_ucr").replace("_", " "), no_wrap=True)
    for row in rows:
        cells = (
            format_credits(row[name]) if name.endswith("_ucr") else str(row[name])
            for name in names
        )
        table.add_row(*cells)
    table_console().print(table)


@click.group("credit")
def credit_group() -> None:
    """Who owes us on promises alone, and what was paid of it."""


@credit_group.command("list")
@data_option
@json_option
def list_command(directory: Path, as_json: bool) -> None:
    """List payers with what they owe on closed channels, and the deposits of open ones."""
    payers = listed(directory, "credit", "payers", credit_json)
    if as_json:
        click.echo(json.dumps({"payers": payers}))
        return
    print_rows("payers", payers)


@credit_group.command("paid")
@click.argument("peer")
@click.argument("amount", metavar="CREDITS")
@data_option
@json_option
def paid_command(directory: Path, peer: str, amount: str, as_json: bool) -> None:
    """Note that PEER paid so many CREDITS of its debts, outside of this system.

    That much more is believed from it again. A daemon must run here.
    """
    params = {"peer": peer, "amount_ucr": credits_of("CREDITS", amount)}
    answers: list[Json] = []
    trio.run(call_control, directory, "paid", params, answers.append)
    if as_json:
        click.echo(json.dumps(answers[0]))
        return
    click.echo(f"{peer} owes {format_credits(answers[0]['owed_ucr'])} credits")


@click.command("witness")
@data_option
@json_option
def witness_command(directory: Path, as_json: bool) -> None:
    """List the accounts that this node holds as a witness."""
    accounts = listed(directory, "accounts", "accounts", accounts_json)
    if as_json:
        click.echo(json.dumps({"accounts": accounts}))
        return
    print_rows("accounts", accounts)
