"""The log's files on some disk: reading them, and writing at their end.

Blocking, on a `Disk` that comes as an argument; knows no tasks. A directory holds
`00000000.log`, ... and what recovery set aside, `torn-<segment>-<offset>.bin`. Rule:
protocol/log.py; protocol/README.md, "Snapshots".
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.disk import Disk
from protocol.errors import StorageError
from protocol.log import (
    FRAME_TYPE_AT,
    HEADER_BYTES,
    SNAPSHOT_TYPE,
    LogEntry,
    LogReplay,
    ScanOutcome,
    SegmentHeader,
    encode_header,
)

_SEGMENT_NAME: Final = re.compile(r"\d{8}\.log")
_UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a check found; `state` is "clean", "torn_tail" or "corrupt", `detail` where and why.

    `records` and `head` are those of the good part; it begins at `first_record`, which is 0
    unless what was before is archived elsewhere. While a daemon writes, a torn tail is only a
    record that is not all there yet.
    """

    records: int
    segments: int
    head: bytes
    state: str
    detail: str
    first_record: int


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """OSError as StorageError "storage.unwritable" or "storage.io", naming `path`."""
    try:
        yield
    except OSError as error:
        code = "storage.unwritable" if error.errno in _UNWRITABLE else "storage.io"
        raise StorageError(code, f"{path}: {error.strerror or error}") from error


def segment_name(segment: int) -> str:
    """The file name of a segment."""
    return f"{segment:08d}.log"


def list_segments(disk: Disk, directory: str) -> list[int]:
    """The numbers of the segments in a directory, rising. StorageError "storage.io"."""
    with storage_errors(directory):
        names = disk.list(directory)
    return [int(name[:8]) for name in names if _SEGMENT_NAME.fullmatch(name)]


def write_all(disk: Disk, handle: int, data: bytes, offset: int) -> None:
    """Writes all of `data`; OSError as soon as the disk takes nothing more."""
    rest = memoryview(data)
    while rest:
        count = disk.pwrite(handle, rest, offset)
        if count <= 0:
            raise OSError(errno.EIO, "the disk took none of the bytes")
        rest = rest[count:]
        offset += count


def read_segment(disk: Disk, path: str, *, settle: bool = False) -> bytes:
    """A segment's bytes, and one more than the most there can be where it is longer."""
    with storage_errors(path):
        handle = disk.open(path, write=settle)
        try:
            if settle:
                disk.settle(handle)
            length = min(disk.size(handle), limits.SEGMENT_BYTES_MAX + 1)
            return disk.pread(handle, length, 0)
        finally:
            disk.close(handle)


def write_file(disk: Disk, path: str, data: bytes) -> None:
    """A new file that is complete and durable, but for its name in the directory."""
    handle = disk.open(path, write=True, create=True)
    try:
        disk.truncate(handle, 0)
        write_all(disk, handle, data, 0)
        disk.fdatasync(handle)
    finally:
        disk.close(handle)


class SegmentReader:
    """Reads segments in order, with one of them in memory at a time, from `start` on or from
    the lowest there is. Of a number that two directories have, the first directory's is read.

    A log that does not start at segment 0 must start with a snapshot; whether it does is for
    whoever takes the entries to see.
    """

    def __init__(
        self,
        disk: Disk,
        *directories: str,
        network: str | None = None,
        owner: bytes | None = None,
        settle: bool = False,
        start: int | None = None,
    ) -> None:
        self.replay = LogReplay(network, owner)
        self.segments = 0
        self.last_segment = 0
        self.last_data = b""
        self._disk = disk
        self._directories = directories
        self._settle = settle
        self._start = start

    def entries(self) -> Iterator[LogEntry]:
        """All entries of the good part; afterwards `replay` says how it ended."""
        paths: dict[int, str] = {}
        for directory in reversed(self._directories):
            for number in list_segments(self._disk, directory):
                paths[number] = f"{directory}/{segment_name(number)}"
        first = min(paths, default=0) if self._start is None else self._start
        if first:
            self.replay.begin_at(first)
        last = max(paths, default=-1)
        for number in range(first, last + 1):
            if number not in paths:
                self._fail(f"{segment_name(number)} is missing")
                return
            yield from self._segment(number, paths[number], is_last=number == last)
            if self.replay.outcome is not ScanOutcome.CLEAN:
                return

    def _segment(self, number: int, path: str, *, is_last: bool) -> Iterator[LogEntry]:
        name = segment_name(number)
        data = read_segment(self._disk, path, settle=self._settle)
        if len(data) > limits.SEGMENT_BYTES_MAX:
            self._fail(f"{name} is longer than a segment can be")
            return
        self.segments += 1
        self.last_segment, self.last_data = number, data
        yield from self.replay.scan(data, is_last=is_last)
        if self.replay.outcome is not ScanOutcome.CLEAN:
            where = f"{name} at offset {self.replay.offset}"
            self.replay.detail = f"{where}: {self.replay.detail}"

    def report(self) -> LogReport:
        """What was found; after `entries` was exhausted."""
        replay = self.replay
        return LogReport(
            replay.sequence,
            self.segments,
            replay.head,
            replay.outcome.value,
            replay.detail,
            replay.first_sequence,
        )

    def _fail(self, detail: str) -> None:
        self.replay.outcome, self.replay.detail = ScanOutcome.CORRUPT, detail


