"""The log's files: reading them, recovering them, and writing at their end; all blocking.

Knows no tasks: `peer.journal` runs it in a thread. `DATA/log/` holds `00000000.log`, ... and
what recovery set aside, `torn-<segment>-<offset>.bin`. Rule: protocol/log.py.
"""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peer.disk import Disk, RealDisk
from protocol import limits
from protocol.errors import StorageError
from protocol.log import (
    HEADER_BYTES,
    LogEntry,
    LogReplay,
    ScanOutcome,
    SegmentHeader,
    encode_header,
)

_SEGMENT_NAME: Final = re.compile(r"\d{8}\.log")
_UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening found: `torn_bytes` of an incomplete last write were set aside."""

    records: int
    segments: int
    torn_bytes: int
    head: bytes


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a check found; `state` is "clean", "torn_tail" or "corrupt", `detail` where and why.

    `records` and `head` are those of the good part. While a daemon writes, a torn tail is only
    a record that is not all there yet.
    """

    records: int
    segments: int
    head: bytes
    state: str
    detail: str


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """OSError as StorageError "storage.unwritable" or "storage.io", naming `path`."""
    try:
        yield
    except OSError as error:
        code = "storage.unwritable" if error.errno in _UNWRITABLE else "storage.io"
        raise StorageError(code, f"{path}: {error.strerror or error}") from error


def segment_path(directory: Path, segment: int) -> Path:
    """The file of a segment."""
    return directory / f"{segment:08d}.log"


def write_all(disk: Disk, handle: int, data: bytes, offset: int) -> None:
    """Writes all of `data`; OSError as soon as the disk takes nothing more."""
    rest = memoryview(data)
    while rest:
        count = disk.pwrite(handle, rest, offset)
        if count <= 0:
            raise OSError(errno.EIO, "the disk took none of the bytes")
        rest = rest[count:]
        offset += count


