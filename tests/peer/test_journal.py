"""The journal's commits: nothing is called durable before it is, and an error ends it all.

Source: protocol/log.py and peer/journal.py.
"""

import errno

import pytest
import trio
import trio.testing

from peer.journal import read_entries
from protocol import limits
from protocol.errors import StorageError
from protocol.log import FRAME_OVERHEAD_BYTES, LogEntry
from simnet.disk import VirtualDisk
from tests.peer.journal_support import (
    DIRECTORY,
    Gate,
    append_and_wait,
    code_of,
    failing,
    log_of,
    open_journal,
    running,
    wait_failing,
)


async def test_a_crowd_of_waiters_shares_its_syncs() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    before = disk.counts["fdatasync"]
    async with running(journal), trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(append_and_wait, journal, 4)
    assert journal.durable_sequence == 64 * 4 - 1
    assert disk.counts["fdatasync"] - before <= 16
    assert len(list(read_entries(DIRECTORY, disk=disk))) == 64 * 4


async def test_nothing_is_durable_before_the_sync_returned() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    first, second = Gate(), Gate()
    reached: list[int] = []

    async def wait(sequence: int) -> None:
        await journal.wait_durable(sequence)
        reached.append(sequence)

    async with running(journal), trio.open_nursery() as nursery:
        disk.on["fdatasync"] = first
        nursery.start_soon(wait, journal.append_nowait(1, b"first"))
        await first.wait_reached()
        assert b"first" in log_of(disk).content
        nursery.start_soon(wait, journal.append_nowait(1, b"second"))
        await trio.testing.wait_all_tasks_blocked()
        assert (reached, journal.durable_sequence) == ([], -1)
        assert journal.head == journal.report.head
        assert b"second" not in log_of(disk).content
        disk.on["fdatasync"] = second
        first.opened.set()
        await second.wait_reached()
        await trio.testing.wait_all_tasks_blocked()
        assert (reached, journal.durable_sequence) == ([0], 0)
        chains = [entry.chain for entry in read_entries(DIRECTORY, disk=disk)]
        assert (len(chains), journal.head) == (2, chains[0])
        second.opened.set()
    assert (reached, journal.durable_sequence, journal.head) == ([0, 1], 1, chains[1])


async def test_a_commit_takes_no_more_records_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "COMMIT_BATCH_RECORDS_MAX", 3)
    disk = VirtualDisk()
    journal = open_journal(disk)
    before = disk.counts["fdatasync"]
    async with running(journal):
        last = [journal.append_nowait(1, b"x") for _ in range(10)][-1]
        await journal.wait_durable(last)
    assert disk.counts["fdatasync"] - before == 4


async def test_cancelling_lets_a_commit_finish_and_close_writes_the_rest() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    gate = Gate()
    disk.on["fdatasync"] = gate
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.run)
        journal.append_nowait(1, b"in the thread")
        await gate.wait_reached()
        journal.append_nowait(1, b"still buffered")
        nursery.cancel_scope.cancel()
        del disk.on["fdatasync"]
        gate.opened.set()
    assert journal.durable_sequence == 0
    journal.close()
    assert journal.durable_sequence == 1
    payloads = [entry.payload for entry in read_entries(DIRECTORY, disk=disk.crash())]
    assert payloads == [b"in the thread", b"still buffered"]


async def test_cancelled_before_its_commit_began_the_record_is_not_lost() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    with trio.CancelScope() as scope:
        scope.cancel()
        journal.append_nowait(1, b"record")
        await journal.run()
    journal.close()
    assert [entry.payload for entry in read_entries(DIRECTORY, disk=disk.crash())] == [b"record"]


def test_a_closed_journal_takes_nothing_and_closes_twice() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    journal.close()
    journal.close()
    assert code_of(lambda: journal.append_nowait(1, b"")) == "storage.closed"
    assert disk.handles == {}


