"""Length-prefixed frames on a byte stream: u32 big-endian length, then that many bytes.

Sans-IO: bytes in, whole frames out, however they were cut. Rule: protocol/README.md.
"""

from protocol import limits
from protocol.errors import LocalError, RemoteError

HEADER_BYTES = 4


def frame(body: bytes, bytes_max: int = limits.FRAME_BYTES_MAX) -> bytes:
    """`body` behind its length. LocalError `wire.unencodable` when empty or too long."""
    if not 0 < len(body) <= bytes_max:
        raise LocalError("wire.unencodable", f"frame of {len(body)} bytes")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameReader:
    """Collects bytes until frames are whole; holds at most one frame and what came with it."""

    def __init__(self, bytes_max: int = limits.FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max
        # A bad header: the stream can't be used any further. What came whole before it counts.
        self.broken: RemoteError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order.

        RemoteError `wire.oversized` or `wire.malformed` as soon as a header says so, or, when
        whole frames come before it, in `broken` and at the next call.
        """
        if self.broken is not None:
            raise self.broken
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[start : start + HEADER_BYTES], "big")
            if length > self._bytes_max:
                self.broken = RemoteError("wire.oversized", f"frame of {length} bytes")
            elif length == 0:
                self.broken = RemoteError("wire.malformed", "empty frame")
            if self.broken is not None:
                break
            end = start + HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + HEADER_BYTES : end]))
            start = end
        del self._buffer[:start]
        if self.broken is not None and not frames:
            raise self.broken
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)