class SegmentWriter:
    """Writes at the log's end, which must be durable as it is given; one caller at a time.

    `sequence` and `head` are those of the next frame to be written. A snapshot begins a segment
    of its own, so that all before it can be archived. Any OSError leaves the writer in an
    unknown state: it must not be used again.

    Files grow with what is written. Filled with zeros beforehand they would sync some 1.6 times
    as fast, as SQLite's log does, but then pages of one commit may reach the disk in any order,
    and a power cut in its middle would look like damage. While a file grows, its length is
    updated after its bytes, and an incomplete commit is a torn tail.
    """

    def __init__(
        self, disk: Disk, directory: str, network: str, owner: bytes, segment_bytes_max: int
    ) -> None:
        assert HEADER_BYTES < segment_bytes_max <= limits.SEGMENT_BYTES_MAX
        self.segment = 0
        self.sequence = 0
        self.head = b""
        self._disk = disk
        self.directory = directory
        self._network = network
        self._owner = owner
        self._segment_bytes_max = segment_bytes_max
        self._handle = -1
        self._offset = 0

    def begin(self, segment: int, sequence: int, head: bytes) -> None:
        """Makes the segment, empty but for its header, and both it and its name durable."""
        self.segment, self.sequence, self.head = segment, sequence, head
        path = f"{self.directory}/{segment_name(segment)}"
        self._handle = self._disk.open(path, write=True, create=True)
        self._disk.truncate(self._handle, 0)
        header = SegmentHeader(self._network, self._owner, segment, sequence, head)
        write_all(self._disk, self._handle, encode_header(header), 0)
        self._disk.fdatasync(self._handle)
        self._disk.sync_directory(self.directory)
        self._offset = HEADER_BYTES

    def resume(self, segment: int, sequence: int, head: bytes, offset: int) -> None:
        """Continues a segment whose good bytes end at `offset`; what follows is cut off."""
        self.segment, self.sequence, self.head = segment, sequence, head
        path = f"{self.directory}/{segment_name(segment)}"
        self._handle = self._disk.open(path, write=True)
        if self._disk.size(self._handle) > offset:
            self._disk.truncate(self._handle, offset)
            self._disk.fdatasync(self._handle)
        self._offset = offset

    def set_aside(self, segment: int, offset: int, data: bytes) -> None:
        """Keeps `data`, found at `offset` of a segment, in a file of its own, durably."""
        stem = f"torn-{segment:08d}-{offset}"
        taken = set(self._disk.list(self.directory))
        name, count = f"{stem}.bin", 1
        while name in taken:
            name, count = f"{stem}-{count}.bin", count + 1
        write_file(self._disk, f"{self.directory}/{name}", data)
        self._disk.sync_directory(self.directory)

    def commit(self, frames: list[bytes], *, snapshots: bool = True) -> None:
        """Returns when the frames are durable, having begun new segments where one was full or
        a snapshot begins; `snapshots` is whether there can be one among them."""
        if not snapshots and self._offset + sum(map(len, frames)) <= self._segment_bytes_max:
            self._write(frames)
            return
        start, end = 0, self._offset
        for index, frame in enumerate(frames):
            full = end + len(frame) > self._segment_bytes_max
            if (full or frame[FRAME_TYPE_AT] == SNAPSHOT_TYPE) and end > HEADER_BYTES:
                self._write(frames[start:index])
                self.close()
                self.begin(self.segment + 1, self.sequence, self.head)
                start, end = index, self._offset
            end += len(frame)
        self._write(frames[start:])

    def close(self) -> None:
        """Gives the file back; nothing is written."""
        if self._handle >= 0:
            self._disk.close(self._handle)
            self._handle = -1

    def _write(self, frames: list[bytes]) -> None:
        if not frames:
            return
        data = b"".join(frames)
        write_all(self._disk, self._handle, data, self._offset)
        self._disk.fdatasync(self._handle)
        self._offset += len(data)
        self.sequence += len(frames)
        self.head = frames[-1][-len(self.head) :]
