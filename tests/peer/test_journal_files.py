"""The log's files: opening, rotation, recovery, damage, and reading beside a daemon.

Source: protocol/log.py and peer/journal.py.
"""

import errno
from pathlib import Path

import pytest

from peer.disk import RealDisk
from peer.journal import Journal, read_entries, verify_log
from protocol import limits
from protocol.log import FRAME_OVERHEAD_BYTES, HEADER_BYTES, LogEntry
from simnet.disk import VirtualDisk, VirtualFile
from tests.peer.journal_support import (
    DIRECTORY,
    OWNER,
    append_and_wait,
    code_of,
    failing,
    flip,
    log_of,
    open_journal,
    path_of,
    running,
    write_log,
)


@pytest.mark.parametrize("operation", ["open", "pwrite", "fdatasync", "sync_directory"])
def test_a_log_that_can_not_be_begun_says_so_and_keeps_no_lock(operation: str) -> None:
    disk = VirtualDisk()
    disk.on[operation] = failing(errno.EIO)
    assert code_of(lambda: open_journal(disk)) == "storage.io"
    assert (disk.handles, disk.locked) == ({}, set())
    del disk.on[operation]
    open_journal(disk).close()


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.EPERM])
@pytest.mark.parametrize("operation", ["make_directory", "open"])
def test_a_directory_that_can_not_be_written(operation: str, error: int) -> None:
    disk = VirtualDisk()
    disk.on[operation] = failing(error)
    assert code_of(lambda: open_journal(disk)) == "storage.unwritable"


def test_a_file_where_the_directory_belongs(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    assert code_of(lambda: open_journal(RealDisk(), tmp_path / "log")) == "storage.unwritable"


def test_reading_fails_at_open() -> None:
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 3)
    disk.on["pread"] = failing(errno.EIO)
    assert code_of(lambda: open_journal(disk)) == "storage.io"
    assert disk.handles == {}


def test_a_new_log_and_its_name_are_durable_before_it_takes_records() -> None:
    disk = VirtualDisk()
    open_journal(disk)
    assert len(log_of(disk.crash()).content) == HEADER_BYTES


def test_what_a_killed_process_left_unsynced_is_durable_once_it_is_replayed() -> None:
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 3)
    disk.locked.clear()
    log_of(disk).durable = log_of(disk).durable[:-60]
    entries: list[LogEntry] = []
    journal = open_journal(disk, entries=entries)
    assert journal.durable_sequence == len(entries) - 1 == 2
    assert verify_log(DIRECTORY, disk=disk.crash()).records == 3


def test_after_a_failed_sync_a_restart_believes_the_disk_and_not_the_memory() -> None:
    """Linux keeps what it failed to write, marked clean: read back, it would pass for durable."""
    disk = VirtualDisk()
    journal = open_journal(disk)
    journal.append_nowait(1, b"never reached the disk")
    disk.on["fdatasync"] = failing(errno.EIO)
    assert code_of(journal.close) == "storage.io"
    disk.on.clear()
    entries: list[LogEntry] = []
    again = open_journal(disk, entries=entries)
    assert (entries, again.durable_sequence) == ([], -1)


def test_a_second_opener_is_refused_at_once(tmp_path: Path) -> None:
    first = open_journal(RealDisk(), tmp_path)
    assert code_of(lambda: open_journal(RealDisk(), tmp_path)) == "storage.locked"
    first.append_nowait(1, b"unharmed")
    first.close()
    entries: list[LogEntry] = []
    open_journal(RealDisk(), tmp_path, entries=entries).close()
    assert [entry.payload for entry in entries] == [b"unharmed"]


