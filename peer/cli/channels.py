"""`peerd channels`: where the money is; from the daemon when it runs, else from the log."""

import contextlib
import json
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.table import Table

from peer.cli.options import data_option, json_option, load_node
from peer.cli.screen import short
from peer.control import call_control, socket_path
from peer.daemon import LOG_DIRECTORY
from peer.identity import peer_id
from peer.journal import log_reader
from peer.reports import balance_json, channel_json
from protocol.errors import NetworkError, StorageError
from protocol.log import ScanOutcome
from protocol.units import format_credits
from router.ledger import Ledger

Json = dict[str, Any]


def read_ledger(directory: Path, owner: bytes) -> Ledger:
    """The ledger that a data directory's log makes, on the network that the log names.

    Takes no lock. StorageError, `storage.foreign` for the log of another node.
    """
    ledger = Ledger("", owner)
    if not (directory / LOG_DIRECTORY).exists():
        return ledger  # a node that never ran
    reader = log_reader(directory / LOG_DIRECTORY)
    replay = reader.replay
    for entry in reader.entries():
        if replay.owner != owner:
            whose = "" if replay.owner is None else f"written by node {peer_id(replay.owner)}"
            raise StorageError("storage.foreign", whose)
        ledger.network = replay.network or ""
        ledger.replay(entry.type, entry.payload)
    if replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", replay.detail)
    return ledger


@click.command("channels")
@data_option
@json_option
def channels_command(directory: Path, as_json: bool) -> None:
    """List channels: peer, state, deposit, paid, due, refund."""
    signer, _ = load_node(directory, {})
    listed: Json | None = None
    if socket_path(directory).exists():
        listed = trio.run(_from_daemon, directory)
    if listed is None:
        ledger = read_ledger(directory, signer.public_key)
        listed = {
            "channels": [channel_json(item, live=False) for item in ledger.channels.values()],
            "balance": balance_json(ledger.balance()),
        }
    if as_json:
        click.echo(json.dumps(listed))
        return
    console = Console(highlight=False)
    console.print(channels_table(listed["channels"]))
    console.print(balance_line(listed["balance"]))


async def _from_daemon(directory: Path) -> Json | None:
    """The daemon's list; None when the socket was left by one that was killed."""
    found: list[Json] = []
    with contextlib.suppress(NetworkError):
        await call_control(directory, "channels", {}, found.append)
    return found[0] if found else None


def channels_table(channels: list[Json]) -> Table:
    """Channels as a table, amounts in credits."""
    table = Table(title="channels (credits)", title_justify="left")
    for name in ("channel", "we are", "peer", "state", "deposit", "vouchers", "due", "refund"):
        text = name in ("channel", "we are", "peer", "state")
        table.add_column(name, justify="left" if text else "right")
    for item in channels:
        refund = item["refund_ucr"]
        table.add_row(
            item["channel"][:12],
            item["role"],
            short(item["peer"]),
            item["state"],
            format_credits(item["deposit_ucr"]),
            format_credits(item["voucher_total_ucr"]),
            format_credits(item["due_ucr"]),
            "" if refund is None else format_credits(refund),
        )
    return table


def balance_line(balance: Json) -> str:
    """A node's sums in one line."""
    return (
        f"earned {format_credits(balance['earned_ucr'])} · "
        f"spent {format_credits(balance['spent_ucr'])} · "
        f"locked {format_credits(balance['locked_ucr'])} · "
        f"net {format_credits(balance['net_ucr'])} credits"
    )
