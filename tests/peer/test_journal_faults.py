"""Every fault of the disk at every moment of the log: nothing that was acknowledged is lost, or
the damage is said and nothing is guessed.

Source: protocol/log.py, peer/journal.py. Each moment is run once for each of its disk operations
and each fault, with the fault at that operation, then a crash, then an opening.
"""

import contextlib
import errno
import random
from collections.abc import Callable

import pytest

from protocol import records
from protocol.errors import StorageError
from protocol.log import ScanOutcome
from protocol.segments import SegmentReader
from simnet.disk import VirtualDisk
from tests.peer.journal_moments import (
    ARCHIVE,
    MOMENTS,
    OWNER,
    SEGMENT_BYTES,
    WRITING,
    Run,
    prepared,
)
from tests.peer.journal_support import DIRECTORY, open_journal


def calls(script: Callable[[Run], None], names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each operation of these names in a script, and how many of that name precede it."""
    run = prepared()
    before = dict(run.disk.counts)
    script(run)
    assert run.acknowledged == len(run.appended)
    return [
        (name, index)
        for name in names
        for index in range(run.disk.counts.get(name, 0) - before.get(name, 0))
    ]


def read_only_from(disk: VirtualDisk, operation: str, after: int) -> None:
    left = after

    def remount() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            disk.read_only = True

    disk.on[operation] = remount


# Fault -> the operations that it strikes, and how it is set to strike after so many of them.
Strike = Callable[[VirtualDisk, str, int], None]
FAULTS: dict[str, tuple[tuple[str, ...], Strike]] = {
    "no space": (("pwrite",), lambda d, name, n: d.fail(name, errno.ENOSPC, after=n)),
    "EIO on write": (
        ("pwrite", "truncate", "rename", "remove", "open"),
        lambda d, name, n: d.fail(name, errno.EIO, after=n),
    ),
    "EIO on fsync": (
        ("fdatasync", "sync_directory", "settle"),
        lambda d, name, n: d.fail(name, errno.EIO, after=n, times=1),
    ),
    "read-only remount": (("pwrite", "truncate", "rename", "remove"), read_only_from),
}
CRASHES: dict[str, Callable[[VirtualDisk, random.Random], VirtualDisk]] = {
    "un-synced tail lost": lambda disk, rng: disk.crash(),
    "tail cut anywhere": lambda disk, rng: disk.crash(rng.randrange(700)),
    "torn sector": lambda disk, rng: disk.crash_torn(rng.randrange),
    "reordered": lambda disk, rng: disk.crash_reordered(rng.randrange),
}


def found_after(disk: VirtualDisk) -> list[tuple[int, bytes]]:
    """What there is once the log was opened again and goes on; with what is archived."""
    journal = open_journal(disk, owner=OWNER, segment_bytes_max=SEGMENT_BYTES)
    count = journal.durable_sequence + 1
    journal.append_nowait(1, b"goes on")
    journal.close()
    archives = [ARCHIVE] if ARCHIVE in disk.directories else []
    reader = SegmentReader(disk, str(DIRECTORY), *archives)
    entries = [(entry.type, entry.payload) for entry in reader.entries()]
    assert (reader.replay.outcome, reader.replay.first_sequence) == (ScanOutcome.CLEAN, 0)
    assert entries[count:] == [(1, b"goes on")]
    return entries[:count]


def check_crash(run: Run, crash: str, rng: random.Random) -> bool:
    """Whether the log opened; where it did not, it said that it is damaged."""
    disk = CRASHES[crash](run.disk, rng)
    try:
        found = found_after(disk)
    except StorageError as error:
        # Sectors out of order may look like damage: then it says so, and changes nothing.
        if (error.code, crash) != ("storage.corrupt", "reordered"):
            raise
        return False
    assert found[: run.acknowledged] == run.appended[: run.acknowledged]
    assert found == run.appended[: len(found)]
    return True


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_fault_at_any_operation_loses_nothing_that_was_acknowledged(
    moment: str, fault: str
) -> None:
    """And the log is poisoned by it: no second sync, no further record."""
    script, (names, strike) = MOMENTS[moment], FAULTS[fault]
    for name, after in calls(script, names):
        for crash in CRASHES:
            run = prepared()
            strike(run.disk, name, after)
            with pytest.raises(StorageError) as caught:
                script(run)
            assert caught.value.code in ("storage.io", "storage.unwritable", "storage.poisoned")
            synced = run.disk.counts["fdatasync"]
            journal = run.journal
            if journal is not None and journal._failure is not None:
                with pytest.raises(StorageError) as refused:
                    journal.append_nowait(1, b"no more")
                assert refused.value.code == "storage.poisoned"
                journal.close()
            assert run.disk.counts["fdatasync"] == synced, "a sync that failed is not tried again"
            assert check_crash(run, crash, random.Random(f"{name}{after}")) or crash == "reordered"


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_power_lost_at_any_operation_loses_nothing_that_was_acknowledged(
    moment: str, crash: str
) -> None:
    """Before each operation, with several choices of what made it to the disk."""
    script = MOMENTS[moment]
    opened = 0
    points = calls(script, WRITING)
    for name, after in points:
        for seed in range(1 if crash == "un-synced tail lost" else 3):
            run = prepared()
            run.disk.fail(name, errno.EIO, after=after)
            with pytest.raises(StorageError):
                script(run)
            opened += check_crash(run, crash, random.Random(seed))
    assert opened > len(points) // 2, "most of them open again"


@pytest.mark.parametrize("moment", MOMENTS)
def test_writes_that_take_a_few_bytes_at_a_time_are_completed(moment: str) -> None:
    run = prepared()
    run.disk.write_bytes_max = 7
    MOMENTS[moment](run)
    run.disk.write_bytes_max = 1 << 40
    assert run.acknowledged == len(run.appended)
    assert found_after(run.disk.crash()) == run.appended


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_bit_that_flips_is_found(moment: str) -> None:
    """Anywhere in any segment: the whole check says corrupt, or, in the very last record, that
    the tail is torn; an opening says the same or began behind it."""
    rng = random.Random(moment)
    run = prepared()
    MOMENTS[moment](run)
    assert run.journal is not None
    run.journal.close()
    paths = [path for path in run.disk.files if path.endswith(".log")]
    # A snapshot begins a segment: what is before the last one's is not read by an opening.
    part = records.NUMBERS[records.SnapshotPart]
    parts = [payload for number, payload in run.appended if number == part]
    begun = [path for path in paths if parts and parts[-1] in run.disk.files[path].content]
    for path in paths:
        for _ in range(12):
            disk = run.disk.crash()
            disk.flip(path, rng.randrange(len(disk.files[path].content)), rng.randrange(8))
            archives = [ARCHIVE] if ARCHIVE in disk.directories else []
            reader = SegmentReader(disk, str(DIRECTORY), *archives)
            try:
                good = len(list(reader.entries()))
            except StorageError as error:
                if error.code not in ("storage.foreign", "storage.version"):
                    raise
                continue
            last = good >= len(run.appended) - 1
            damaged = (ScanOutcome.CORRUPT, ScanOutcome.TORN) if last else (ScanOutcome.CORRUPT,)
            assert reader.replay.outcome in damaged
            if not last and ARCHIVE not in path:
                began_behind = path < max(begun, default="")
                with contextlib.nullcontext() if began_behind else pytest.raises(StorageError):
                    open_journal(disk, owner=OWNER).close()


def test_the_matrix_is_whole() -> None:
    """Every operation that writes is struck by a fault, and happens at some moment."""
    struck = {name for names, _ in FAULTS.values() for name in names}
    assert struck == {*WRITING, "settle"}
    happening = {name for script in MOMENTS.values() for name, _ in calls(script, WRITING)}
    assert happening == set(WRITING)
