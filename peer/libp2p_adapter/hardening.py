"""Attributes of libp2p 0.8.1 that are replaced, all of them here, each with its reason.

`apply` is idempotent and process-wide. What a subclass or an argument can do is done in
`host`, `yamux`, `router` and `pubsub` instead; this file is what neither reaches. When a later
release makes one superfluous, its test passes without it: then it goes.
"""

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import libp2p.network.connection.swarm_connection as swarm_connection
import libp2p.pubsub.pubsub as pubsub
import libp2p.pubsub.rpc_queue as rpc_queue
import libp2p.security.noise.patterns as noise_patterns
import libp2p.stream_muxer.muxer_multistream as muxer_multistream
import libp2p.stream_muxer.yamux.yamux as yamux
import libp2p.tools.anyio_service.trio_manager as trio_manager
import libp2p.transport.tcp.tcp as tcp
import structlog
import trio

from peer.libp2p_adapter.noise import BufferedNoise
from peer.libp2p_adapter.yamux import BoundedYamux
from peer.libp2p_adapter.yamux_stream import BoundedStream
from protocol import limits

log = structlog.get_logger()

_APPLIED: Final[list[str]] = []


def _contain(async_fn: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`async_fn`, whose exceptions end it alone.

    The exceptions are those of libp2p's parsers and of whatever a stranger makes it do.
    """

    @functools.wraps(async_fn)
    async def contained(*args: Any) -> None:
        try:
            await async_fn(*args)
        except Exception as error:  # noqa: BLE001 - hostile input raises what it likes
            log.debug("libp2p.task_failed", error=type(error).__name__, detail=str(error)[:200])

    return contained


def _contain_tasks() -> None:
    """A task of a libp2p service that raises no longer ends the service, and so the host.

    Stock: one packet with garbage protobuf does (trio_manager.py:385). Daemon tasks and the
    service's own are left alone: their end is the service's end.
    """
    stock = trio_manager.TrioManager.run_task

    def run_task(
        self: Any,
        async_fn: Callable[..., Awaitable[None]],
        *args: Any,
        daemon: bool = False,
        name: str | None = None,
        _internal: bool = False,
    ) -> None:
        guarded = async_fn if daemon or _internal else _contain(async_fn)
        stock(self, guarded, *args, daemon=daemon, name=name, _internal=_internal)

    trio_manager.TrioManager.run_task = run_task


def _contain_streams() -> None:
    """A stream handler that raises resets its stream, not the connection's other streams."""
    stock = swarm_connection.SwarmConn._handle_muxed_stream

    async def handle(self: Any, muxed_stream: Any) -> None:
        try:
            await stock(self, muxed_stream)
        except Exception as error:  # noqa: BLE001 - negotiation and handlers read strangers' bytes
            log.debug("libp2p.stream_failed", error=type(error).__name__)
            await _contain(muxed_stream.reset)()

    swarm_connection.SwarmConn._handle_muxed_stream = handle


def _install_yamux() -> None:
    """The muxer is hard-coded by name (muxer_multistream.py:143), whatever `muxer_opt` says, and
    so are the class of its streams and that of encrypted messages."""
    muxer_multistream.Yamux = BoundedYamux
    yamux.YamuxStream = BoundedStream
    noise_patterns.NoiseTransportReadWriter = BufferedNoise


def _enlarge_queues() -> None:
    """Queues of 32 RPCs drop silently: of a burst of 100 messages, 32 arrive."""

    def queue() -> Any:
        return rpc_queue.RpcQueue(limits.RPCS_QUEUED_PER_PEER_MAX, limits.RPC_BYTES_MAX)

    pubsub.RpcQueue = queue


def _refuse_busy_ports() -> None:
    """Stock sets SO_REUSEPORT, so that two nodes share a port and each gets half the dials."""

    async def open_listeners(host: str | None, port: int) -> list[trio.SocketListener]:
        return list(await trio.open_tcp_listeners(port, host=host))

    tcp._open_reuseport_listeners = open_listeners


def _quiet_logging() -> None:
    """libp2p logs each hostile packet with a traceback, and one module to the root logger,
    which the first such call configures for the whole process."""
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # The one module that sets a level of its own.
    logging.getLogger("libp2p.network.auto_connector").setLevel(logging.CRITICAL)
    swarm_connection.logging = logging.getLogger("libp2p.network.connection")


_PATCHES: Final = (
    _contain_tasks,
    _contain_streams,
    _install_yamux,
    _enlarge_queues,
    _refuse_busy_ports,
    _quiet_logging,
)


def apply() -> None:
    """Replace them; a second call changes nothing."""
    for patch in _PATCHES:
        if patch.__name__ not in _APPLIED:
            _APPLIED.append(patch.__name__)
            patch()
