"""The stream multiplexer with what the stock one lacks: bounds, whole frames, keep-alive.

Subclasses of libp2p's Yamux, installed by `hardening`. Each difference has its reason beside
it. Must not know gossip, sessions or peers.
"""

import math
import struct
from typing import Any, Final

import structlog
import trio
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_ACK,
    FLAG_FIN,
    FLAG_RST,
    FLAG_SYN,
    HEADER_SIZE,
    TYPE_DATA,
    TYPE_GO_AWAY,
    TYPE_PING,
    TYPE_WINDOW_UPDATE,
    YAMUX_HEADER_FORMAT,
    Yamux,
)

from peer.libp2p_adapter.yamux_stream import WRITE_TIMEOUT_S, BoundedStream
from protocol import limits
from protocol.units import NS_PER_S

log = structlog.get_logger()

_HEADER: Final = struct.Struct(YAMUX_HEADER_FORMAT)
KEEPALIVE_S: Final = limits.KEEPALIVE_INTERVAL_NS / NS_PER_S
KEEPALIVE_TIMEOUT_S: Final = limits.KEEPALIVE_TIMEOUT_NS / NS_PER_S
# A frame that has begun to arrive is whole after this long, or its connection is closed.
_FRAME_TIMEOUT_S: Final = 60.0
# Writing more than this at once lets other tasks run, also when the socket takes all of it.
_BURST_BYTES: Final = 16 * 1024


class BoundExceeded(Exception):
    """The remote ignores flow control, opens too many streams or does not speak Yamux."""


class _Buffer(bytearray):
    """Unread bytes of one stream; refuses more than the window that was granted."""

    def __init__(self, owner: "_Buffers") -> None:
        super().__init__()
        self._owner = owner

    def extend(self, data: Any) -> None:
        """Append what arrived. BoundExceeded over the window or the connection's bound."""
        if len(self) + len(data) > DEFAULT_WINDOW_SIZE:
            raise BoundExceeded("stream window")
        if self._owner.total_bytes() + len(data) > limits.CONNECTION_BUFFER_BYTES_MAX:
            raise BoundExceeded("connection buffer")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    """Stream id to unread bytes; makes each new buffer a bounded one."""

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        super().__setitem__(stream_id, _Buffer(self))

    def total_bytes(self) -> int:
        """Unread bytes of the whole connection."""
        return sum(map(len, self.values()))


class _Streams(dict[int, Any]):
    """Stream id to stream; refuses more than a connection may have open."""

    def __setitem__(self, stream_id: int, stream: Any) -> None:
        if len(self) >= limits.STREAMS_PER_CONNECTION_MAX and stream_id not in self:
            raise BoundExceeded("streams")
        super().__setitem__(stream_id, stream)


