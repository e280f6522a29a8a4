"""A disk in memory that keeps what was synced apart from what was not, and fails on demand."""

import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.disk import Disk
from peer.journal import Journal
from protocol import limits
from protocol.errors import StorageError
from protocol.log import LogEntry

DIRECTORY = Path("/data/log")
OWNER = bytes(range(32))


class MemoryFile:
    """One file: what memory holds, what would be left after a crash, and whether memory lies.

    It lies after a failed sync, as on Linux: what was not written is kept and is marked clean.
    """

    def __init__(self) -> None:
        self.content = b""
        self.durable = b""
        self.lying = False

    def sync(self, content: bytes) -> None:
        if not self.lying:
            self.durable = content


class MemoryDisk:
    """Files in memory with injected faults: each hook is called before the operation itself."""

    def __init__(self) -> None:
        self.files: dict[str, MemoryFile] = {}
        self.durable_names: set[str] = set()
        self.locked: set[str] = set()
        self.handles: dict[int, str] = {}
        self.counts: dict[str, int] = {}
        self.on: dict[str, Callable[[], None]] = {}
        self.write_bytes_max = 1 << 40
        self.space_bytes = 1 << 40
        self.opened = 0

    def _call(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.on.get(name, lambda: None)()

    def crash(self, keep_bytes: int = 0) -> "MemoryDisk":
        """The disk after power was lost: `keep_bytes` of each unsynced tail made it."""
        after = MemoryDisk()
        for name in sorted(self.durable_names):
            old, new = self.files[name], MemoryFile()
            start = len(old.durable)
            one, other = old.content, old.durable
            appended = one.startswith(other) or other.startswith(one)
            assert old.lying or appended, "the log only ever appends"
            grown = b"" if old.lying else old.content[start : start + keep_bytes]
            new.content = new.durable = old.durable + grown
            after.files[name] = new
        after.durable_names = set(after.files)
        return after

    def log(self, segment: int = 0) -> MemoryFile:
        return self.files[f"{segment:08d}.log"]

    def make_directory(self, path: Path) -> None:
        self._call("make_directory")

    def list(self, directory: Path) -> list[str]:
        return sorted(self.files)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        self._call("open")
        if path.name not in self.files and not create:
            raise FileNotFoundError(errno.ENOENT, "missing")
        self.files.setdefault(path.name, MemoryFile())
        self.opened += 1
        self.handles[self.opened] = path.name
        return self.opened

    def close(self, handle: int) -> None:
        if self.handles.pop(handle) == "lock":
            self.locked.discard("lock")

    def lock(self, handle: int) -> bool:
        name = self.handles[handle]
        taken = name not in self.locked
        self.locked.add(name)
        return taken

    def size(self, handle: int) -> int:
        return len(self.files[self.handles[handle]].content)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        self._call("pread")
        return self.files[self.handles[handle]].content[offset : offset + length]

    def pwrite(self, handle: int, data: memoryview, offset: int) -> int:
        self._call("pwrite")
        file = self.files[self.handles[handle]]
        taken = bytes(data[: min(self.write_bytes_max, self.space_bytes)])
        if not taken and self.space_bytes == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.space_bytes -= len(taken)
        assert offset == len(file.content), "the log only ever appends"
        file.content += taken
        return len(taken)

    def truncate(self, handle: int, size: int) -> None:
        self._call("truncate")
        file = self.files[self.handles[handle]]
        file.content = file.content[:size]

    def fdatasync(self, handle: int) -> None:
        file = self.files[self.handles[handle]]
        content = file.content
        try:
            self._call("fdatasync")
        except OSError:
            file.lying = True
            raise
        file.sync(content)

    def settle(self, handle: int) -> None:
        file = self.files[self.handles[handle]]
        file.sync(file.content)
        file.content = file.durable
        file.lying = False

    def sync_directory(self, directory: Path) -> None:
        self._call("sync_directory")
        self.durable_names = set(self.files)


def open_journal(
    disk: Disk,
    directory: Path = DIRECTORY,
    *,
    entries: list[LogEntry] | None = None,
    network: str = "test",
    owner: bytes = OWNER,
    segment_bytes_max: int = limits.SEGMENT_BYTES_MAX,
) -> Journal:
    replayed: list[LogEntry] = [] if entries is None else entries
    return Journal.open(
        directory,
        network=network,
        owner=owner,
        on_entry=replayed.append,
        disk=disk,
        segment_bytes_max=segment_bytes_max,
    )


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[list[str]]:
    """The journal's commit task, cancelled and closed at the end; yields the codes it ends by."""
    codes: list[str] = []

    async def run(*, task_status: Any) -> None:
        try:
            await journal.run(task_status=task_status)
        except StorageError as error:
            codes.append(error.code)

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield codes
        nursery.cancel_scope.cancel()
    journal.close()


async def append_and_wait(journal: Journal, count: int) -> None:
    for _ in range(count):
        sequence = journal.append_nowait(1, b"payload")
        await journal.wait_durable(sequence)
        assert journal.durable_sequence >= sequence


async def wait_failing(journal: Journal, sequence: int, codes: list[str]) -> None:
    """Adds the code that waiting for the record ends with."""
    with pytest.raises(StorageError) as caught:
        await journal.wait_durable(sequence)
    codes.append(caught.value.code)


class Gate:
    """Blocks the disk's thread where it is called, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)

    async def wait_reached(self) -> None:
        assert await trio.to_thread.run_sync(self.reached.wait, 30)


def write_log(disk: Disk, directory: Path, count: int, **options: int) -> list[bytes]:
    """A closed log of `count` records, and their payloads."""
    journal = open_journal(disk, directory, **options)  # type: ignore[arg-type]
    payloads = [f"record {index} of a log".encode() for index in range(count)]
    for payload in payloads:
        journal.append_nowait(7, payload)
    journal.close()
    return payloads


def failing(error: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(error, os.strerror(error))

    return fail


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value.code
