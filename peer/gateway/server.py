"""The gateway's HTTP server: hypercorn on trio, bounded, on the loopback unless told otherwise."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve
from starlette.routing import BaseRoute

from peer.client import AsyncClient
from peer.client.lines import DirectLine
from peer.config import RequesterConfig
from peer.control import Method
from peer.errors import first_error
from peer.gateway.app import CHEQUES_PATH, Gateway, make_app
from peer.gateway.cheques import ChequeDesk, Till
from peer.gateway.direct_http import install
from peer.gateway.insight import Insight
from peer.gateway.metrics import Counted, HttpCounts, watch_routes
from peer.gateway.once import Later, Once
from peer.gateway.recordings import Keys, Recordings
from peer.gateway.rpc import Rpc, rpc_route
from peer.offered import Model
from protocol import limits
from protocol.errors import ConfigError, NetworkError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from trio_typing import TaskStatus

log = structlog.get_logger()

_HEADER_BYTES_MAX = 16 * 1024
_SHUTDOWN_S = 2


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Where the gateway listens (port 0: any free one), and the token that callers need."""

    host: str
    port: int
    token: str | None = None


def parse_listen(text: str, token: str | None) -> ApiSettings:
    """HOST:PORT, such as 127.0.0.1:4180 or [::1]:4180; a host that is not this machine's own
    needs a token. ConfigError `config.bad_value`."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError("config.bad_value", f"--api: {text!r} is not HOST:PORT")
    if bare == "localhost":
        bare = "127.0.0.1"
    try:
        address = ipaddress.ip_address(bare)
    except ValueError as error:
        raise ConfigError("config.bad_value", f"--api: {bare!r} is no IP address") from error
    if not address.is_loopback and token is None:
        detail = f"{bare} can be reached by others: set [api] token_file or PEERD_API_TOKEN"
        raise ConfigError("config.bad_value", detail)
    return ApiSettings(bare, int(port), token)


async def serve_gateway(
    settings: ApiSettings,
    market: Till,
    models: Callable[[], list[Model]],
    defaults: RequesterConfig,
    methods: dict[str, Method],
    keys: Keys,
    *,
    task_status: "TaskStatus[str]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; starts with the base URL. `methods` are the control socket's.

    NetworkError `network.listen`.
    """
    install()
    config = ServerConfig()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    config.bind = [f"{host}:{settings.port}"]
    config.include_server_header = False
    config.h11_max_incomplete_size = _HEADER_BYTES_MAX
    config.backlog = limits.API_CONNECTIONS_MAX
    config.shutdown_timeout = _SHUTDOWN_S
    config.accesslog = None
    config.errorlog = None
    # A second of imports that a node without a gateway does not need.
    from peer.gateway.mcp_tools import mcp_routes, mcp_server

    gateway = Gateway(market, models, defaults)
    try:
        async with trio.open_nursery() as nursery:
            client = AsyncClient(line=DirectLine(methods, nursery), defaults=defaults)
            recordings = Recordings(nursery.start_soon, keys)
            once = partial(Once, recordings=recordings)
            tools = mcp_server(client, gateway.place, once)
            more: list[BaseRoute] = [rpc_route(Rpc(client, gateway.place))]
            more += mcp_routes(tools, guarded=settings.token is not None)
            more += Later(recordings).routes()
            more += Insight(market, methods, defaults, gateway.place).routes()
            counts = HttpCounts()
            more += watch_routes(client, market, counts)
            paths = [getattr(route, "path", "") for route in [*gateway.routes(), *more]]
            paths.append(CHEQUES_PATH)
            desk = ChequeDesk(market, defaults, gateway.enter, gateway.leave).app()
            app: Any = Counted(make_app(gateway, settings.token, more, once, desk), paths, counts)
            await nursery.start(_run_sessions, tools)
            binds = await nursery.start(serve, app, config)
            log.info("gateway.ready", url=f"{binds[0]}/v1")
            task_status.started(f"{binds[0]}/v1")
    except* OSError as group:
        where = f"the API's {host}:{settings.port}: {first_error(group)}"
        raise NetworkError("network.listen", where) from group


async def _run_sessions(
    tools: "MCPServer[Any]", *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED
) -> None:
    async with tools.session_manager.run():
        task_status.started()
        await trio.sleep_forever()
