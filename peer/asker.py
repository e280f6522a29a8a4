"""A node in this program that only asks: for one question, or as long as a client lives."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from peer.config import Config
from peer.daemon import Daemon, DaemonSettings, open_daemon
from peer.identity import KEY_FILE, create_key, load_key
from peer.settings import daemon_settings
from protocol.errors import NetworkError
from router.events import ChannelSettled

_CONNECT_S = 10.0
_CLOSE_S = 5.0
# Nobody has to reach it, so it needs no open port.
_LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def asker_settings(directory: Path, config: Config) -> DaemonSettings:
    """As `daemon_settings`, its caps and anchor too, and listening to nobody."""
    quiet = replace(config.network, listen=_LISTEN)
    return daemon_settings(directory, replace(config, network=quiet))


@asynccontextmanager
async def open_asker(
    directory: Path | None,
    config: Config,
    on_settled: Callable[[ChannelSettled], None] = lambda settled: None,
) -> AsyncIterator[Daemon]:
    """A connected node. Without a directory it has a new key, and closes its channels at the end.

    ConfigError, StorageError; NetworkError `network.listen`, `request.not_connected`.
    """
    if not config.network.bootstrap:
        raise NetworkError("request.not_connected", "no --bootstrap and no running daemon")
    with tempfile.TemporaryDirectory(prefix="peerd-asker-") as temporary:
        home = directory or Path(temporary)
        if not (home / KEY_FILE).exists():
            home.mkdir(parents=True, exist_ok=True)
            create_key(home)
        async with open_daemon(asker_settings(home, config), load_key(home)) as daemon:
            if not await daemon.wait_connected(_CONNECT_S):
                raise NetworkError("request.not_connected", "nobody answered")
            yield daemon
            if directory is None:
                for settled in await daemon.close_channels((), _CLOSE_S):
                    on_settled(settled)
