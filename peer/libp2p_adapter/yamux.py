"""The stream multiplexer with what the stock one lacks: bounds, whole frames, keep-alive.

Subclasses of libp2p's Yamux, installed by `hardening`. Each difference has its reason beside
it. Must not know gossip, sessions or peers.
"""

import struct
from typing import Any, Final

import trio
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    FLAG_SYN,
    TYPE_PING,
    YAMUX_HEADER_FORMAT,
    Yamux,
    YamuxStream,
)

from protocol import limits
from protocol.units import NS_PER_S

KEEPALIVE_S: Final = limits.KEEPALIVE_INTERVAL_NS / NS_PER_S
KEEPALIVE_TIMEOUT_S: Final = limits.KEEPALIVE_TIMEOUT_NS / NS_PER_S
WRITE_TIMEOUT_S: Final = limits.STREAM_WRITE_TIMEOUT_NS / NS_PER_S


class BoundExceeded(trio.TooSlowError):
    """The remote ignores flow control or opens too many streams.

    A TooSlowError because that is the one exception that the stock read loop answers, in all
    of its branches, by closing the connection.
    """


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

    async def _read_data_body(self, length: int) -> bytes:
        """Read a frame's body; no frame of a well-behaved remote exceeds the window.

        Stock accepts 16 MB at once, which no accounting afterwards can undo.
        """
        if length > DEFAULT_WINDOW_SIZE:
            raise BoundExceeded("frame")
        body: bytes = await super()._read_data_body(length)
        return body

    async def _write_frame(self, data: bytes) -> None:
        """Write one frame whole.

        Stock writes end with the caller's cancel scope, in the middle of a Noise message if
        need be, and then no byte of the connection can be read any more. Here a frame that
        was begun is finished, or the connection closed after WRITE_TIMEOUT_S.
        """
        async with self._write_lock:
            with trio.CancelScope(
                shield=True, deadline=trio.current_time() + WRITE_TIMEOUT_S
            ) as scope:
                await self.secured_conn.write(data)
            if scope.cancelled_caught:
                with trio.CancelScope(shield=True):
                    await self._cleanup_on_error()
        await trio.lowlevel.checkpoint()

    async def _measure_rtt_loop(self) -> None:
        """Ping on an interval; close the connection when no answer comes.

        Stock pings twice a minute and ignores silence, so a stopped peer is never noticed.
        libp2p's optional health monitor notices, but opens a stream for each check: ~3 ms
        CPU instead of two frames of 12 bytes, and it needs the remote to serve ping.
        """
        while not self.event_shutting_down.is_set():
            self._ping_id = (self._ping_id + 1) % 2**32
            self._ping_event = trio.Event()
            self._ping_sent_time = trio.current_time()
            try:
                await self._write_frame(
                    struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_SYN, 0, self._ping_id)
                )
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


async def release_window(self: Any, *, bytes_read: int = 0) -> None:
    """Replaces `YamuxStream._auto_tune_and_send_window_update`.

    Stock sends a frame for each read and lets the window grow to 16 MB. Here the window stays
    at 256 KB, which bounds what a stranger may make us hold, and is given back by halves.
    Shielded: the bytes that were read must reach a caller that is being cancelled.
    """
    self._pending_recv_release += bytes_read
    if self._pending_recv_release < DEFAULT_WINDOW_SIZE // 2:
        return
    released = self._pending_recv_release
    self._pending_recv_release = 0
    self.recv_window += released
    with trio.CancelScope(shield=True):
        await self.send_window_update(released)


__all__ = ["BoundExceeded", "BoundedYamux", "YamuxStream", "release_window"]
