"""What a node bought and sold, and the receipts that it holds: from its log, which has all of it,
whether a daemon runs or not. Takes no lock."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peer.daemon import LOG_DIRECTORY
from peer.history import History, job_json
from peer.journal import log_reader
from peer.reports import receipt_json
from protocol import records
from protocol.errors import LocalError, StorageError
from protocol.log import ScanOutcome
from protocol.segments import SegmentReader
from protocol.signing import receipt_id

Json = dict[str, Any]


def read_jobs(directory: Path, owner: bytes) -> list[Json]:
    """Every job that ended, oldest first. StorageError `storage.corrupt`."""
    if not (directory / LOG_DIRECTORY).exists():
        return []  # a node that never ran
    reader = log_reader(directory / LOG_DIRECTORY)
    history = History(owner)
    for record in _records(reader):
        history.take(reader.replay.network or "", record)
    return [job_json(job) for job in history.jobs()]


def read_receipt(directory: Path, owner: bytes, wanted: bytes) -> Json:
    """The receipt of this id with its signatures, "" for one that the log has not.

    LocalError `receipt.unknown`; StorageError `storage.corrupt`.
    """
    found: Json | None = None
    if not (directory / LOG_DIRECTORY).exists():
        raise LocalError("receipt.unknown", wanted.hex())
    reader = log_reader(directory / LOG_DIRECTORY)
    for record in _records(reader):
        match record:
            case records.ReceiptSigned() | records.ReceiptAcknowledged():
                if receipt_id(record.receipt) == wanted:
                    payer = getattr(record, "payer_signature", b"")
                    found = {
                        **receipt_json(record.receipt),
                        "network": reader.replay.network,
                        "payee_signature": record.payee_signature.hex(),
                        "payer_signature": payer.hex(),
                    }
            case records.ReceiptCountersigned() if found is not None:
                if record.receipt_id == wanted:
                    found["payer_signature"] = record.payer_signature.hex()
            case _:
                pass
    if found is None:
        raise LocalError("receipt.unknown", wanted.hex())
    return found


def _records(reader: SegmentReader) -> Iterator[Any]:
    for entry in reader.entries():
        yield records.decode_record(entry.type, entry.payload)
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)
