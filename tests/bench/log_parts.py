"""Parts of the log's bench that have no rival: replay, and vouchers from signature to disk."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from peer.disk import RealDisk
from peer.journal import Journal
from protocol import limits
from protocol.crypto import Signer, verify
from protocol.fields import ChannelTerms, LaneClaim
from protocol.log import LogEntry, LogWriterState, genesis_head
from protocol.messages import Voucher
from protocol.records import (
    ChannelOpened,
    LaneOpened,
    VoucherAccepted,
    VoucherIssued,
    encode_record,
)
from protocol.segments import SegmentWriter
from protocol.signing import channel_id, voucher_bytes
from router.context import Context
from router.fold import Fold
from router.heads import Heads

NETWORK = "bench"
SIGNER = Signer(bytes(range(32)))
OWNER = SIGNER.public_key
TERMS = ChannelTerms(5, 10**15, 10**18, 1)
Json = dict[str, Any]


def timed(records: int, call: Callable[[], Journal]) -> Json:
    """CPU and wall seconds of opening a log, and what its report says."""
    start, cpu_start = time.perf_counter(), time.process_time()
    journal = call()
    cpu_s, wall_s = time.process_time() - cpu_start, time.perf_counter() - start
    assert journal.report.records >= records
    replayed = journal.report.records - journal.report.replayed_from
    journal.close()
    return {
        "records": journal.report.records,
        "replayed": replayed,
        "cpu_s": round(cpu_s, 3),
        "wall_s": round(wall_s, 3),
        "cpu_s_per_million_replayed": round(cpu_s / replayed * 1e6, 3),
    }


def open_log(directory: Path, on_entry: Callable[[LogEntry], None]) -> Journal:
    return Journal.open(directory, network=NETWORK, owner=OWNER, on_entry=on_entry)


def open_folded(directory: Path) -> Journal:
    return open_log(directory, Fold(NETWORK, OWNER).take)


def write_frames(directory: Path, records: int) -> None:
    """A log of so many records of 240 random bytes, which make no ledger."""
    directory.mkdir()
    writer = SegmentWriter(RealDisk(), str(directory), NETWORK, OWNER, limits.SEGMENT_BYTES_MAX)
    state = LogWriterState(0, genesis_head(NETWORK, OWNER))
    writer.begin(0, 0, state.head)
    payload = os.urandom(240)
    for first in range(0, records, 20_000):
        count = min(20_000, records - first)
        writer.commit([state.append(3, payload) for _ in range(count)])
    writer.close()


def write_ledger(directory: Path, records: int) -> None:
    """As a payer with 64 channels writes it: vouchers for most of it, heads and snapshots."""
    fold = Fold(NETWORK, OWNER)
    journal = open_log(directory, fold.take)
    context = Context(SIGNER, NETWORK, fold.live(), os.urandom, log=fold)
    heads = Heads(context)
    cids = []
    for number in range(64):
        salt = number.to_bytes(16, "big")
        context.append(ChannelOpened(OWNER, bytes(32), salt, salt, TERMS, 10**15, 7))
        cids.append(channel_id(NETWORK, OWNER, bytes(32), salt, salt, TERMS))
        context.append(LaneOpened(cids[-1], 1, bytes(32), bytes(32), "m", 15, 60, 8, bytes(300)))
    for total in range(records):
        claims = (LaneClaim(0, 0, 0), LaneClaim(1, total, total))
        context.append(VoucherIssued(cids[total % 64], total, claims))
        heads.tick()
        for action in context.take_actions():
            journal.append_nowait(action.type, action.payload)  # type: ignore[union-attr]
        if total % 10_000 == 0:
            journal.flush()
    journal.close()


def measure_replay(directory: Path, records: int) -> Json:
    """CPU seconds of opening a log: its frames and chain alone; with the ledger that it makes,
    from the start, and from its newest snapshot."""
    frames, ledger = directory / "frames", directory / "ledger"
    directory.mkdir()
    write_frames(frames, records)
    found = {"frames": timed(records, partial(open_log, frames, lambda entry: None))}
    whole = records // 5  # folding costs some six times what reading does
    with snapshots_every(records):
        write_ledger(ledger, whole)
    found["ledger"] = timed(whole, partial(open_folded, ledger))
    with snapshots_every(whole // 3):
        write_ledger(directory / "snapshots", whole)
    found["ledger_from_snapshot"] = timed(whole, partial(open_folded, directory / "snapshots"))
    return found


@contextmanager
def snapshots_every(records: int) -> Iterator[None]:
    """As the limit would be, for a log that is shorter than it is for."""
    before = limits.SNAPSHOT_RECORDS
    limits.SNAPSHOT_RECORDS = records  # type: ignore[misc]
    yield
    limits.SNAPSHOT_RECORDS = before  # type: ignore[misc]


def measure_vouchers(directory: Path, seconds: float, waiters: int = 64) -> Json:
    """Vouchers/s through both ends: issued and durable, signed, verified, accepted and durable;
    by so many lanes at once, with both logs on this disk. CPU is of one voucher, both ends."""
    cid = bytes(32)
    payee = Signer(bytes(32))
    done = 0

    async def lane(number: int, until: float, payer_log: Journal, payee_log: Journal) -> None:
        nonlocal done
        total = 0
        while time.perf_counter() < until:
            total += 1
            claims = (LaneClaim(0, 0, 0), LaneClaim(number, total, total))
            issued = append(payer_log, VoucherIssued(cid, total, claims))
            await payer_log.wait_durable(issued)
            signed = voucher_bytes(NETWORK, cid, total, claims)
            voucher = Voucher(cid, total, claims, SIGNER.sign(signed))
            assert verify(OWNER, voucher_bytes(NETWORK, cid, total, claims), voucher.signature)
            await payee_log.wait_durable(append(payee_log, VoucherAccepted(voucher)))
            done += 1

    async def main() -> tuple[float, float]:
        logs = [open_log(directory / "payer", lambda entry: None)]
        logs.append(
            Journal.open(
                directory / "payee",
                network=NETWORK,
                owner=payee.public_key,
                on_entry=lambda entry: None,
            )
        )
        async with trio.open_nursery() as nursery:
            for log in logs:
                await nursery.start(log.run)
            start, cpu_start = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as lanes:
                for number in range(1, waiters + 1):
                    lanes.start_soon(lane, number, start + seconds, *logs)
            spent = time.perf_counter() - start, time.process_time() - cpu_start
            nursery.cancel_scope.cancel()
        for log in logs:
            log.close()
        return spent

    wall_s, cpu_s = trio.run(main)
    return {
        "lanes": waiters,
        "per_s": round(done / wall_s),
        "cpu_us": round(cpu_s / done * 1e6, 1),
        "per_cpu_s": round(done / cpu_s),
    }


def append(journal: Journal, record: Any) -> int:
    """A record's place in the log."""
    return journal.append_nowait(*encode_record(record))