def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "data" / "log"
    write_log(RealDisk(), directory, 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == {"lock": 0o600, "00000000.log": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert directory.parent.stat().st_mode & 0o777 == 0o700


def test_reopening_continues_the_same_chain(tmp_path: Path) -> None:
    payloads = write_log(RealDisk(), tmp_path, 3) + write_log(RealDisk(), tmp_path, 2)
    entries: list[LogEntry] = []
    journal = open_journal(RealDisk(), tmp_path, entries=entries)
    assert [(entry.sequence, entry.payload) for entry in entries] == list(enumerate(payloads))
    assert (journal.durable_sequence, journal.head) == (4, entries[-1].chain)
    report = journal.report
    assert (report.records, report.segments, report.torn_bytes) == (5, 1, 0)
    assert report.head == entries[-1].chain
    journal.close()


def test_segments_are_rotated_and_read_back_as_one_log(tmp_path: Path) -> None:
    payloads = write_log(RealDisk(), tmp_path, 40, segment_bytes_max=500)
    files = sorted(tmp_path.glob("*.log"))
    assert len(files) > 5
    assert all(path.stat().st_size <= 500 for path in files)
    payloads += write_log(RealDisk(), tmp_path, 1, segment_bytes_max=500)
    assert [entry.payload for entry in read_entries(tmp_path)] == payloads
    report = verify_log(tmp_path)
    assert (report.records, report.state) == (41, "clean")
    assert report.segments == len(list(tmp_path.glob("*.log")))


async def test_rotation_in_the_middle_of_one_commit_loses_nothing_in_a_crash() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk, segment_bytes_max=400)
    async with running(journal):
        last = [journal.append_nowait(1, bytes([index]) * 40) for index in range(30)][-1]
        await journal.wait_durable(last)
    entries: list[LogEntry] = []
    after = disk.crash()
    assert open_journal(after, entries=entries, segment_bytes_max=400).report.segments > 5
    assert [entry.payload[0] for entry in entries] == list(range(30))


def test_a_rotation_that_fails_closes_each_file_once() -> None:
    """Regression: the old segment was closed again, whoever had its number by then."""
    disk = VirtualDisk()
    journal = open_journal(disk, segment_bytes_max=300)
    disk.fail("open", errno.EMFILE)
    for _ in range(3):
        journal.append_nowait(1, bytes(100))
    assert code_of(journal.close) == "storage.io"
    assert disk.handles == {}


def test_a_record_longer_than_a_segment_gets_one_of_its_own() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk, segment_bytes_max=300)
    for payload in (bytes(1_000), b"short", bytes(1_000), b"short"):
        journal.append_nowait(1, payload)
    journal.close()
    assert verify_log(DIRECTORY, disk=disk).segments == 4
    assert disk.handles == {}


def test_every_crash_while_a_segment_is_begun_is_recovered() -> None:
    """The name, none of the header, or a part of it may be all that there is of it."""
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 3)
    for length in range(HEADER_BYTES):
        after = disk.crash()
        after.files[path_of(1)] = VirtualFile()
        after.files[path_of(1)].content = bytes(length)
        entries: list[LogEntry] = []
        journal = open_journal(after, entries=entries)
        assert (len(entries), journal.report.torn_bytes) == (3, length)
        journal.append_nowait(1, b"goes on")
        journal.close()
        report = verify_log(DIRECTORY, disk=after)
        assert (report.records, report.segments, report.state) == (4, 2, "clean")


# --- damage -----------------------------------------------------------------------------------


def test_a_torn_tail_is_set_aside_and_cut_off(tmp_path: Path) -> None:
    write_log(RealDisk(), tmp_path, 3)
    path = tmp_path / "00000000.log"
    whole = path.read_bytes()
    last = FRAME_OVERHEAD_BYTES + len(b"record 2 of a log")
    for attempt in range(2):  # the second, at the same offset, does not replace the first
        path.write_bytes(whole[: -5 - attempt])
        assert verify_log(tmp_path).state == "torn_tail"
        entries: list[LogEntry] = []
        journal = open_journal(RealDisk(), tmp_path, entries=entries)
        assert (len(entries), journal.report.torn_bytes) == (2, last - 5 - attempt)
        journal.close()
        assert path.read_bytes() == whole[:-last]
    aside = f"torn-00000000-{len(whole) - last}"
    assert (tmp_path / f"{aside}.bin").read_bytes() == whole[-last:-5]
    assert (tmp_path / f"{aside}-1.bin").read_bytes() == whole[-last:-6]
    assert (tmp_path / f"{aside}.bin").stat().st_mode & 0o777 == 0o600


