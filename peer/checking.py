"""Checks a log, or what was exported of one: frames, chain, signatures, and what they make.

Needs the owner's public key and the bytes, nothing else: no lock, no daemon, no data directory.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

from peer.identity import peer_id
from protocol.crypto import verify
from protocol.errors import StorageError
from protocol.log import (
    HEADER_BYTES,
    MAGIC,
    SNAPSHOT_TYPE,
    LogEntry,
    LogReplay,
    LogWriterState,
    ScanOutcome,
    SegmentHeader,
    decode_header,
    encode_header,
)
from protocol.records import HeadSigned, SnapshotSigned, decode_record
from protocol.segments import SegmentReader, storage_errors
from router.fold import Fold, check_head
from router.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found good; `signed_to` is the last record that a signed head covers, -1 for
    none. `ledger` is None where the records begin in the middle, without a snapshot."""

    network: str
    owner: bytes
    first_record: int
    records: int
    heads: int
    signed_to: int
    head: bytes
    ledger: Ledger | None


class Checker:
    """Takes the entries of a log one by one; StorageError for the first that can't be true."""

    def __init__(self, owner: bytes) -> None:
        self._owner = owner
        self._fold: Fold | None = None
        self._network = ""
        self._entries = 0
        self._first = 0
        self._heads = 0
        self._signed_to = -1
        self._head = b""

    def take(self, replay: LogReplay, entry: LogEntry) -> None:
        """The next entry; `replay` knows whose log it is."""
        if not self._entries:
            self._begin(replay, entry)
        before, self._head = self._head, entry.chain
        self._entries += 1
        if self._fold is not None:
            self._fold.take(entry)
            return
        record = decode_record(entry.type, entry.payload)
        if isinstance(record, HeadSigned | SnapshotSigned) and before:
            check_head(self._network, self._owner, entry.sequence, before, record.head, verify)
            self._heads, self._signed_to = self._heads + 1, record.head.sequence

    def _begin(self, replay: LogReplay, entry: LogEntry) -> None:
        assert replay.network is not None
        assert replay.owner is not None
        check_owner(replay.owner, self._owner)
        self._network, self._first = replay.network, entry.sequence
        if entry.sequence == 0 or entry.type == SNAPSHOT_TYPE:
            self._fold = Fold(self._network, self._owner, check=True)

    def result(self) -> Checked:
        """What all that was taken makes."""
        fold = self._fold
        return Checked(
            network=self._network,
            owner=self._owner,
            first_record=self._first,
            records=self._entries,
            heads=self._heads if fold is None else fold.heads,
            signed_to=self._signed_to if fold is None else fold.signed_to,
            head=self._head,
            ledger=None if fold is None else fold.ledger,
        )


def check_owner(found: bytes, wanted: bytes) -> None:
    """StorageError `storage.foreign` where they differ."""
    if found != wanted:
        detail = f"written by node {peer_id(found)}, not {peer_id(wanted)}"
        raise StorageError("storage.foreign", detail)


def fold_log(reader: SegmentReader, owner: bytes) -> Ledger:
    """The ledger that a log makes, with no more checks than a start does. StorageError
    `storage.foreign`, and as the fold."""
    fold: Fold | None = None
    for entry in reader.entries():
        if fold is None:
            assert reader.replay.owner is not None
            check_owner(reader.replay.owner, owner)
            fold = Fold(reader.replay.network or "", owner)
        fold.take(entry)
    return Ledger("", owner) if fold is None else fold.ledger


def check_log(reader: SegmentReader, owner: bytes) -> Checked:
    """All that the reader finds good; its report says how it ended. StorageError
    `storage.foreign`, `storage.bad_head`, `storage.bad_snapshot`, `storage.corrupt`."""
    checker = Checker(owner)
    for entry in reader.entries():
        checker.take(reader.replay, entry)
    return checker.result()


def check_export(path: Path, owner: bytes) -> Checked:
    """An export, whole and signed to its end by `owner`.

    StorageError `storage.not_a_log`, `storage.foreign`, `storage.truncated`, and as `check_log`.
    """
    with storage_errors(str(path)), path.open("rb") as file:
        if path.stat().st_size < HEADER_BYTES or file.read(len(MAGIC)) != MAGIC:
            raise StorageError("storage.not_a_log", str(path))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _check_bytes(data, owner)


def _check_bytes(data: mmap.mmap, owner: bytes) -> Checked:
    header = decode_header(data[:HEADER_BYTES])
    if header is None:
        raise StorageError("storage.corrupt", "the file's header")
    check_owner(header.owner, owner)
    replay, checker = LogReplay(header.network, owner), Checker(owner)
    replay.begin_at(header.segment)
    for entry in replay.scan(data, is_last=True):  # type: ignore[arg-type]
        checker.take(replay, entry)
    where = f"at offset {replay.offset}: {replay.detail}"
    if replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", where)
    if replay.outcome is ScanOutcome.TORN:
        raise StorageError("storage.truncated", where)
    found = checker.result()
    last = found.first_record + found.records - 1
    if not found.heads or found.signed_to != last - 1:
        raise StorageError("storage.truncated", f"record {last} is not under a signed head")
    return found


def write_export(
    reader: SegmentReader, path: Path, *, first: int = 0, last: int | None = None
) -> tuple[int, int]:
    """Writes records `first` to `last` and on to the next signed head; which they were, at last.

    The same frames as in the log, behind one header. StorageError `storage.corrupt`,
    `storage.truncated` where no signed head follows, `storage.io`; nothing is left then.
    """
    part = path.with_name(path.name + ".part")
    try:
        with storage_errors(str(path)):
            found = _write(reader, part, first, last)
            part.replace(path)
    finally:
        with storage_errors(str(path)):
            part.unlink(missing_ok=True)
    return first, found


def _write(reader: SegmentReader, part: Path, first: int, last: int | None) -> int:
    replay, writer, head = reader.replay, None, b""
    signed, end = -1, 0
    with part.open("wb") as file:
        for entry in reader.entries():
            before, head = head, entry.chain
            if entry.sequence < first:
                continue
            if writer is None:
                if entry.sequence > first:
                    raise StorageError("storage.truncated", f"it begins at {entry.sequence}")
                before = before or replay.begun_head
                writer = LogWriterState(first, before)
                assert replay.network is not None
                assert replay.owner is not None
                header = SegmentHeader(replay.network, replay.owner, 0, first, before)
                file.write(encode_header(header))
            file.write(writer.append(entry.type, entry.payload))
            if isinstance(decode_record(entry.type, entry.payload), HeadSigned | SnapshotSigned):
                signed, end = entry.sequence, file.tell()
                if last is not None and signed >= last:
                    break
        if replay.outcome is ScanOutcome.CORRUPT:
            raise StorageError("storage.corrupt", replay.detail)
        if signed < max(first, last or 0):
            raise StorageError("storage.truncated", "no signed head follows these records")
        file.truncate(end)
        file.flush()
    return signed
