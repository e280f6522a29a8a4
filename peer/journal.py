"""The log's driver: one writer, group commit, and the rule that a failed log is dead.

Knows nothing of what a record means; the format is protocol/log.py's, the files are
protocol/segments.py's. Rule: protocol/log.py.

A commit takes what is buffered, writes it and syncs it in a thread; what is appended meanwhile
is the next one. There is no timer: alone, a record waits for its own sync, and in a crowd for
at most two. Any error poisons the log, for after a failed fsync nobody knows what the disk
holds, and a second fsync would say that all is well.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from peer.disk import RealDisk
from peer.writer_thread import Caller, WriterThread
from protocol import limits
from protocol.disk import Disk
from protocol.errors import StorageError
from protocol.log import (
    HEADER_BYTES,
    SNAPSHOT_TYPE,
    LogEntry,
    LogWriterState,
    ScanOutcome,
    decode_header,
)
from protocol.recovery import RecoveryReport, recover
from protocol.segments import (
    LogReport,
    SegmentReader,
    SegmentWriter,
    list_segments,
    segment_name,
    storage_errors,
)

if TYPE_CHECKING:
    # libp2p installs older stubs of trio, and they shadow trio's own types, which have this.
    from trio_typing import TaskStatus

__all__ = [
    "Journal",
    "LogReport",
    "RecoveryReport",
    "log_reader",
    "read_entries",
    "verify_log",
]

LOCK_NAME: Final = "lock"
ARCHIVE_NAME: Final = "archive"  # beside the log, where segments go unless told otherwise
_REAL_DISK: Final = RealDisk()


class Journal:
    """An open log; all calls from one thread, `open` and `close` blocking.

    `report` is what recovery found. `durable_sequence` is the last record that is durable, -1
    where there is none, and `head` is the chain up to it: never one that a crash could undo.
    """

    def __init__(
        self,
        disk: Disk,
        lock: int,
        writer: SegmentWriter,
        report: RecoveryReport,
        caller: Callable[[], AbstractContextManager[Caller]] = WriterThread,
    ) -> None:
        self.report = report
        self.durable_sequence = report.records - 1
        self.head = report.head
        self._disk = disk
        self._lock = lock
        self._writer = writer
        self._caller = caller
        self._state = LogWriterState(report.records, report.head)
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self._snapshots = False
        self._taken_last = self.durable_sequence
        self._taken_done = trio.Event()
        self._buffered_done = trio.Event()
        self._work: trio.Event | None = None
        self._running = False
        self._closed = False
        self._failure: str | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        network: str,
        owner: bytes,
        on_entry: Callable[[LogEntry], None],
        disk: Disk = _REAL_DISK,
        segment_bytes_max: int = limits.SEGMENT_BYTES_MAX,
        caller: Callable[[], AbstractContextManager[Caller]] = WriterThread,
    ) -> "Journal":
        """Locks, replays into `on_entry` and recovers the log in `directory`, or begins one.

        The replay starts at the newest complete snapshot, if there is one. `caller` makes the
        commits' blocking calls.

        StorageError: "storage.locked", "storage.unwritable", "storage.io", "storage.corrupt",
        "storage.foreign", "storage.version".
        """
        where, lock_path = str(directory), str(directory / LOCK_NAME)
        with storage_errors(where):
            disk.make_directory(where)
            lock = disk.open(lock_path, write=True, create=True)
        writer = SegmentWriter(disk, where, network, owner, segment_bytes_max)
        try:
            with storage_errors(lock_path):
                if not disk.lock(lock):
                    raise StorageError("storage.locked", where)
            report = recover(disk, writer, network, owner, on_entry)
        except BaseException:
            writer.close()
            disk.close(lock)
            raise
        return cls(disk, lock, writer, report, caller)

    def append_nowait(self, type: int, payload: bytes) -> int:
        """Buffers a record and returns its sequence; it is not durable yet.

        StorageError "storage.poisoned", "storage.closed", "storage.backlog"; LocalError
        "storage.bad_record". None of them changes the log.
        """
        if self._failure is not None or self._closed:
            self._refuse()
        if (
            len(self._frames) >= limits.LOG_BACKLOG_RECORDS_MAX
            or self._frames_bytes >= limits.LOG_BACKLOG_BYTES_MAX
        ):
            raise StorageError("storage.backlog", f"{len(self._frames)} records wait")
        sequence = self._state.next_sequence
        frame = self._state.append(type, payload)
        self._frames.append(frame)
        self._frames_bytes += len(frame)
        if type == SNAPSHOT_TYPE:
            self._snapshots = True
        if self._work is not None:
            self._work.set()
        return sequence

    async def wait_durable(self, sequence: int) -> None:
        """Returns when the record of `sequence`, which was appended, is durable.

        At once, and without a checkpoint, where it is already. StorageError "storage.io" where
        the commit fails meanwhile, "storage.poisoned" where one did before.
        """
        assert sequence < self._state.next_sequence, "waits for a record that was not appended"
        if self._failure is not None:
            self._refuse()
        while self.durable_sequence < sequence:
            taken = sequence <= self._taken_last
            await (self._taken_done if taken else self._buffered_done).wait()
            if self._failure is not None and self.durable_sequence < sequence:
                raise StorageError("storage.io", self._failure)

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Commits what is appended until cancelled; StorageError "storage.io" ends it.

        Cancelling lets a commit that has begun finish; what is still buffered then is for
        `close`.
        """
        assert not self._running, "the commit task runs once"
        self._running = True
        try:
            with self._caller() as thread:
                task_status.started()
                while True:
                    if not self._frames:
                        self._work = trio.Event()
                        await self._work.wait()
                        self._work = None
                    await trio.lowlevel.checkpoint_if_cancelled()
                    with self._committing() as commit:
                        await thread.run(commit)
        finally:
            self._work = None
            self._running = False

    def flush(self) -> None:
        """Commits what is buffered, here and now, while no commit task runs. As `close`."""
        assert not self._running, "the commit task does that"
        while self._frames and self._failure is None:
            with self._committing() as commit:
                commit()

    def close(self) -> None:
        """Commits what is buffered and releases the lock; the commit task must have ended.

        StorageError "storage.io" where that last commit fails; a poisoned log writes nothing.
        Closing again does nothing.
        """
        assert not self._running, "cancel the commit task before closing the log"
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            self._writer.close()
            self._disk.close(self._lock)

    @contextmanager
    def _committing(self) -> Iterator[Callable[[], None]]:
        """Takes a batch off the buffer and gives the call that commits it; how the block ends
        decides what its waiters get."""
        batch_max = limits.COMMIT_BATCH_RECORDS_MAX
        frames, self._frames = self._frames[:batch_max], self._frames[batch_max:]
        commit = partial(self._writer.commit, frames, snapshots=self._snapshots)
        self._snapshots = self._snapshots and bool(self._frames)
        self._frames_bytes = sum(map(len, self._frames))
        self._taken_last += len(frames)
        self._taken_done, self._buffered_done = self._buffered_done, trio.Event()
        failure: str | None = "a commit was broken off"
        try:
            yield commit
            failure = None
        except OSError as error:
            failure = str(error)
            raise StorageError("storage.io", failure) from error
        finally:
            self._failure = failure
            if failure is None:
                self.durable_sequence = self._taken_last
                self.head = self._writer.head
            else:
                self._buffered_done.set()
            self._taken_done.set()

    def _refuse(self) -> NoReturn:
        if self._failure is not None:
            raise StorageError("storage.poisoned", self._failure)
        raise StorageError("storage.closed")


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


def log_reader(
    directory: Path, *, archive: Path | None = None, disk: Disk | None = None
) -> SegmentReader:
    """Reads whoever's log without its lock, what is archived first; its replay then knows whose.

    `archive` is looked for beside the log where it is not named. StorageError "storage.no_log".
    """
    if disk is not None:
        return SegmentReader(disk, str(directory))
    if not directory.is_dir() or (archive is not None and not archive.is_dir()):
        raise StorageError("storage.no_log", str(archive or directory))
    archive = archive or directory.parent / ARCHIVE_NAME
    archives = [str(archive)] if archive.is_dir() else []
    return SegmentReader(RealDisk(), str(directory), *archives)


def log_network(directory: Path) -> str:
    """The network whose log is in a directory. StorageError "storage.no_log", "storage.corrupt"
    for a damaged first header."""
    numbers = list_segments(RealDisk(), str(directory)) if directory.is_dir() else []
    if not numbers:
        raise StorageError("storage.no_log", str(directory))
    path = directory / segment_name(numbers[0])
    with storage_errors(str(path)), path.open("rb") as file:
        header = decode_header(file.read(HEADER_BYTES))
    if header is None:
        raise StorageError("storage.corrupt", f"{path.name}: the segment's header")
    return header.network