@pytest.mark.parametrize(
    ("name", "bound"), [("LOG_BACKLOG_RECORDS_MAX", 5), ("LOG_BACKLOG_BYTES_MAX", 5 * 50)]
)
async def test_a_hanging_disk_piles_up_only_so_much(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(limits, name, bound)
    journal = open_journal(VirtualDisk())
    for _ in range(5):
        journal.append_nowait(1, b"x")
    assert code_of(lambda: journal.append_nowait(1, b"x")) == "storage.backlog"
    async with running(journal):
        await journal.wait_durable(4)
        journal.append_nowait(1, b"x")
    assert journal.durable_sequence == 5


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
async def test_an_error_poisons_the_log_and_nothing_is_retried(operation: str) -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    waiters: list[str] = []
    async with running(journal) as codes:
        await append_and_wait(journal, 1)
        disk.on[operation] = failing(errno.EIO)
        before = dict(disk.counts)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                sequence = journal.append_nowait(1, b"lost")
                nursery.start_soon(wait_failing, journal, sequence, waiters)
        assert code_of(lambda: journal.append_nowait(1, b"")) == "storage.poisoned"
        later: list[str] = []
        await wait_failing(journal, 0, later)
        assert later == ["storage.poisoned"]
    assert codes == ["storage.io"]
    assert waiters == ["storage.io"] * 5
    assert disk.counts[operation] == before[operation] + 1
    assert disk.counts["fdatasync"] <= before["fdatasync"] + 1
    assert journal.durable_sequence == 0
    assert disk.handles == {}


async def test_a_waiter_of_what_is_behind_a_failed_commit_fails_too() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    gate = Gate()

    def block_then_fail() -> None:
        gate()
        failing(errno.EIO)()

    disk.on["fdatasync"] = block_then_fail
    waiters: list[str] = []
    async with running(journal) as codes, trio.open_nursery() as nursery:
        nursery.start_soon(wait_failing, journal, journal.append_nowait(1, b"taken"), waiters)
        await gate.wait_reached()
        nursery.start_soon(wait_failing, journal, journal.append_nowait(1, b"behind"), waiters)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert codes == ["storage.io"]
    assert waiters == ["storage.io"] * 2


async def test_short_writes_are_continued() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    disk.write_bytes_max = 10
    async with running(journal):
        await append_and_wait(journal, 3)
    assert disk.counts["pwrite"] > 3 * 5
    assert len(list(read_entries(DIRECTORY, disk=disk.crash()))) == 3


async def test_a_disk_that_takes_nothing_is_an_error_and_no_endless_loop() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    disk.write_bytes_max = 0
    journal.append_nowait(1, b"record")
    assert code_of(journal.close) == "storage.io"


async def test_a_full_disk_ends_the_log_and_the_part_written_is_a_torn_tail() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    waiters: list[str] = []
    async with running(journal) as codes:
        await append_and_wait(journal, 2)
        disk.space_bytes = 20
        await wait_failing(journal, journal.append_nowait(1, b"too much"), waiters)
        with pytest.raises(StorageError, match="No space"):
            journal.append_nowait(1, b"")
    assert codes == waiters == ["storage.io"]
    disk.space_bytes = 1 << 40
    entries: list[LogEntry] = []
    again = open_journal(disk, entries=entries)
    assert (len(entries), again.report.torn_bytes) == (2, 20)


async def test_every_record_that_was_reported_durable_survives_a_crash() -> None:
    disk = VirtualDisk()
    journal = open_journal(disk)
    gate = Gate()
    async with running(journal):
        await append_and_wait(journal, 3)
        disk.on["fdatasync"] = gate
        journal.append_nowait(1, b"written, not synced")
        await gate.wait_reached()
        crashes = [disk.crash(keep) for keep in range(80)]
        gate.opened.set()
    frame_bytes = FRAME_OVERHEAD_BYTES + len(b"written, not synced")
    for keep, after in enumerate(crashes):
        entries: list[LogEntry] = []
        again = open_journal(after, entries=entries)
        whole = keep >= frame_bytes
        assert len(entries) == 3 + whole
        assert again.durable_sequence == len(entries) - 1
        assert again.report.torn_bytes == (0 if whole else keep)
