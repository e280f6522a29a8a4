"""`peerd channels`: where the money is; from the daemon when it runs, else from the log."""

import json
from pathlib import Path
from typing import Any

import click
import trio
from rich.table import Table

from peer.cli.books import find_channel, listed_channels
from peer.cli.bundles import check_command, export_command
from peer.cli.jobs import jobs_table, read_jobs, time_text
from peer.cli.options import data_option, json_option
from peer.cli.screen import Listing, short, table_console
from peer.config import credits_of
from peer.control import call_control
from protocol.errors import LocalError, NetworkError
from protocol.units import format_credits

Json = dict[str, Any]


@click.group("channels", invoke_without_command=True)
@data_option
@json_option
@click.pass_context
def channels_group(context: click.Context, directory: Path, as_json: bool) -> None:
    """List channels, or one's whole story; close, top up, export and check them.

    Alone it lists them all: peer, state, deposit, paid, due, refund.
    """
    if context.invoked_subcommand is None:
        _list(directory, as_json)
        return
    said = click.core.ParameterSource.COMMANDLINE
    if said in map(context.get_parameter_source, ("directory", "as_json")):
        name = context.invoked_subcommand
        raise click.UsageError(f"write options behind the command: channels {name} --data DIR")


channels_group.add_command(export_command)
channels_group.add_command(check_command)


@channels_group.command("list")
@data_option
@json_option
def list_command(directory: Path, as_json: bool) -> None:
    """List channels: peer, state, deposit, paid, due, refund."""
    _list(directory, as_json)


def _list(directory: Path, as_json: bool) -> None:
    listed = listed_channels(directory)
    if as_json:
        click.echo(json.dumps(listed))
        return
    console = table_console()
    console.print(channels_table(listed["channels"]))
    console.print(balance_line(listed["balance"]))


@channels_group.command("show")
@click.argument("named", metavar="CHANNEL")
@data_option
@json_option
def show_command(directory: Path, named: str, as_json: bool) -> None:
    """Show one CHANNEL (the beginning of its id is enough): terms, money, and every job."""
    item = find_channel(listed_channels(directory), named)
    jobs = [job for job in read_jobs(directory) if job["channel"] == item["channel"]]
    if as_json:
        click.echo(json.dumps({**item, "jobs": jobs}))
        return
    for name in ("channel", "role", "peer", "state"):
        click.echo(f"{name:13s} {item[name]}")
    for name in ("deposit", "window", "voucher_total", "due", "settled", "refund"):
        amount = item[f"{name}_ucr"]
        if amount is not None:
            click.echo(f"{name.replace('_', ' '):13s} {format_credits(amount)} credits")
    for name in ("opened", "expires"):
        click.echo(f"{name:13s} {time_text(item[f'{name}_at_ns'])}")
    if jobs:
        table_console().print(jobs_table(jobs))


@channels_group.command("close")
@click.argument("named", metavar="CHANNEL")
@click.option("--force", is_flag=True, help="Alone, at the best voucher, after a challenge.")
@data_option
@json_option
def close_command(directory: Path, named: str, force: bool, as_json: bool) -> None:
    """Close a CHANNEL that we pay on: settle at what was delivered, get the rest back.

    Both ends must agree, so the peer must be reachable; with --force either end closes alone,
    and the payer gives up what it paid ahead. A daemon must run here.
    """
    item = find_channel(listed_channels(directory), named)
    if item["settled_ucr"] is not None:
        raise LocalError("channel.wrong_state", f"it is {item['state']} already")
    answers: list[Json] = []
    if force:
        trio.run(call_control, directory, "force", {"channels": [item["channel"]]}, answers.append)
        total, ends = answers[0]["total_ucr"], time_text(answers[0]["deadline_ns"])
        text = f"closing at {format_credits(total)} credits or more; settled on {ends}"
        click.echo(json.dumps(answers[0]) if as_json else text)
        return
    if item["role"] != "payer":
        detail = "only the payer closes by agreement; --force closes alone"
        raise LocalError("channel.wrong_state", detail)
    trio.run(call_control, directory, "close", {"channels": [item["channel"]]}, answers.append)
    if not answers:
        raise NetworkError("channel.no_answer", f"peer {short(item['peer'])}")
    if as_json:
        click.echo(json.dumps(answers[0]))
        return
    settled, refund = (format_credits(answers[0][f"{name}_ucr"]) for name in ("settled", "refund"))
    click.echo(f"channel closed: {settled} credits settled, {refund} back")


@channels_group.command("open")
@click.argument("peer", metavar="PEER")
@click.option("--deposit", required=True, metavar="CREDITS", help="The channel's deposit.")
@data_option
@json_option
def open_command(directory: Path, peer: str, deposit: str, as_json: bool) -> None:
    """Open a channel to PEER before there is a job, so that the first one waits for nothing.

    The peer must sell something and be connected, and a daemon must run here.
    """
    params = {"peer": peer, "deposit_ucr": credits_of("--deposit", deposit)}
    answers: list[Json] = []
    trio.run(call_control, directory, "open", params, answers.append)
    click.echo(json.dumps(answers[0]) if as_json else f"channel {answers[0]['channel']}")


@channels_group.command("topup")
@click.argument("named", metavar="CHANNEL")
@click.argument("amount", metavar="CREDITS")
@data_option
@json_option
def topup_command(directory: Path, named: str, amount: str, as_json: bool) -> None:
    """Raise the deposit of a CHANNEL that we pay on by so many CREDITS.

    The peer must agree, so it must be reachable, and a daemon must run here.
    """
    item = find_channel(listed_channels(directory), named)
    deposit = item["deposit_ucr"] + credits_of("CREDITS", amount)
    params = {"channels": [item["channel"]], "deposit_ucr": deposit}
    answers: list[Json] = []
    trio.run(call_control, directory, "topup", params, answers.append)
    if as_json:
        click.echo(json.dumps(answers[0]))
        return
    click.echo(f"deposit {format_credits(answers[0]['deposit_ucr'])} credits")


@channels_group.command("claim")
@click.argument("named", metavar="[CHANNEL]", default="")
@data_option
@json_option
def claim_command(directory: Path, named: str, as_json: bool) -> None:
    """Have the witnesses pay what the vouchers of a CHANNEL that we earn on are worth; of all.

    The channel goes on, and the payer need not be there. A daemon must run here.
    """
    cids = [find_channel(listed_channels(directory), named)["channel"]] if named else []
    answers: list[Json] = []
    trio.run(call_control, directory, "claim", {"channels": cids}, answers.append)
    if as_json:
        click.echo(json.dumps(answers[0]))
        return
    if not answers[0]["witnesses"]:
        click.echo("no witness answered, or none is configured: see [anchor]")
    for one in answers[0]["witnesses"]:
        click.echo(f"{one['witness']}  {format_credits(one['free_ucr'])} credits free")


def channels_table(channels: list[Json]) -> Table:
    """Channels as a table, amounts in credits."""
    table = Listing("channels (credits)")
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
