"""Moments of a log's life as scripts, on a virtual disk: what faults are struck at.

Used by test_journal_faults.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from peer.archive import archive_segments
from peer.journal import Journal
from protocol.errors import StorageError
from protocol.fields import SignedHead
from protocol.log import LogEntry
from protocol.records import SnapshotBegun, SnapshotPart, SnapshotSigned, encode_record
from protocol.signing import head_bytes
from router.ledger import Ledger
from router.snapshot import snapshot_parts
from simnet.disk import VirtualDisk
from tests.peer.journal_support import DIRECTORY, open_journal
from tests.vectors.make import PAYER

NETWORK = "test"
OWNER = PAYER.public_key
ARCHIVE = "/data/archive"
SEGMENT_BYTES = 600
WRITING = ("pwrite", "fdatasync", "sync_directory", "open", "truncate", "rename", "remove")


@dataclass
class Run:
    """One script on one disk: what was appended, and how much of it was acknowledged."""

    disk: VirtualDisk
    appended: list[tuple[int, bytes]] = field(default_factory=list)
    acknowledged: int = 0
    journal: Journal | None = None

    def open(self) -> None:
        entries: list[LogEntry] = []
        self.journal = open_journal(
            self.disk, entries=entries, owner=OWNER, segment_bytes_max=SEGMENT_BYTES
        )

    def append(self, type: int, payload: bytes) -> None:
        assert self.journal is not None
        self.journal.append_nowait(type, payload)
        self.appended.append((type, payload))

    def commit(self) -> None:
        journal = self.journal
        assert journal is not None

        async def wait() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(journal.run)
                await journal.wait_durable(len(self.appended) - 1)
                nursery.cancel_scope.cancel()

        try:
            trio.run(wait)
        except* StorageError as group:
            raise StorageError("storage.io", str(group.exceptions[0])) from None
        self.acknowledged = len(self.appended)

    def snapshot(self) -> None:
        """A real one, of an empty ledger."""
        assert self.journal is not None
        parts = list(snapshot_parts(Ledger(NETWORK, OWNER)))
        self.append(*encode_record(SnapshotBegun(len(parts))))
        for part in parts:
            self.append(*encode_record(SnapshotPart(part)))
        state = self.journal._state
        sequence, head = state.next_sequence - 1, state.head
        signature = PAYER.sign(head_bytes(NETWORK, OWNER, sequence, head))
        self.append(*encode_record(SnapshotSigned(SignedHead(sequence, head, signature), 1)))


def one(run: Run) -> None:
    run.append(1, b"one")
    run.commit()


def group(run: Run) -> None:
    for index in range(4):
        run.append(1, bytes([index]) * 60)
    run.commit()


def rotation(run: Run) -> None:
    """A commit that fills a segment and begins two more: header, directory and all."""
    for index in range(12):
        run.append(1, bytes([index]) * 90)
    run.commit()


def snapshot(run: Run) -> None:
    run.snapshot()
    run.append(1, b"after the snapshot")
    run.commit()


def archive(run: Run) -> None:
    rotation(run)
    snapshot(run)
    archive_segments(run.disk, str(DIRECTORY), ARCHIVE, network=NETWORK, owner=OWNER)
    one(run)


def recovery(run: Run) -> None:
    """Opening a log with a torn tail: set aside, cut off, and written to again."""
    assert run.journal is not None
    run.journal.close()
    last = max(path for path in run.disk.files if path.endswith(".log"))
    file = run.disk.files[last]
    file.content = file.durable = file.content + b"\1\2\3 of a record"
    run.open()
    one(run)


def beginning(run: Run) -> None:
    """The very first segment: nothing before it."""
    assert run.journal is not None
    run.journal.close()
    run.disk.files.clear()
    run.disk.durable_names.clear()
    run.appended.clear()
    run.acknowledged = 0
    run.open()
    one(run)


MOMENTS: dict[str, Callable[[Run], None]] = {
    "append": one,
    "group commit": group,
    "rotation": rotation,
    "snapshot": snapshot,
    "archive": archive,
    "recovery": recovery,
    "beginning": beginning,
}


def prepared() -> Run:
    """A log of two segments' records, before the script runs."""
    run = Run(VirtualDisk())
    run.open()
    for index in range(6):
        run.append(1, bytes([100 + index]) * 50)
    run.commit()
    return run
