"""`peerd init` and `peerd id`."""

import json
import os
from pathlib import Path

import click

from peer.cli.options import data_option, json_option, load_node
from peer.config import CONFIG_FILE, default_document
from peer.identity import KEY_FILE, create_key, load_key, peer_id
from protocol.errors import StorageError


def initialize(directory: Path) -> str:
    """Make a data directory with key and settings; gives the new peer id.

    ConfigError `config.exists`; StorageError `storage.unwritable`.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = create_key(directory)
        path = directory / CONFIG_FILE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(default_document())
    except FileExistsError:
        pass  # settings written by hand before the key are kept
    except OSError as error:
        detail = f"{directory}: {error.strerror}"
        raise StorageError("storage.unwritable", detail) from error
    return peer_id(signer.public_key)


@click.command("init")
@data_option
@json_option
def init_command(directory: Path, as_json: bool) -> None:
    """Make a node: a key (mode 0600) and a commented config.toml."""
    identity = initialize(directory)
    if as_json:
        paths = {"key": str(directory / KEY_FILE), "config": str(directory / CONFIG_FILE)}
        click.echo(json.dumps({"peer_id": identity, "data": str(directory), **paths}))
        return
    click.echo(f"node {identity}")
    click.echo(f"  key     {directory / KEY_FILE} (keep it: it is the node and its money)")
    click.echo(f"  config  {directory / CONFIG_FILE}")
    click.echo("next: peerd run --model embedded")


@click.command("id")
@data_option
@json_option
def id_command(directory: Path, as_json: bool) -> None:
    """Print this node's peer id."""
    signer = load_key(directory)
    identity = peer_id(signer.public_key)
    if as_json:
        _, config = load_node(directory, {})
        value = {
            "peer_id": identity,
            "public_key": signer.public_key.hex(),
            "network": config.network.name,
        }
        click.echo(json.dumps(value))
    else:
        click.echo(identity)
