"""`peerd log`: the node's own record of what it promised, to read, check, sign and put away."""

import json
import sys
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import click
import trio

from peer.checking import Checked, check_export, check_log, write_export
from peer.cli.channels import balance_line
from peer.cli.options import data_option, json_option, load_node
from peer.control import call_control, daemon_answers
from peer.daemon import LOG_DIRECTORY
from peer.identity import peer_id, public_key
from peer.journal import ARCHIVE_NAME, log_network, log_reader
from peer.reports import archive_json, balance_json, head_json
from peer.upkeep import archive as archive_log
from peer.upkeep import sign_head
from protocol.errors import StorageError
from protocol.log import LogEntry, ScanOutcome
from protocol.records import decode_record
from protocol.segments import SegmentReader

Json = dict[str, Any]

F = TypeVar("F", bound=Callable[..., Any])

_PEERS = ("payer", "payee", "owner")


def archive_option(command: F) -> F:
    """`--archive-dir DIR`: where old segments are, or go."""
    return click.option(
        "--archive-dir",
        "archive",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where archived segments are.  [default: `archive` in the data directory]",
    )(command)


def _plain(value: Any) -> Any:
    """A record's field for people: digests in hex, enums by name, nested parts as objects."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return value.name.lower()
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
@click.option("--from", "first", type=click.IntRange(0), default=0, help="The first record.")
@archive_option
@json_option
def show_command(
    directory: Path, last: int | None, first: int, archive: Path | None, as_json: bool
) -> None:
    """Print every record, oldest first; with --json one object a line."""
    load_node(directory, {})
    reader = log_reader(directory / LOG_DIRECTORY, archive=archive)
    entries = (entry for entry in reader.entries() if entry.sequence >= first)
    for entry in deque(entries, last) if last else entries:
        _print_entry(entry, as_json)
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)


def _print_entry(entry: LogEntry, as_json: bool) -> None:
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
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", metavar="KEY", help="Whose FILE it is: a peer id, or a public key in hex.")
@archive_option
@data_option
@json_option
def verify_command(
    directory: Path, as_json: bool, file: Path | None, key: str | None, archive: Path | None
) -> None:
    """Check every frame, the hash chain, the signed heads, and that the records make a ledger.

    With FILE, an export, its owner's --key is all that is needed: no node, no data directory.
    """
    if file is not None:
        if key is None:
            raise click.UsageError("whose FILE is it? add --key PEERID")
        _verify(as_json, lambda: _export_report(file, _key(key)))
        return
    if key is not None:
        raise click.UsageError("--key goes with a FILE")
    signer, _ = load_node(directory, {})
    reader = log_reader(directory / LOG_DIRECTORY, archive=archive)
    _verify(as_json, lambda: _log_report(reader, signer.public_key))


def _verify(as_json: bool, check: Callable[[], Json]) -> None:
    """Says what a check found, and fails with its error."""
    problem: StorageError | None = None
    try:
        result = check()
        if result["state"] == "corrupt":
            problem = StorageError("storage.corrupt", result["detail"])
    except StorageError as error:
        problem, result = error, {"state": "corrupt", "detail": error.detail}
    result = {"ok": problem is None, **result}
    if problem is not None:
        result["error"] = problem.code
    if as_json:
        click.echo(json.dumps(result))
    elif "records" in result:
        first, signed = result["first_record"], result.get("signed_to", -1)
        click.echo(f"{result['state']}: {result['records']} records in all")
        if first:
            click.echo(f"from record {first}; what is before it was not looked at")
        if "signed_to" in result:
            click.echo(f"signed up to record {signed}" if signed >= 0 else "no head is signed")
        click.echo(f"head {result['head']}")
        if "balance" in result:
            click.echo(balance_line(result["balance"]))
        if result["detail"]:
            click.echo(result["detail"])
    if problem is not None:
        click.echo(f"peerd: {problem}", err=True)
        sys.exit(1)


def _checked_json(checked: Checked) -> Json:
    found: Json = {
        "network": checked.network,
        "first_record": checked.first_record,
        "heads": checked.heads,
        "signed_to": checked.signed_to,
    }
    if checked.ledger is not None:
        shown = checked.ledger.heads.shown
        found["rolled_back_from"] = None if shown is None else shown.sequence
        found["channels"] = len(checked.ledger.channels)
        found["balance"] = balance_json(checked.ledger.balance())
    return found


def _log_report(reader: SegmentReader, owner: bytes) -> Json:
    checked = check_log(reader, owner)
    report = reader.report()
    return {
        "state": report.state,
        "records": report.records,
        "segments": report.segments,
        "head": report.head.hex(),
        "detail": report.detail,
        **_checked_json(checked),
    }


def _export_report(file: Path, owner: bytes) -> Json:
    checked = check_export(file, owner)
    return {
        "state": "clean",
        "records": checked.first_record + checked.records,
        "owner": peer_id(owner),
        "head": checked.head.hex(),
        "detail": "",
        **_checked_json(checked),
    }


def _key(text: str) -> bytes:
    """A public key as people give it. ConfigError `config.bad_value`."""
    if len(text) == 64 and all(character in "0123456789abcdefABCDEF" for character in text):
        return bytes.fromhex(text)
    return public_key(text)


@log_group.command("head")
@data_option
@json_option
def head_command(directory: Path, as_json: bool) -> None:
    """Sign the log as it is now and print the head: whoever has it can tell a rewritten log."""
    signer, _ = load_node(directory, {})
    found = from_daemon(directory, "head", {})
    if found is None:
        network = log_network(directory / LOG_DIRECTORY)
        found = head_json(sign_head(directory, signer), network, signer.public_key)
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name:9s} {value}")


@log_group.command("export")
@click.option("-o", "--output", "file", required=True, type=click.Path(path_type=Path))
@click.option("--from", "first", type=click.IntRange(0), default=0, help="The first record.")
@click.option("--to", "last", type=click.IntRange(0), help="The last record, at least.")
@archive_option
@data_option
@json_option
def export_command(
    directory: Path,
    as_json: bool,
    file: Path,
    first: int,
    last: int | None,
    archive: Path | None,
) -> None:
    """Write records and the signed heads over them to FILE, for `peerd log verify FILE --key`.

    It goes on to the next signed head after --to; without --to a new one is signed.
    """
    signer, _ = load_node(directory, {})
    if last is not None and last < first:
        raise click.UsageError("--to is before --from")
    if last is None and from_daemon(directory, "head", {}) is None:
        sign_head(directory, signer)
    reader = log_reader(directory / LOG_DIRECTORY, archive=archive)
    first, last = write_export(reader, file, first=first, last=last)
    result: Json = {
        "file": str(file),
        "owner": peer_id(signer.public_key),
        "first_record": first,
        "last_record": last,
        "bytes": file.stat().st_size,
    }
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"records {first} to {last}: {result['bytes']} bytes in {file}")
    click.echo(f"check: peerd log verify {file} --key {result['owner']}")


@log_group.command("archive")
@click.option("--keep", type=click.IntRange(0), default=0, help="Old segments to leave here.")
@archive_option
@data_option
@json_option
def archive_command(directory: Path, as_json: bool, keep: int, archive: Path | None) -> None:
    """Log a signed snapshot, and move the segments that it covers out of the log.

    Each is copied, synced and read back before it is removed here. The log starts faster then,
    and what was moved is still read by `verify`, `show` and `export` when they know where it is.
    """
    signer, _ = load_node(directory, {})
    where = (archive or directory / ARCHIVE_NAME).absolute()
    found = from_daemon(directory, "archive", {"directory": str(where), "keep": keep})
    if found is None:
        found = archive_json(archive_log(directory, signer, where, keep))
    if as_json:
        click.echo(json.dumps({**found, "directory": str(where)}))
        return
    count = len(found["segments"])
    click.echo(f"{count} segments, {found['bytes']} bytes, are in {where} now")


def from_daemon(directory: Path, method: str, params: Json) -> Json | None:
    """A running daemon's answer; None when there is no daemon."""
    if not trio.run(daemon_answers, directory):
        return None
    found: list[Json] = []
    trio.run(call_control, directory, method, params, found.append)
    return found[0]
