"""A node in this program, for as long as it asks."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from peer.anchors import anchor_settings
from peer.client.lines import DirectLine
from peer.config import CONFIG_FILE, RequesterConfig, load_config
from peer.daemon import DaemonSettings, open_daemon
from peer.identity import KEY_FILE, create_key, load_key
from peer.libp2p_adapter.network import NetworkSettings
from peer.service import control_methods
from protocol.errors import NetworkError

_CONNECT_S = 10.0
_CLOSE_S = 5.0
# A node that only asks needs no open port.
_LISTEN = ("/ip4/127.0.0.1/tcp/0",)


@asynccontextmanager
async def open_line(
    bootstrap: Sequence[str], network: str, directory: str | os.PathLike[str] | None
) -> AsyncIterator[tuple[DirectLine, RequesterConfig]]:
    """A node's methods and its settings; one without a directory closes its channels at the end.

    NetworkError `network.listen`, `request.not_connected`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="peerd-client-") as temporary:
            home = _home(directory or temporary)
            path = home / CONFIG_FILE
            config = load_config(path if path.exists() else None, {})
            settings = DaemonSettings(
                home,
                NetworkSettings(network, listen=_LISTEN, bootstrap=tuple(bootstrap)),
                anchor=anchor_settings(config),
            )
            async with open_daemon(settings, load_key(home)) as daemon:
                if not await daemon.wait_connected(_CONNECT_S):
                    raise NetworkError("request.not_connected", "nobody answered")
                async with trio.open_nursery() as nursery:
                    yield DirectLine(control_methods(daemon), nursery), config.requester
                    nursery.cancel_scope.cancel()
                if directory is None:
                    await daemon.close_channels((), _CLOSE_S)
    except BaseExceptionGroup as group:
        # The daemon's tasks wrap what the caller's block raises: give it back as it was.
        raise _only_error(group) from None


def _home(directory: str | os.PathLike[str]) -> Path:
    """The node's directory, with a key. ConfigError."""
    home = Path(directory).expanduser()
    if not (home / KEY_FILE).exists():
        home.mkdir(parents=True, exist_ok=True)
        create_key(home)
    return home


def _only_error(error: BaseException) -> BaseException:
    """The one error in nested groups; the group itself when it has several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
