"""`peerd log show` and `peerd log verify`: the node's own record of what it promised."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from peer.cli.channels import read_ledger
from peer.cli.options import data_option, json_option, load_node
from peer.daemon import LOG_DIRECTORY
from peer.identity import peer_id
from peer.journal import read_entries, verify_log
from peer.reports import balance_json
from protocol.errors import StorageError
from protocol.records import decode_record

Json = dict[str, Any]

_PEERS = ("payer", "payee")


def _plain(value: Any) -> Any:
    """A record's field for people: digests in hex, nested parts as objects."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    slots = getattr(type(value), "__dataclass_fields__", None)
    if slots is None:
        return value
    fields = {}
    for name in slots:
        item = getattr(value, name)
        fields[name] = peer_id(item) if name in _PEERS else _plain(item)
    return fields


@click.group("log")
def log_group() -> None:
    """Read and check the node's append-only log."""


@log_group.command("show")
@data_option
@click.option("--last", type=click.IntRange(1), help="Only the last so many records.")
@json_option
def show_command(directory: Path, last: int | None, as_json: bool) -> None:
    """Print every record, oldest first; with --json one object a line."""
    load_node(directory, {})
    entries = list(read_entries(directory / LOG_DIRECTORY))
    for entry in entries[-last:] if last else entries:
        record = decode_record(entry.type, entry.payload)
        name = type(record).__name__
        fields = _plain(record)
        if as_json:
            line = {"sequence": entry.sequence, "record": name, **fields}
            click.echo(json.dumps({**line, "chain": entry.chain.hex()}))
        else:
            brief = " ".join(f"{key}={_brief(value)}" for key, value in fields.items())
            click.echo(f"{entry.sequence:6d} {name:20s} {brief}")


def _brief(value: Any) -> str:
    if isinstance(value, dict):
        inner = " ".join(f"{key}={_brief(item)}" for key, item in value.items())
        return f"({inner})"
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    text = str(value)
    return text if len(text) <= 20 else f"{text[:8]}…{text[-4:]}"


@log_group.command("verify")
@data_option
@json_option
def verify_command(directory: Path, as_json: bool) -> None:
    """Check every frame, the hash chain, and that the records make a ledger."""
    signer, _ = load_node(directory, {})
    report = verify_log(directory / LOG_DIRECTORY)
    ok = report.state != "corrupt"
    result: Json = {
        "ok": ok,
        "state": report.state,
        "records": report.records,
        "segments": report.segments,
        "head": report.head.hex(),
        "detail": report.detail,
    }
    damage = StorageError("storage.corrupt", report.detail)
    if ok:
        ledger = read_ledger(directory, signer.public_key)
        result["network"] = ledger.network
        result["channels"] = len(ledger.channels)
        result["balance"] = balance_json(ledger.balance())
    else:
        result["error"] = damage.code
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"{report.state}: {report.records} records in {report.segments} segments")
        click.echo(f"head {report.head.hex()}")
        if report.detail:
            click.echo(report.detail)
    if not ok:
        click.echo(f"peerd: {damage}", err=True)
        sys.exit(1)
