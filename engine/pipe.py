"""The worker's end of the pipes: frames in and out without blocking the steps.

What the daemon has not read yet is merged, so a slow reader gets several tokens in a frame.
Must not know models or trio. Rule: engine/README.md.
"""

import array
import fcntl
import os
import select
import termios
import time
from collections.abc import Iterable

from engine.frames import (
    FrameBuffer,
    FromWorker,
    JobEmbedded,
    JobEvent,
    JobTokens,
    Report,
    Scored,
    Speed,
    ToWorker,
    decode_to_worker,
    encode,
)
from protocol import limits
from protocol.units import NS_PER_MS

READ_BYTES = 256 * 1024
# A token's probability and the msgpack around it.
SCORE_BYTES = 8


class Pipe:
    """Frames over two file descriptors, which it makes non-blocking."""

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self._input_fd = input_fd
        self._output_fd = output_fd
        os.set_blocking(input_fd, False)
        os.set_blocking(output_fd, False)
        self._buffer = FrameBuffer()
        self._unsent = b""
        self._unread = array.array("i", [0])
        self._poll_input, self._poll_both = select.poll(), select.poll()
        self._poll_input.register(input_fd, select.POLLIN)
        self._poll_both.register(input_fd, select.POLLIN)
        self._poll_both.register(output_fd, select.POLLOUT)
        self.is_closed = False

    @property
    def is_clear(self) -> bool:
        """Whether everything that was sent has left."""
        return not self._unsent

    @property
    def is_drained(self) -> bool:
        """Whether the reader has taken everything; also true where the system can't tell."""
        if self._unsent:
            return False
        try:
            fcntl.ioctl(self._output_fd, termios.FIONREAD, self._unread)
        except OSError:
            return True
        return self._unread[0] == 0

    def wait(self, timeout_ns: int | None) -> bool:
        """Until there is input, or room for unsent output, or the time is over (None: never).

        Whether `receive` has something to do.
        """
        poll = self._poll_both if self._unsent else self._poll_input
        events = poll.poll(None if timeout_ns is None else timeout_ns / NS_PER_MS)
        return any(fd == self._input_fd for fd, _ in events)

    def receive(self) -> Iterable[ToWorker]:
        """The messages that are here; sets `is_closed` at the end of input. FrameError."""
        while not self.is_closed:
            try:
                data = os.read(self._input_fd, READ_BYTES)
            except BlockingIOError:
                return
            self.is_closed = not data
            for body in self._buffer.push(data):
                yield decode_to_worker(body)
            if len(data) < READ_BYTES:
                return  # that was all: another look would cost as much as this one

    def send(self, message: FromWorker) -> None:
        """Write as much as the pipe takes and keep the rest."""
        self._unsent += encode(message)
        self.flush()

    def flush(self) -> None:
        """Write what was kept. A closed reader closes the pipe."""
        while self._unsent:
            try:
                written = os.write(self._output_fd, self._unsent)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.is_closed = True
                return
            self._unsent = self._unsent[written:]


class Outbox:
    """Events that wait for the pipe; a job's tokens in a row become one event."""

    def __init__(self) -> None:
        self._events: list[JobEvent] = []
        self._open: dict[int, int] = {}
        self._characters = 0
        self._sent_ns = time.monotonic_ns()

    @property
    def is_full(self) -> bool:
        """Whether the reader is so far behind that decoding should pause."""
        return self._characters > limits.ENGINE_OUTBOX_CHARS_MAX

    @property
    def is_late(self) -> bool:
        """Whether a sign of life is due."""
        return time.monotonic_ns() - self._sent_ns >= limits.ENGINE_HEARTBEAT_NS

    def add(self, event: JobEvent) -> None:
        """Keep an event, merged into the job's last one when both are tokens."""
        if isinstance(event, JobEmbedded):
            self._characters += len(event.vector)
        if not isinstance(event, JobTokens):
            self._events.append(event)
            return
        self._characters += len(event.text) + sum(map(_size, event.scores))
        index = self._open.get(event.handle)
        if index is None:
            self._open[event.handle] = len(self._events)
            self._events.append(event)
            return
        before = self._events[index]
        assert isinstance(before, JobTokens)
        self._events[index] = JobTokens(
            event.handle,
            before.text + event.text,
            before.count + event.count,
            before.ids + event.ids,
            before.scores + event.scores,
        )

    def report(self, speed: Speed) -> Report | None:
        """Everything since the last report, or None when there is nothing to say yet."""
        if not self._events and not self.is_late:
            return None
        report = Report(self._events, speed)
        self._events, self._open, self._characters = [], {}, 0
        self._sent_ns = time.monotonic_ns()
        return report


def _size(scored: Scored) -> int:
    """The bytes that a token's scores take, about: they fill a report faster than its text."""
    piece, _, top = scored
    pieces = (piece, *(piece for piece, _ in top))
    return sum(map(len, pieces)) + SCORE_BYTES * len(pieces)
