"""Server-sent events: from bytes as they come to the data of each event.

Pure. Only `data` matters here; comments and other fields are skipped. Lines end with LF or
CR LF, as every server of this kind writes them. Source: WHATWG HTML, "Server-sent events".
"""

from collections.abc import Iterator

from protocol import limits
from protocol.errors import EngineError


class EventStream:
    """Cuts one response into the data of its events."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._data: list[str] = []
        self._size = 0

    def push(self, data: bytes) -> Iterator[str]:
        """Add bytes; yields the data of the events that are complete.

        EngineError `engine.remote_failed` on one that is too long or not UTF-8.
        """
        self._bytes += data
        while (end := self._bytes.find(b"\n")) >= 0:
            line = bytes(self._bytes[:end]).removesuffix(b"\r")
            del self._bytes[: end + 1]
            if line:
                self._take(line)
            elif self._data:
                yield self._event()
        self._check(len(self._bytes))

    def end(self) -> Iterator[str]:
        """No more bytes: an event that lacks only its empty line counts."""
        if self._data:
            yield self._event()

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name != b"data":
            return
        self._check(len(value))
        self._size += len(value)
        try:
            self._data.append(value.removeprefix(b" ").decode())
        except UnicodeDecodeError:
            raise EngineError("engine.remote_failed", "its stream is not UTF-8") from None

    def _event(self) -> str:
        text = "\n".join(self._data)
        self._data.clear()
        self._size = 0
        return text

    def _check(self, more: int) -> None:
        if self._size + more > limits.REMOTE_EVENT_BYTES_MAX:
            raise EngineError("engine.remote_failed", "an event of its stream is too long")
