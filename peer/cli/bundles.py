"""`peerd channels export` and `check`: evidence of a channel, for somebody else."""

import json
from pathlib import Path
from typing import Any

import click

from peer.bundle import findings_json, findings_text, make_bundle
from peer.cli.books import find_channel, read_ledger
from peer.cli.options import data_option, json_option, load_node
from peer.daemon import LOG_DIRECTORY
from peer.journal import read_entries
from peer.reports import channel_json
from protocol import limits
from protocol.bundle import check_bundle, encode_bundle
from protocol.errors import ConfigError, StorageError
from protocol.records import decode_record

Json = dict[str, Any]


@click.command("export")
@click.argument("named", metavar="CHANNEL")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)
@data_option
@json_option
def export_command(directory: Path, named: str, output: Path, as_json: bool) -> None:
    """Write all that is signed about a CHANNEL into one file, for a judge or a watchtower.

    Whoever has it can check it, and show the voucher for the payee. It holds no secret.
    """
    signer, _ = load_node(directory, {})
    ledger = read_ledger(directory, signer.public_key)
    listed = {"channels": [channel_json(item, live=False) for item in ledger.channels.values()]}
    channel = ledger.channels[bytes.fromhex(find_channel(listed, named)["channel"])]
    log = (decode_record(one.type, one.payload) for one in read_entries(directory / LOG_DIRECTORY))
    data = encode_bundle(make_bundle(ledger, channel, signer, log))
    try:
        output.write_bytes(data)
    except OSError as error:
        raise StorageError("storage.unwritable", f"{output}: {error.strerror}") from error
    _print_findings(data, as_json)


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check_command(file: Path, as_json: bool) -> None:
    """Check a bundle that `channels export` wrote, and say what it proves.

    Needs no node, no network and no key but those in the FILE.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(limits.BUNDLE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{file}: {error.strerror}") from error
    _print_findings(data, as_json)


def _print_findings(data: bytes, as_json: bool) -> None:
    found = check_bundle(data)
    if as_json:
        click.echo(json.dumps(findings_json(found)))
        return
    for line in findings_text(found):
        click.echo(line)