class BoundedYamux(Yamux):  # type: ignore[misc]
    """A connection that holds a bounded amount of a stranger's bytes, and notices death."""

    keepalive_s = KEEPALIVE_S
    keepalive_timeout_s = KEEPALIVE_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Stock: 65 MB were buffered on a 256 KB window, and 5,000 streams opened by one peer.
        self.stream_buffers = _Buffers()
        self.streams = _Streams()
        self._ping_id: int = 0

    # --- in -------------------------------------------------------------------------------

    async def handle_incoming(self) -> None:
        """Take frames until the connection ends, and leave it closed.

        Stock reads each header and each body by itself, asks a lock for each frame and builds
        three lines for a log that is off; it accepts bodies of 16 MB, which no accounting
        afterwards can undo.
        """
        arrived, late_at_s = bytearray(), math.inf
        try:
            while not self.event_shutting_down.is_set():
                arrived += await self._receive(late_at_s)
                start = 0
                while len(arrived) - start >= HEADER_SIZE:
                    _, kind, flags, number, length = _HEADER.unpack_from(arrived, start)
                    body_at = start + HEADER_SIZE
                    end = body_at + (length if kind == TYPE_DATA else 0)
                    if end - body_at > DEFAULT_WINDOW_SIZE:
                        raise BoundExceeded("frame")
                    if end > len(arrived):
                        break
                    await self._take(kind, flags, number, length, arrived[body_at:end])
                    start = end
                del arrived[:start]
                if not arrived:
                    late_at_s = math.inf
                elif start or late_at_s == math.inf:
                    late_at_s = trio.current_time() + _FRAME_TIMEOUT_S
        except Exception as error:  # noqa: BLE001 - TCP's, Noise's and BoundExceeded: all end it
            log.debug("connection.ended", error=type(error).__name__, detail=str(error)[:200])
        await self._cleanup_on_error()

    async def _receive(self, late_at_s: float) -> bytes:
        """More bytes. TooSlowError when none come in time for a frame that has begun."""
        if late_at_s == math.inf:
            return bytes(await self.secured_conn.read())
        with trio.fail_at(late_at_s):
            return bytes(await self.secured_conn.read())

    async def _take(
        self, kind: int, flags: int, number: int, length: int, body: bytearray
    ) -> None:
        """Act on one frame; `length` is the window's or the ping's number where no body is."""
        if kind in (TYPE_DATA, TYPE_WINDOW_UPDATE):
            if flags & FLAG_SYN:
                if number in self.streams:
                    await self._answer(FLAG_RST, number)
                    return
                self.streams[number] = BoundedStream(number, self, False)
                self.stream_buffers[number] = bytearray()
                self.stream_events[number] = trio.Event()
            stream = self.streams.get(number)
            if stream is not None:  # else of one that has just ended here
                self._apply(stream, kind, flags, length, body)
                if flags & FLAG_SYN:
                    if not flags & FLAG_RST:
                        await self._answer(FLAG_ACK, number)
                    await self.new_stream_send_channel.send(stream)
        elif kind == TYPE_PING and flags & FLAG_SYN:
            answer = _HEADER.pack(0, TYPE_PING, FLAG_ACK, 0, length)
            await self._write_frame(answer)
        elif kind == TYPE_PING:
            self._ping_event.set()
        else:
            raise BoundExceeded("goodbye" if kind == TYPE_GO_AWAY else "not a frame of Yamux")

    def _apply(
        self, stream: BoundedStream, kind: int, flags: int, length: int, body: bytearray
    ) -> None:
        number = stream.stream_id
        if kind == TYPE_WINDOW_UPDATE:
            stream.send_window += length
            stream.window_changed.set()
        elif body and not stream.recv_closed:
            self.stream_buffers[number].extend(body)
            stream.recv_window = max(0, stream.recv_window - len(body))
        if flags & FLAG_RST:
            stream.closed = stream.reset_received = True
        elif flags & FLAG_FIN:
            stream.recv_closed = True
            stream.closed = stream.send_closed
        self.stream_events[number].set()
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)

    # --- ends -----------------------------------------------------------------------------

    def _finalize_stream_locked(self, stream: BoundedStream, *, fully_closed: bool) -> None:
        """Forget a stream that has ended, and wake who waits for it: stock leaves a reader of a
        stream that is reset on this side waiting for ever."""
        arrived = self.stream_events.get(stream.stream_id)
        super()._finalize_stream_locked(stream, fully_closed=fully_closed)
        if fully_closed and arrived is not None:
            arrived.set()
            stream.window_changed.set()

    async def _cleanup_on_error(self) -> None:
        """Close the connection and all of its streams."""
        streams = list(self.streams.values())
        await super()._cleanup_on_error()
        for stream in streams:
            stream.window_changed.set()

    async def close(self, error_code: int = 0) -> None:
        """Say goodbye and close."""
        streams = list(self.streams.values())
        await super().close(error_code)
        for stream in streams:
            stream.window_changed.set()

    # --- out ------------------------------------------------------------------------------

    async def _answer(self, flag: int, number: int) -> None:
        await self._write_frame(_HEADER.pack(0, TYPE_WINDOW_UPDATE, flag, number, 0))

    async def _write_frame(self, data: bytes) -> None:
        """Write one frame whole.

        Stock writes end with the caller's cancel scope, in the middle of a Noise message if
        need be, and then no byte of the connection can be read any more. Here a frame that
        was begun is finished, or the connection closed after WRITE_TIMEOUT_S. Where the socket
        takes it at once, nobody else runs.
        """
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        try:
            noise = self.secured_conn.conn
            rest = noise.write_nowait(data)
            if rest:
                with trio.CancelScope(
                    shield=True, deadline=trio.current_time() + WRITE_TIMEOUT_S
                ) as scope:
                    await noise.write_rest(rest)
                if scope.cancelled_caught:
                    with trio.CancelScope(shield=True):
                        await self._cleanup_on_error()
        finally:
            self._write_lock.release()
        if len(data) > _BURST_BYTES:
            await trio.lowlevel.checkpoint()

    # --- alive ----------------------------------------------------------------------------

    async def _measure_rtt_loop(self) -> None:
        """Ping on an interval; close the connection when no answer comes.

        Stock pings twice a minute and ignores silence, so a stopped peer is never noticed.
        libp2p's optional health monitor notices, but opens a stream for each check: ~3 ms
        CPU instead of two frames of 12 bytes, and it needs the remote to serve ping.
        """
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) % 2**32
            self._ping_event = trio.Event()
            try:
                await self._write_frame(_HEADER.pack(0, TYPE_PING, FLAG_SYN, 0, self._ping_id))
            except Exception:  # noqa: BLE001 - any transport error: the reader sees it as well
                return
            with trio.move_on_after(self.keepalive_timeout_s) as scope:
                await self._ping_event.wait()
            if scope.cancelled_caught:
                self.event_shutting_down.set()
                with trio.CancelScope(shield=True):
                    await self._cleanup_on_error()
                return
            with trio.move_on_after(self.keepalive_s):
                await self.event_shutting_down.wait()

    async def start(self) -> None:
        """Run the connection; whatever ends it, it ends closed.

        The inbound slot is given back when `event_closed` is set, so that it is always set.
        """
        try:
            await super().start()
        finally:
            if not self.event_closed.is_set():
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await self._cleanup_on_error()
                self.event_closed.set()
