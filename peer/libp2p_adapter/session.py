"""One libp2p stream as the daemon sees it: bytes in, bytes out, bounded both ways.

Frames are the caller's affair. Must not know messages.
"""

import contextlib
from collections import deque
from typing import Any, Final

import trio
from libp2p.io.exceptions import IOException
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamError
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError

from protocol import limits
from protocol.errors import NetworkError, RemoteError

READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 256 * 1024
# After our end of stream, the other side's is awaited this long before the stream is reset.
LINGER_S: Final = 2.0

# What a stream of libp2p raises when it or its connection has ended, by any layer.
STREAM_ENDED: Final = (
    StreamError,
    MuxedStreamError,
    MuxedConnError,
    IOException,
    RawConnError,
    SwarmException,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)


class Session:
    """A stream to one peer. `peer` is its 32-byte public key.

    Writing goes through a task of its own (`run`), so that a caller who is cancelled leaves no
    half frame behind. Reading is bounded by the stream's window: the peer can't send more than
    256 KB ahead of `receive`.
    """

    def __init__(self, peer: bytes, stream: Any) -> None:
        self.peer = peer
        self._stream = stream
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = trio.Event()
        self._flushed = trio.Event()
        self._flushed.set()
        self._ending = False
        self._ended = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def closed(self) -> bool:
        """Whether nothing more will be sent."""
        return self._ending or self._ended.is_set()

    def send_nowait(self, data: bytes) -> None:
        """Queue bytes, already framed.

        NetworkError `session.closed`; RemoteError `session.overflow` when the peer has left
        SESSION_BUFFER_BYTES_MAX unread, which also closes the session.
        """
        if self.closed:
            raise NetworkError("session.closed")
        if self._queued_bytes + len(data) > limits.SESSION_BUFFER_BYTES_MAX:
            self.close_nowait()
            raise RemoteError("session.overflow", penalize=False)
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._flushed.is_set():
            self._flushed = trio.Event()
        self._wake.set()

    async def wait_flushed(self) -> None:
        """Until all that was queued is written. NetworkError `session.closed`."""
        await self._flushed.wait()
        if self._queued_bytes:
            raise NetworkError("session.closed")

    async def receive(self) -> bytes:
        """Some bytes; b"" when the peer ended the stream, reset it or vanished."""
        try:
            data: bytes = await self._stream.muxed_stream.read(READ_BYTES)
        except STREAM_ENDED:
            return b""
        return data

    async def aclose(self) -> None:
        """Write what is queued, end our side, and wait for the stream to be gone."""
        self._ending = True
        self._wake.set()
        await self._ended.wait()

    def close_nowait(self) -> None:
        """Reset the stream; what is queued is dropped."""
        self._ending = True
        self._scope.cancel()

    async def run(self) -> None:
        """Write until closed. Owned by the network, one task a session."""
        try:
            with self._scope:
                await self._write_all()
                await self._end()
        except (*STREAM_ENDED, trio.TooSlowError):
            pass
        finally:
            self._ending = True
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER_S):
                await self._reset()
            self._flushed.set()
            self._ended.set()

    async def _write_all(self) -> None:
        while True:
            while self._queue:
                await self._write(self._take())
            self._flushed.set()
            if self._ending:
                return
            self._wake = trio.Event()
            await self._wake.wait()

    def _take(self) -> bytes:
        """Everything queued up to WRITE_BYTES as one piece: tokens come in small frames, and
        each write costs a frame, an encryption and a system call."""
        parts = [self._queue.popleft()]
        size = len(parts[0])
        while self._queue and size + len(self._queue[0]) <= WRITE_BYTES:
            parts.append(self._queue.popleft())
            size += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _write(self, data: bytes) -> None:
        """Write within the peer's window, past libp2p's own state of a stream and its lock: the
        multiplexer's says the same."""
        muxed = self._stream.muxed_stream
        start = 0
        while start < len(data):
            if muxed.send_window <= 0:
                await muxed.wait_window()
            piece = data[start : start + max(1, muxed.send_window)]
            await muxed.write(piece)
            start += len(piece)
            self._queued_bytes -= len(piece)

    async def _end(self) -> None:
        await self._stream.close()
        with trio.move_on_after(LINGER_S):
            while await self._stream.muxed_stream.read(READ_BYTES):
                pass

    async def _reset(self) -> None:
        with contextlib.suppress(*STREAM_ENDED):
            await self._stream.reset()
