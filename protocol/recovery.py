"""Opening a log: where its replay starts, what is torn, and where writing goes on.

Rule: protocol/log.py; protocol/README.md, "Snapshots".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from protocol.disk import Disk
from protocol.errors import StorageError
from protocol.log import (
    FRAME_TYPE_AT,
    HEADER_BYTES,
    SNAPSHOT_END_TYPE,
    SNAPSHOT_PART_TYPE,
    SNAPSHOT_TYPE,
    LogEntry,
    ScanOutcome,
)
from protocol.segments import (
    SegmentReader,
    SegmentWriter,
    list_segments,
    segment_name,
    storage_errors,
)


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What opening found: `torn_bytes` of an incomplete last write were set aside.

    `records` are all, archived ones included; `replayed_from` is the first one that was read:
    0, or where a snapshot begins. `segments` are files.
    """

    records: int
    segments: int
    torn_bytes: int
    head: bytes
    replayed_from: int


def recover(
    disk: Disk,
    writer: SegmentWriter,
    network: str,
    owner: bytes,
    on_entry: Callable[[LogEntry], None],
) -> RecoveryReport:
    """Replays the log into `on_entry` from its newest complete snapshot, or its start, sets a
    torn tail aside, and places `writer` at the end.

    StorageError "storage.corrupt", "storage.foreign", "storage.version", "storage.io",
    "storage.unwritable". `on_entry` may have had entries before a later one is found bad.
    """
    directory = writer.directory
    for start in _beginnings(disk, directory):
        reader = SegmentReader(
            disk, directory, network=network, owner=owner, settle=True, start=start
        )
        if _replay(reader, on_entry, whole=start == 0):
            break
        if reader.replay.outcome is ScanOutcome.CORRUPT:
            raise StorageError("storage.corrupt", reader.replay.detail)
    else:
        raise StorageError("storage.corrupt", "the log does not begin with a complete snapshot")
    replay = reader.replay
    if replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", replay.detail)
    torn = reader.last_data[replay.offset :]
    last = reader.last_segment
    with storage_errors(directory):
        if torn:
            writer.set_aside(last, replay.offset, torn)
        if replay.offset == 0:
            writer.begin(last, replay.sequence, replay.head)
        else:
            writer.resume(last, replay.sequence, replay.head, replay.offset)
    segments = len(list_segments(disk, directory))
    return RecoveryReport(replay.sequence, segments, len(torn), replay.head, replay.first_sequence)


def _beginnings(disk: Disk, directory: str) -> list[int]:
    """The segments at which a replay may start: those that begin with a snapshot, newest
    first, then the lowest."""
    numbers = list_segments(disk, directory)
    lowest = min(numbers, default=0)
    found = [lowest]
    for number in sorted(numbers):
        if number == lowest:
            continue
        path = f"{directory}/{segment_name(number)}"
        with storage_errors(path):
            handle = disk.open(path)
            try:
                kind = disk.pread(handle, 1, HEADER_BYTES + FRAME_TYPE_AT)
            finally:
                disk.close(handle)
        if kind == bytes([SNAPSHOT_TYPE]):
            found.append(number)
    return found[::-1]


def _replay(reader: SegmentReader, on_entry: Callable[[LogEntry], None], *, whole: bool) -> bool:
    """Gives all entries on; False, and none given, where the snapshot that they begin with is
    not complete. With `whole` there need not be one."""
    entries = reader.entries()
    snapshot = [] if whole else first_snapshot(entries)
    if not snapshot and not whole:
        return False
    for entry in snapshot:
        on_entry(entry)
    for entry in entries:
        on_entry(entry)
    return True


def first_snapshot(entries: Iterator[LogEntry]) -> list[LogEntry]:
    """The complete snapshot that the entries begin with, taken off them; empty for none."""
    taken: list[LogEntry] = []
    for entry in entries:
        taken.append(entry)
        if entry.type == SNAPSHOT_END_TYPE and len(taken) > 1:
            return taken
        if entry.type != (SNAPSHOT_TYPE if len(taken) == 1 else SNAPSHOT_PART_TYPE):
            break
    return []


def newest_snapshot(
    disk: Disk, directory: str, network: str, owner: bytes
) -> tuple[int, list[LogEntry]]:
    """The segment that begins with the newest complete snapshot, and that snapshot's records;
    segment 0 and none where no segment does."""
    for start in _beginnings(disk, directory):
        reader = SegmentReader(disk, directory, network=network, owner=owner, start=start)
        entries = first_snapshot(reader.entries())
        if entries:
            return start, entries
    return 0, []