def test_a_torn_tail_is_cut_off_only_when_its_copy_is_durable() -> None:
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 3)
    log_of(disk).content = log_of(disk).durable = log_of(disk).content[:-5]
    seen: list[set[str]] = []
    disk.on["truncate"] = lambda: seen.append(
        {name for name in disk.durable_names if disk.files[name].durable}
    )
    open_journal(disk)
    assert any("/torn-" in name for name in seen[-1])


def test_a_cut_off_tail_does_not_come_back_in_a_crash() -> None:
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 3)
    log_of(disk).content = log_of(disk).durable = log_of(disk).content[:-5]
    open_journal(disk)
    assert verify_log(DIRECTORY, disk=disk.crash()).state == "clean"


@pytest.mark.parametrize("segment", [0, 1])
def test_a_flipped_bit_before_the_end_is_corruption_and_nothing_is_changed(
    tmp_path: Path, segment: int
) -> None:
    write_log(RealDisk(), tmp_path, 12, segment_bytes_max=600)
    assert len(list(tmp_path.glob("*.log"))) == 2
    path = tmp_path / f"{segment:08d}.log"
    flip(path, HEADER_BYTES + 20)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert code_of(lambda: open_journal(RealDisk(), tmp_path)) == "storage.corrupt"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    report = verify_log(tmp_path)
    assert report.state == "corrupt"
    assert path.name in report.detail
    assert str(HEADER_BYTES) in report.detail
    assert code_of(lambda: list(read_entries(tmp_path))) == "storage.corrupt"


def test_a_missing_or_shortened_segment_is_corruption(tmp_path: Path) -> None:
    write_log(RealDisk(), tmp_path, 20, segment_bytes_max=500)
    first, second = tmp_path / "00000000.log", tmp_path / "00000001.log"
    frame = FRAME_OVERHEAD_BYTES + len(b"record 0 of a log")
    kept = first.read_bytes()
    for cut in (1, frame):
        first.write_bytes(kept[:-cut])
        assert verify_log(tmp_path).state == "corrupt"
    first.write_bytes(kept)
    second.unlink()
    assert verify_log(tmp_path).detail == "00000001.log is missing"
    assert code_of(lambda: open_journal(RealDisk(), tmp_path)) == "storage.corrupt"


def test_a_file_longer_than_a_segment_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(RealDisk(), tmp_path, 20)
    monkeypatch.setattr(limits, "SEGMENT_BYTES_MAX", 1_000)
    assert "longer" in verify_log(tmp_path).detail


@pytest.mark.parametrize(("network", "owner"), [("other", OWNER), ("test", bytes(32))])
def test_another_nodes_log_is_refused(network: str, owner: bytes) -> None:
    disk = VirtualDisk()
    write_log(disk, DIRECTORY, 2)
    before = log_of(disk).content
    opened = lambda: open_journal(disk, network=network, owner=owner)  # noqa: E731
    assert code_of(opened) == "storage.foreign"
    assert log_of(disk).content == before
    assert disk.locked == set()


# --- reading beside a daemon ------------------------------------------------------------------


def test_verify_where_there_is_no_log(tmp_path: Path) -> None:
    assert code_of(lambda: verify_log(tmp_path / "none")) == "storage.no_log"
    report = verify_log(tmp_path)
    assert (report.records, report.segments, report.state) == (0, 0, "clean")


async def test_verify_while_writing_finds_a_prefix_and_no_fault(tmp_path: Path) -> None:
    """Seen in the middle of a write, the log has a torn tail, which is not an error."""
    observed: list[tuple[int, str]] = []
    journal: Journal

    class ObservedDisk(RealDisk):
        def pwrite(self, handle: int, data: memoryview, offset: int) -> int:
            count = super().pwrite(handle, data[: max(1, len(data) // 2)], offset)
            report = verify_log(tmp_path)
            observed.append((report.records, report.state))
            assert len(list(read_entries(tmp_path))) == report.records
            assert report.records > journal_durable()
            return count

    def journal_durable() -> int:
        return journal.durable_sequence if observed and started else -1

    started = False
    journal = open_journal(ObservedDisk(), tmp_path, segment_bytes_max=700)
    started = True
    async with running(journal):
        await append_and_wait(journal, 20)
    assert {state for _, state in observed} == {"clean", "torn_tail"}
    assert [records for records, _ in observed] == sorted(records for records, _ in observed)
    assert verify_log(tmp_path).records == 20
