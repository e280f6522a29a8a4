"""How fast the log is: beside a bare write + fdatasync, and beside SQLite, in one run.

    python -m tests.bench.log [--json] [--directory DIR] [--seconds S] [--records N]

Durable appends/s of records of 240 bytes at 1, 8, 64 and 512 at a time, in two forms:

- `bare`: a loop of one commit after another, no tasks. `log` encodes, chains, writes and syncs;
  `raw` writes and syncs as many bytes made beforehand; `sqlite` is one transaction of as many
  rows, WAL, synchronous=FULL.
- `tasks`: as many trio tasks, each appending one record and waiting for it, behind a group
  commit in a thread. `log` is the journal; `raw` and `sqlite` commit behind the same grouping.

Beside the rates stands the CPU time of one record. Then vouchers/s, from the payer's record and
signature to the payee's check and record, and CPU seconds of replays.

The contenders take turns within a run, as disks and neighbours change by the minute; rates are
medians of the turns, ratios are medians of the turns' ratios. DIR must be on a real disk.
"""

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

import trio

from peer.disk import RealDisk
from peer.journal import Journal
from peer.writer_thread import WriterThread
from protocol import limits
from protocol.log import FRAME_OVERHEAD_BYTES, LogWriterState, genesis_head
from protocol.segments import SegmentWriter
from tests.bench.log_parts import measure_replay, measure_vouchers

NETWORK = "bench"
OWNER = bytes(range(32))
PAYLOAD = os.urandom(240)
FRAME = os.urandom(len(PAYLOAD) + FRAME_OVERHEAD_BYTES)
BATCHES = (1, 8, 64, 512)
TURNS = 7

Commit = Callable[[list[bytes]], None]


class Appender(Protocol):
    """What the tasks use: the journal, or something else behind a group commit like its own."""

    def append_nowait(self, type: int, payload: bytes) -> int: ...
    async def wait_durable(self, sequence: int) -> None: ...
    async def run(self, *, task_status: Any = ...) -> None: ...


