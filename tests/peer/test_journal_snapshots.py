"""Where a replay starts: at the newest snapshot that is complete, else before it.

Source: protocol/recovery.py; protocol/README.md, "Snapshots".
"""

from protocol.log import SNAPSHOT_TYPE, LogEntry
from protocol.segments import SegmentReader
from simnet.disk import VirtualDisk
from tests.peer.journal_moments import OWNER, SEGMENT_BYTES, Run, prepared
from tests.peer.journal_support import DIRECTORY, code_of, open_journal, path_of


def replayed(disk: VirtualDisk) -> tuple[int, list[LogEntry]]:
    """Where an opening starts, and what it is given."""
    entries: list[LogEntry] = []
    journal = open_journal(disk, entries=entries, owner=OWNER, segment_bytes_max=SEGMENT_BYTES)
    journal.close()
    return journal.report.replayed_from, entries


def closed(run: Run) -> VirtualDisk:
    assert run.journal is not None
    run.journal.close()
    return run.disk


def broken_off(run: Run, records: int) -> None:
    """A snapshot of which only its first records were written."""
    before = len(run.appended)
    run.snapshot()
    assert run.journal is not None
    del run.journal._frames[records:]
    del run.appended[before + records :]
    run.journal.close()
    run.open()


def test_a_replay_starts_at_the_newest_complete_snapshot() -> None:
    run = prepared()
    for _ in range(2):
        run.snapshot()
        run.append(1, b"after it")
        run.commit()
    start, entries = replayed(closed(run))
    assert start == max(n for n, (kind, _) in enumerate(run.appended) if kind == SNAPSHOT_TYPE)
    assert [(entry.type, entry.payload) for entry in entries] == run.appended[start:]
    assert entries[0].sequence == start


def test_a_snapshot_begins_a_segment() -> None:
    """Also in the middle of one commit: what is before it can go."""
    run = prepared()
    run.append(1, b"before")
    run.snapshot()
    run.append(1, b"after")
    run.commit()
    numbers = range(20)
    firsts = []
    for number in numbers:
        if path_of(number) in run.disk.files:
            reader = SegmentReader(run.disk, str(DIRECTORY), start=number)
            firsts.append(next(reader.entries()).type)
    assert firsts.count(SNAPSHOT_TYPE) == 1
    assert [kind for kind, _ in run.appended].count(SNAPSHOT_TYPE) == 1


def test_a_snapshot_that_was_broken_off_is_no_start() -> None:
    """At any record of it; the one before it, or the start of the log, is taken instead."""
    for records in (1, 2):  # of three
        run = prepared()
        broken_off(run, records)
        assert replayed(closed(run)) == (0, replayed(run.disk)[1])
        assert len(replayed(run.disk)[1]) == len(run.appended)
        run = prepared()
        run.snapshot()
        run.commit()
        broken_off(run, records)
        run.append(1, b"goes on behind it")
        run.commit()
        start, entries = replayed(closed(run))
        assert start == 6
        assert len(entries) == len(run.appended) - 6


def test_a_log_whose_only_beginning_is_broken_off_is_refused() -> None:
    """What was before it is not here: nothing is guessed."""
    run = prepared()
    broken_off(run, 2)
    disk = closed(run)
    gone = [path for path in disk.files if path.endswith(".log")][:-1]
    for path in gone:
        del disk.files[path]
    assert gone
    assert code_of(lambda: replayed(disk)) == "storage.corrupt"
