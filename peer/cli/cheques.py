"""`peerd cheques`: who pays this node by cheque and owes what; and cheques to other nodes."""

import json
import os
from pathlib import Path

import click
import httpx
import trio

from peer.cheque_reports import cheques_json, read_cheques
from peer.cli.credit import Json, listed, print_rows
from peer.cli.options import data_option, json_option, load_node
from peer.client.cheques import Cheques, receipt_path
from peer.config import credits_of
from peer.control import call_control
from protocol.errors import CODES, NetworkError, RemoteError, StorageError
from protocol.units import format_credits

_FETCH_S = 20.0


@click.group("cheques")
def cheques_group() -> None:
    """Answers that users without a node paid for by cheque, over HTTP."""


@cheques_group.command("list")
@data_option
@json_option
def list_command(directory: Path, as_json: bool) -> None:
    """List every user: what it owes, what runs may cost, what was earned in all."""
    users = listed(directory, "cheques", "users", cheques_json)
    if as_json:
        click.echo(json.dumps({"users": users}))
        return
    print_rows("cheques", users)


@cheques_group.command("export")
@click.option("-o", "file", type=click.Path(path_type=Path), help="Where to; else to stdout.")
@data_option
@json_option
def export_command(directory: Path, file: Path | None, as_json: bool) -> None:
    """Write all cheques, with signatures and receipts, as JSON: what proves a debt."""
    load_node(directory, {})
    cheques = read_cheques(directory)
    text = json.dumps(cheques, indent=None if as_json else 1)
    if file is None:
        click.echo(text)
        return
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{text}\n")
        if as_json:
            click.echo(json.dumps({"file": str(file), "cheques": len(cheques["cheques"])}))
    except OSError as error:
        raise StorageError("storage.unwritable", f"{file}: {error.strerror}") from error


@cheques_group.command("paid")
@click.argument("user")
@click.argument("amount", metavar="CREDITS")
@data_option
@json_option
def paid_command(directory: Path, user: str, amount: str, as_json: bool) -> None:
    """Note that USER paid so many CREDITS of its cheques, outside of this system.

    So much more is taken from it again. A daemon must run here.
    """
    params = {"user": user, "amount_ucr": credits_of("CREDITS", amount)}
    answers: list[Json] = []
    trio.run(call_control, directory, "cheques_paid", params, answers.append)
    if as_json:
        click.echo(json.dumps(answers[0]))
        return
    click.echo(f"{user} owes {format_credits(answers[0]['owed_ucr'])} credits")


@cheques_group.command("receipt")
@click.argument("node")
@click.argument("url")
@click.argument("nonce", type=click.IntRange(0))
@click.option("--network", metavar="NAME", help="The network's name.")
@data_option
@json_option
def receipt_command(
    directory: Path, node: str, url: str, nonce: int, network: str | None, as_json: bool
) -> None:
    """Fetch again what the cheque with this NONCE was charged for, from NODE at URL.

    The node's signature is checked. Only the key in the data directory is needed, and no daemon.
    """
    _, config = load_node(directory, {})
    cheques = Cheques(node, directory, network=network or config.network.name)
    found = _fetch(url.rstrip("/").removesuffix("/v1"), nonce, cheques)
    if found["receipt"] is not None:
        cheques.check_receipt(found)
    if as_json:
        click.echo(json.dumps(found))
        return
    proof = f"receipt {found['receipt_id']}" if found["receipt"] else found["error"]
    click.echo(f"{found['cost']} credits, {proof}")


def _fetch(url: str, nonce: int, cheques: Cheques) -> Json:
    """The node's answer. NetworkError `network.unreachable`; RemoteError for its refusal."""
    try:
        answer = httpx.get(
            url + receipt_path(nonce), headers=cheques.receipt_headers(nonce), timeout=_FETCH_S
        )
        found: Json = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise NetworkError("network.unreachable", f"{url}: {error}") from error
    if answer.status_code != 200:
        code = str((found.get("error") or {}).get("code"))
        raise RemoteError(code if code in CODES else "cheque.unknown", url, penalize=False)
    return found


@cheques_group.command("write")
@click.argument("node")
@click.argument("amount", metavar="CREDITS")
@click.option("--network", metavar="NAME", help="The network's name.")
@data_option
@json_option
def write_command(
    directory: Path, node: str, amount: str, network: str | None, as_json: bool
) -> None:
    """Sign a cheque to NODE over at most CREDITS, for one call: its headers.

    As `curl -H @-` takes them. Only the key in the data directory is needed, and no daemon.
    """
    _, config = load_node(directory, {})
    headers = Cheques(node, directory, network=network or config.network.name).headers(amount)
    if as_json:
        click.echo(json.dumps(headers))
        return
    for name, value in headers.items():
        click.echo(f"{name}: {value}")
