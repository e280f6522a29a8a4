"""A node's channels for its commands: from the daemon when it runs, else from the log."""

import contextlib
from pathlib import Path
from typing import Any

import trio

from peer.checking import fold_log
from peer.cli.options import load_node
from peer.control import call_control, socket_path
from peer.daemon import LOG_DIRECTORY
from peer.journal import log_reader
from peer.reports import balance_json, channel_json
from protocol.errors import ConfigError, LocalError, NetworkError, StorageError
from protocol.log import ScanOutcome
from router.ledger import Ledger

Json = dict[str, Any]


def read_ledger(directory: Path, owner: bytes) -> Ledger:
    """The ledger that a data directory's log makes, on the network that the log names.

    Takes no lock. StorageError, `storage.foreign` for the log of another node.
    """
    if not (directory / LOG_DIRECTORY).exists():
        return Ledger("", owner)  # a node that never ran
    reader = log_reader(directory / LOG_DIRECTORY)
    found = fold_log(reader, owner)
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)
    return found


def listed_channels(directory: Path) -> Json:
    """All channels and the balance, from the daemon where it runs, else from the log."""
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
    return listed


def find_channel(listed: Json, named: str) -> Json:
    """The one channel whose id begins with `named`, in hex.

    LocalError `channel.unknown`; ConfigError `config.bad_value` when several do.
    """
    found = [item for item in listed["channels"] if item["channel"].startswith(named.lower())]
    if len(found) > 1:
        raise ConfigError("config.bad_value", f"{len(found)} channels begin with {named!r}")
    if not found or not named:
        raise LocalError("channel.unknown", named)
    return dict(found[0])


async def _from_daemon(directory: Path) -> Json | None:
    """The daemon's list; None when the socket was left by one that was killed."""
    found: list[Json] = []
    with contextlib.suppress(NetworkError):
        await call_control(directory, "channels", {}, found.append)
    return found[0] if found else None
