"""Moves old segments out of the log, into an archive: only what a signed snapshot covers, and
only once the copy was read back. Blocking. Rule: protocol/README.md, "Snapshots".

Each step leaves a log that opens and an archive that completes it, whatever a crash keeps: a
segment is copied under another name, synced, named, read back, and only then removed here.
"""

from dataclasses import dataclass
from hashlib import blake2b

from protocol import limits
from protocol.disk import Disk
from protocol.errors import StorageError
from protocol.recovery import newest_snapshot
from protocol.segments import (
    list_segments,
    read_segment,
    segment_name,
    storage_errors,
    write_file,
)
from router.fold import Fold


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """Which segments went, and what the log begins with now."""

    segments: tuple[int, ...]
    bytes: int
    first_record: int


def archive_segments(
    disk: Disk, directory: str, archive: str, *, network: str, owner: bytes, keep: int = 0
) -> ArchiveReport:
    """Moves all segments before the newest signed snapshot's, save the last `keep` of them.

    The log may be written to meanwhile: it is the newest segment that is. StorageError
    `storage.archive`, `storage.bad_head`, `storage.bad_snapshot`, `storage.io`.
    """
    start, snapshot = newest_snapshot(disk, directory, network, owner)
    fold = Fold(network, owner)
    for entry in snapshot:
        fold.take(entry)
    covered = [number for number in list_segments(disk, directory) if number < start]
    moving = covered[: max(0, len(covered) - keep)]
    moved_bytes = 0
    with storage_errors(archive):
        disk.make_directory(archive)
    for number in moving:
        moved_bytes += _move(disk, directory, archive, segment_name(number))
    first = fold.began_at if moving and len(moving) == len(covered) else None
    return ArchiveReport(tuple(moving), moved_bytes, first or 0)


def _move(disk: Disk, directory: str, archive: str, name: str) -> int:
    source, target = f"{directory}/{name}", f"{archive}/{name}"
    data = read_segment(disk, source, settle=True)
    if len(data) > limits.SEGMENT_BYTES_MAX:
        raise StorageError("storage.archive", f"{name} is longer than a segment can be")
    with storage_errors(target):
        if name not in disk.list(archive):
            write_file(disk, f"{target}.part", data)
            disk.rename(f"{target}.part", target)
            disk.sync_directory(archive)
    copy = read_segment(disk, target, settle=True)
    if blake2b(copy).digest() != blake2b(data).digest():
        raise StorageError("storage.archive", f"{target} is another file than {source}")
    with storage_errors(source):
        disk.remove(source)
        disk.sync_directory(directory)
    return len(data)
