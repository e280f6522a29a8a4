"""`peerd mcp`: the market as tools of another program, over stdin and stdout."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import trio

from peer.cli.options import data_option, network_flags, network_options
from peer.client import AsyncClient
from peer.config import CONFIG_FILE, Config, load_config
from peer.control import daemon_answers
from peer.gateway.mcp_tools import mcp_server
from peer.identity import KEY_FILE
from peer.logs import configure_logs
from protocol.errors import NetworkError


@click.command("mcp")
@data_option
@network_options
def mcp_command(directory: Path, **flags: Any) -> None:
    """Serve the Model Context Protocol on stdin and stdout, until stdin ends.

    Through the running daemon; without one, as a node of its own by --bootstrap.
    """
    network = network_flags(flags)
    path = directory / CONFIG_FILE
    config = load_config(path if path.exists() else None, network)
    configure_logs(config.log.level if network.get("log") else "error", config.log.format)
    trio.run(_serve, directory, config)


async def _serve(directory: Path, config: Config) -> None:
    async with AsyncExitStack() as stack:
        client = AsyncClient(directory)
        if not await daemon_answers(directory):
            if not config.network.bootstrap:
                raise NetworkError("request.not_connected", "no --bootstrap and no running daemon")
            home = directory if (directory / KEY_FILE).exists() else None
            network = config.network
            joined = AsyncClient.join(*network.bootstrap, network=network.name, directory=home)
            client = await stack.enter_async_context(joined)
        await mcp_server(client).run_stdio_async()
