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

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, in order.

        RemoteError `wire.oversized` or `wire.malformed` as soon as a header says so: the
        stream can't be used any further.
        """
        self._buffer += data
        frames: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[start : start + HEADER_BYTES], "big")
            if length > self._bytes_max:
                raise RemoteError("wire.oversized", f"frame of {length} bytes")
            if length == 0:
                raise RemoteError("wire.malformed", "empty frame")
            end = start + HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + HEADER_BYTES : end]))
            start = end
        del self._buffer[:start]
        return frames

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)