class GroupCommit:
    """The journal's grouping and nothing else, before any function that commits payloads."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._buffer: list[bytes] = []
        self._next = 0
        self._durable = self._taken = -1
        self._taken_done, self._buffered_done = trio.Event(), trio.Event()
        self._work = trio.Event()

    def append_nowait(self, type: int, payload: bytes) -> int:
        self._buffer.append(payload)
        self._work.set()
        self._next += 1
        return self._next - 1

    async def wait_durable(self, sequence: int) -> None:
        while self._durable < sequence:
            taken = sequence <= self._taken
            await (self._taken_done if taken else self._buffered_done).wait()

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        with WriterThread() as thread:
            while True:
                if not self._buffer:
                    self._work = trio.Event()
                    await self._work.wait()
                batch, self._buffer = self._buffer, []
                self._taken += len(batch)
                self._taken_done, self._buffered_done = self._buffered_done, trio.Event()
                await thread.run(partial(self._commit, batch))
                self._durable = self._taken
                self._taken_done.set()


@contextmanager
def raw_commit(directory: Path) -> Iterator[Commit]:
    """A file that only grows, one write and one sync a batch, each record a frame long."""
    handle = os.open(directory / "raw", os.O_RDWR | os.O_CREAT, 0o600)
    offset = 0

    def commit(batch: list[bytes]) -> None:
        nonlocal offset
        offset += os.pwrite(handle, FRAME * len(batch), offset)
        os.fdatasync(handle)

    yield commit
    os.close(handle)


@contextmanager
def sqlite_commit(directory: Path) -> Iterator[Commit]:
    """One transaction a batch, of rows with a sequence, a type and a payload."""
    database = sqlite3.connect(directory / "sqlite", isolation_level=None, check_same_thread=False)
    assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE log (sequence INTEGER PRIMARY KEY, type INTEGER, payload BLOB)")

    def commit(batch: list[bytes]) -> None:
        database.execute("BEGIN")
        rows = [(3, payload) for payload in batch]
        database.executemany("INSERT INTO log (type, payload) VALUES (?, ?)", rows)
        database.execute("COMMIT")

    yield commit
    database.close()


@contextmanager
def log_commit(directory: Path) -> Iterator[Commit]:
    """The log without its tasks: encode, chain, write, sync."""
    (directory / "bare").mkdir()
    disk = RealDisk()
    writer = SegmentWriter(disk, str(directory / "bare"), NETWORK, OWNER, limits.SEGMENT_BYTES_MAX)
    state = LogWriterState(0, genesis_head(NETWORK, OWNER))
    writer.begin(0, 0, state.head)

    def commit(batch: list[bytes]) -> None:
        writer.commit([state.append(3, payload) for payload in batch])

    yield commit
    writer.close()


class Rate(NamedTuple):
    """Durable records/s, and the CPU time of one."""

    per_s: float
    cpu_us: float


def rate(count: int, start: float, cpu_start: float) -> Rate:
    cpu_s = time.process_time() - cpu_start
    return Rate(count / (time.perf_counter() - start), cpu_s / count * 1e6)


def bare_rate(commit: Commit, batch: int, seconds: float) -> Rate:
    """One commit after another."""
    payloads = [PAYLOAD] * batch
    count, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        commit(payloads)
        count += batch
    return rate(count, start, cpu_start)


def tasks_rate(make: Callable[[], Appender], tasks: int, seconds: float) -> Rate:
    """So many tasks that each append one record and wait for it."""
    appender, count = make(), 0

    async def work(until: float) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await appender.wait_durable(appender.append_nowait(3, PAYLOAD))
            count += 1

    async def main() -> Rate:
        async with trio.open_nursery() as nursery:
            await nursery.start(appender.run)
            start, cpu_start = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as workers:
                for _ in range(tasks):
                    workers.start_soon(work, start + seconds)
            found = rate(count, start, cpu_start)
            nursery.cancel_scope.cancel()
        return found

    return trio.run(main)


def compare(measures: dict[str, Callable[[], Rate]]) -> dict[str, float]:
    """Median rates and CPU times of the contenders taking turns, and the log's median ratio to
    the others."""
    turns = [{name: measure() for name, measure in measures.items()} for _ in range(TURNS)]
    result: dict[str, float] = {}
    for name in measures:
        result[f"{name}_per_s"] = round(median(turn[name].per_s for turn in turns))
    for name in measures:
        result[f"{name}_cpu_us"] = round(median(turn[name].cpu_us for turn in turns), 2)
    for name in measures:
        if name != "log":
            ratios = [turn["log"].per_s / turn[name].per_s for turn in turns]
            result[f"log_to_{name}"] = round(median(ratios), 3)
    return result


def measure_appends(directory: Path, seconds: float) -> list[dict[str, Any]]:
    """All batches in both forms; each contender gets `seconds` a turn."""
    rows: list[dict[str, Any]] = []
    with (
        log_commit(directory) as log,
        raw_commit(directory) as raw,
        sqlite_commit(directory) as sqlite,
    ):
        for batch in BATCHES:
            commits = {"log": log, "raw": raw, "sqlite": sqlite}
            rates = compare(
                {
                    name: partial(bare_rate, commit, batch, seconds)
                    for name, commit in commits.items()
                }
            )
            rows.append({"form": "bare", "batch": batch, **rates})
        journal = Journal.open(
            directory / "tasks", network=NETWORK, owner=OWNER, on_entry=lambda entry: None
        )
        for batch in BATCHES:
            appenders: dict[str, Callable[[], Appender]] = {
                "log": lambda: journal,
                "raw": partial(GroupCommit, raw),
                "sqlite": partial(GroupCommit, sqlite),
            }
            rates = compare(
                {
                    name: partial(tasks_rate, make, batch, seconds)
                    for name, make in appenders.items()
                }
            )
            rows.append({"form": "tasks", "batch": batch, **rates})
        journal.close()
    return rows


def main() -> None:
    """Runs it all and prints a table, or JSON."""
    parser = argparse.ArgumentParser(description="appends/s and replay of the log, as ratios")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--directory", help="where to write; a real disk (default: a temporary)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a contender's turn")
    parser.add_argument("--records", type=int, default=1_000_000, help="to replay; 0 for none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        rows = measure_appends(Path(name), options.seconds)
        vouchers = measure_vouchers(Path(name), 4 * options.seconds)
        replay = measure_replay(Path(name) / "replay", options.records) if options.records else {}
    if options.json:
        found = {"appends": rows, "vouchers": vouchers, "replay": replay}
        print(json.dumps({"record_bytes": len(PAYLOAD), **found}))
        return
    columns = list(rows[0])
    for cells in [columns, *([row[column] for column in columns] for row in rows)]:
        print("".join(f"{cell:>15}" for cell in cells))
    print(f"vouchers: {vouchers}")
    for key, value in replay.items():
        print(f"replay of {key}: {value}")


if __name__ == "__main__":
    main()
