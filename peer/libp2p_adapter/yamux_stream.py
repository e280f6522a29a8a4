"""One stream of the multiplexer, without locks: nothing here waits between looking and doing.

Subclass of libp2p's, installed by `hardening`. Must not know frames that come in, which are
`yamux`'s.
"""

import struct
from typing import Any, Final

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import (
    DEFAULT_WINDOW_SIZE,
    HEADER_SIZE,
    MAX_MESSAGE_SIZE,
    TYPE_DATA,
    YAMUX_HEADER_FORMAT,
    YamuxStream,
)

from protocol import limits
from protocol.units import NS_PER_S

WRITE_TIMEOUT_S: Final = limits.STREAM_WRITE_TIMEOUT_NS / NS_PER_S


class BoundedStream(YamuxStream):  # type: ignore[misc]
    """Reads and writes that let other tasks run only where they have to wait.

    Stock asks five locks to write a frame, and two to read one, each of which lets all others
    run, also when it is free: half of the switches between tasks of a request.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.window_changed = trio.Event()
        self._pending_recv_release: int = 0

    async def write(self, data: bytes) -> None:
        """Write within the peer's window. MuxedStreamError when the stream is closed, or the
        window for WRITE_TIMEOUT_S."""
        start = 0
        while start < len(data):
            if self.send_window <= 0:
                await self.wait_window()
            if self.send_closed or self.closed:
                raise MuxedStreamError("the stream is closed for writing")
            size = min(self.send_window, MAX_MESSAGE_SIZE - HEADER_SIZE)
            piece = data[start : start + size]
            start += len(piece)
            self.send_window -= len(piece)
            header = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_DATA, 0, self.stream_id, len(piece))
            await self.conn._write_frame(header + piece)

    async def wait_window(self) -> None:
        """Until the peer takes more or the stream ends. MuxedStreamError after WRITE_TIMEOUT_S:
        stock gives up after 5 s, and looks every 10 ms."""
        with trio.move_on_after(WRITE_TIMEOUT_S):
            while self.send_window <= 0 and not (self.send_closed or self.closed):
                if self.window_changed.is_set():
                    self.window_changed = trio.Event()
                await self.window_changed.wait()
            return
        raise MuxedStreamError("the peer's window stays closed")

    async def read(self, n: int | None = -1) -> bytes:
        """What has come, at most `n` bytes of it unless that is negative, or what comes first.

        MuxedStreamReset, MuxedStreamEOF, both after what came before.
        """
        connection = self.conn
        while True:
            buffer = connection.stream_buffers.get(self.stream_id)
            if buffer:
                data = bytes(buffer) if n is None or n < 0 else bytes(buffer[:n])
                del buffer[: len(data)]
                if self.closed:
                    connection._finalize_stream_locked(self, fully_closed=True)
                await self._auto_tune_and_send_window_update(bytes_read=len(data))
                return data
            if self.reset_received:
                raise MuxedStreamReset("the stream was reset")
            if buffer is None or self.recv_closed or self.closed:
                raise MuxedStreamEOF("the stream has ended")
            arrived = connection.stream_events[self.stream_id]
            if arrived.is_set():  # of what has been read
                arrived = connection.stream_events[self.stream_id] = trio.Event()
            await arrived.wait()

    async def reset(self) -> None:
        """End both directions; what came and was not read is dropped, not kept for a minute."""
        self.recv_closed = True
        self.conn.stream_buffers.pop(self.stream_id, None)
        await super().reset()
        self.conn._finalize_stream_locked(self, fully_closed=True)

    async def _auto_tune_and_send_window_update(self, *, bytes_read: int = 0) -> None:
        """Give the window back by halves.

        Stock sends a frame for each read and lets the window grow to 16 MB. Here the window
        stays at 256 KB, which bounds what a stranger may make us hold. Shielded: the bytes that
        were read must reach a caller that is being cancelled.
        """
        self._pending_recv_release += bytes_read
        if self._pending_recv_release < DEFAULT_WINDOW_SIZE // 2:
            return
        released = self._pending_recv_release
        self._pending_recv_release = 0
        self.recv_window += released
        with trio.CancelScope(shield=True):
            await self.send_window_update(released)
