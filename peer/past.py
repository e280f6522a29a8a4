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
from protocol.messages import Receipt
from protocol.signing import receipt_id

Json = dict[str, Any]


def read_jobs(directory: Path, owner: bytes) -> list[Json]:
    """Every job that ended, oldest first. StorageError `storage.corrupt`."""
    history = History(owner)
    for network, record in log_records(directory):
        history.take(network, record)
    return [job_json(job, owner) for job in history.jobs()]


def read_receipt(directory: Path, owner: bytes, wanted: bytes) -> Json:
    """The receipt of this id with its signatures, "" for one that the log has not.

    LocalError `receipt.unknown`; StorageError `storage.corrupt`.
    """
    found: Json | None = None
    for network, record in log_records(directory):
        match record:
            case records.ReceiptSigned() | records.ReceiptAcknowledged():
                if receipt_id(record.receipt) == wanted:
                    payer = getattr(record, "payer_signature", b"")
                    found = _signed_json(network, record.receipt, record.payee_signature, payer)
            case records.ChequeCharged() if record.receipt is not None:
                if receipt_id(record.receipt) == wanted:
                    found = _signed_json(network, record.receipt, record.payee_signature, b"")
            case records.ReceiptCountersigned() if found is not None:
                if record.receipt_id == wanted:
                    found["payer_signature"] = record.payer_signature.hex()
            case _:
                pass
    if found is None:
        raise LocalError("receipt.unknown", wanted.hex())
    return found


def _signed_json(network: str, receipt: Receipt, by_payee: bytes, by_payer: bytes) -> Json:
    return {
        **receipt_json(receipt),
        "network": network,
        "payee_signature": by_payee.hex(),
        "payer_signature": by_payer.hex(),
    }


def log_records(directory: Path) -> Iterator[tuple[str, Any]]:
    """The log's network and each record, oldest first; none of a node that never ran.

    StorageError `storage.corrupt`.
    """
    if not (directory / LOG_DIRECTORY).exists():
        return
    reader = log_reader(directory / LOG_DIRECTORY)
    for entry in reader.entries():
        yield reader.replay.network or "", records.decode_record(entry.type, entry.payload)
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)
