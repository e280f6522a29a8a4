"""A node in this program, for as long as it asks."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from peer.asker import open_asker
from peer.client.lines import DirectLine
from peer.config import CONFIG_FILE, Config, RequesterConfig, load_config
from peer.errors import first_error
from peer.service import control_methods


@asynccontextmanager
async def open_line(
    bootstrap: Sequence[str], network: str, directory: str | os.PathLike[str] | None
) -> AsyncIterator[tuple[DirectLine, RequesterConfig]]:
    """A node's methods and its settings; one without a directory closes its channels at the end.

    NetworkError `network.listen`, `request.not_connected`.
    """
    home, config = _configured(bootstrap, network, directory)
    try:
        async with open_asker(home, config) as daemon, trio.open_nursery() as nursery:
            yield DirectLine(control_methods(daemon), nursery), config.requester
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The daemon's tasks wrap what the caller's block raises: give it back as it was.
        raise first_error(group) from None


def _configured(
    bootstrap: Sequence[str], network: str, directory: str | os.PathLike[str] | None
) -> tuple[Path | None, Config]:
    """The node's directory and its configuration, with this network. ConfigError."""
    home = None if directory is None else Path(directory).expanduser()
    path = None if home is None else home / CONFIG_FILE
    flags = {"network": {"name": network, "bootstrap": list(bootstrap)}}
    return home, load_config(path if path is not None and path.exists() else None, flags)
