"""Journals on a virtual disk, and what their tests wait for."""

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.journal import Journal
from protocol import limits
from protocol.disk import Disk
from protocol.errors import StorageError
from protocol.log import LogEntry
from simnet.disk import VirtualDisk, VirtualFile

DIRECTORY = Path("/data/log")
OWNER = bytes(range(32))


def path_of(segment: int = 0) -> str:
    return f"{DIRECTORY}/{segment:08d}.log"


def log_of(disk: VirtualDisk, segment: int = 0) -> VirtualFile:
    """The file of a segment."""
    return disk.files[path_of(segment)]


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