class SegmentReader:
    """Reads the segments of a directory in order, with one of them in memory at a time."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        *,
        network: str | None = None,
        owner: bytes | None = None,
        settle: bool = False,
    ) -> None:
        self.replay = LogReplay(network, owner)
        self.segments = 0
        self.last_data = b""
        self._disk = disk
        self._directory = directory
        self._settle = settle

    def entries(self) -> Iterator[LogEntry]:
        """All entries of the good part; afterwards `replay` says how it ended."""
        with storage_errors(self._directory):
            names = [n for n in self._disk.list(self._directory) if _SEGMENT_NAME.fullmatch(n)]
        for index, name in enumerate(names):
            path = segment_path(self._directory, index)
            if name != path.name:
                self._fail(f"{path.name} is missing")
                return
            data = self._read(path)
            if len(data) > limits.SEGMENT_BYTES_MAX:
                self._fail(f"{name} is longer than a segment can be")
                return
            self.segments += 1
            self.last_data = data
            yield from self.replay.scan(data, is_last=index == len(names) - 1)
            if self.replay.outcome is not ScanOutcome.CLEAN:
                where = f"{name} at offset {self.replay.offset}"
                self.replay.detail = f"{where}: {self.replay.detail}"
                return

    def report(self) -> LogReport:
        """What was found; after `entries` was exhausted."""
        replay = self.replay
        return LogReport(
            replay.sequence, self.segments, replay.head, replay.outcome.value, replay.detail
        )

    def _fail(self, detail: str) -> None:
        self.replay.outcome, self.replay.detail = ScanOutcome.CORRUPT, detail

    def _read(self, path: Path) -> bytes:
        with storage_errors(path):
            handle = self._disk.open(path, write=self._settle)
            try:
                if self._settle:
                    self._disk.settle(handle)
                length = min(self._disk.size(handle), limits.SEGMENT_BYTES_MAX + 1)
                return self._disk.pread(handle, length, 0)
            finally:
                self._disk.close(handle)


class SegmentWriter:
    """Writes at the log's end, which must be durable as it is given; one caller at a time.

    `sequence` and `head` are those of the next frame to be written. Any OSError leaves it in
    an unknown state: it must not be used again.

    Files grow with what is written. Filled with zeros beforehand they would sync some 1.6 times
    as fast, as SQLite's log does, but then pages of one commit may reach the disk in any order,
    and a power cut in its middle would look like damage. While a file grows, its length is
    updated after its bytes, and an incomplete commit is a torn tail.
    """

    def __init__(
        self, disk: Disk, directory: Path, network: str, owner: bytes, segment_bytes_max: int
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
        path = segment_path(self.directory, segment)
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
        self._handle = self._disk.open(segment_path(self.directory, segment), write=True)
        if self._disk.size(self._handle) > offset:
            self._disk.truncate(self._handle, offset)
            self._disk.fdatasync(self._handle)
        self._offset = offset

    def set_aside(self, offset: int, data: bytes) -> None:
        """Keeps `data`, found at `offset` of this segment, in a file of its own, durably."""
        stem = f"torn-{self.segment:08d}-{offset}"
        taken = set(self._disk.list(self.directory))
        name, count = f"{stem}.bin", 1
        while name in taken:
            name, count = f"{stem}-{count}.bin", count + 1
        handle = self._disk.open(self.directory / name, write=True, create=True)
        try:
            write_all(self._disk, handle, data, 0)
            self._disk.fdatasync(handle)
        finally:
            self._disk.close(handle)
        self._disk.sync_directory(self.directory)

    def commit(self, frames: list[bytes]) -> None:
        """Returns when the frames are durable, having begun new segments where one was full."""
        if self._offset + sum(map(len, frames)) <= self._segment_bytes_max:
            self._write(frames)
            return
        start, end = 0, self._offset
        for index, frame in enumerate(frames):
            if end + len(frame) > self._segment_bytes_max and end > HEADER_BYTES:
                self._write(frames[start:index])
                self._disk.close(self._handle)
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


def recover(
    reader: SegmentReader, writer: SegmentWriter, on_entry: Callable[[LogEntry], None]
) -> RecoveryReport:
    """Replays the log into `on_entry`, sets a torn tail aside, and places `writer` at the end.

    StorageError "storage.corrupt", "storage.foreign", "storage.version", "storage.io",
    "storage.unwritable". `on_entry` may have had entries before a later one is found bad.
    """
    for entry in reader.entries():
        on_entry(entry)
    replay = reader.replay
    if replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", replay.detail)
    torn = reader.last_data[replay.offset :] if reader.segments else b""
    last = max(reader.segments - 1, 0)
    with storage_errors(writer.directory):
        if torn:
            writer.segment = last
            writer.set_aside(replay.offset, torn)
        if replay.offset == 0:
            writer.begin(last, replay.sequence, replay.head)
        else:
            writer.resume(last, replay.sequence, replay.head, replay.offset)
    return RecoveryReport(replay.sequence, last + 1, len(torn), replay.head)


def read_entries(directory: Path, *, disk: Disk | None = None) -> Iterator[LogEntry]:
    """All records of a log, without its lock; StorageError "storage.corrupt" where it breaks."""
    reader = log_reader(directory, disk=disk)
    yield from reader.entries()
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)


def verify_log(directory: Path, *, disk: Disk | None = None) -> LogReport:
    """Checks every checksum, sequence and chain of a log, without its lock and changing nothing.

    StorageError "storage.no_log" where there is none, "storage.io" where it can't be read.
    """
    reader = log_reader(directory, disk=disk)
    for _ in reader.entries():
        pass
    return reader.report()


def log_reader(directory: Path, *, disk: Disk | None = None) -> SegmentReader:
    """Reads whoever's log without its lock; its replay then knows whose. `storage.no_log`."""
    if disk is None:
        disk = RealDisk()
        if not directory.is_dir():
            raise StorageError("storage.no_log", str(directory))
    return SegmentReader(disk, directory)
