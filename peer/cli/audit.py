"""Checks that a set of nodes' logs agree: frames and chains, receipts, every channel's end.

Needs nothing but the directories: what the demo and the tests use to judge from outside.
"""

from pathlib import Path
from typing import Any

from peer.cli.books import read_ledger
from peer.daemon import LOG_DIRECTORY
from peer.identity import load_key
from peer.journal import read_entries, verify_log
from protocol import signing
from protocol.channel import Channel, Role
from protocol.crypto import verify
from protocol.records import ReceiptAcknowledged, ReceiptSigned, decode_record

Json = dict[str, Any]


def _receipt_good(record: ReceiptAcknowledged, network: str) -> bool:
    """Both signatures, checked from the record alone."""
    identity = signing.receipt_id(record.receipt)
    by_payee = verify(
        record.receipt.payee, signing.receipt_bytes(network, identity), record.payee_signature
    )
    by_payer = verify(
        record.receipt.payer, signing.receipt_ack_bytes(network, identity), record.payer_signature
    )
    return by_payee and by_payer


def audit(directories: list[Path], network: str) -> Json:
    """Findings over the nodes' logs; raises StorageError for one that can't be read.

    `logs_ok`: every log verifies to its end. `receipts_ok`: there are receipts, each signed by
    both, and the payer's and the payee's are the same. `conserved`: on every channel both ends
    say the same price, and no voucher exceeds its deposit; only the payer has one whose
    opening was refused, and it cost nothing.
    """
    logs_ok = True
    acknowledged: dict[bytes, bool] = {}
    signed: set[bytes] = set()
    ends: dict[bytes, dict[Role, Channel]] = {}
    for directory in directories:
        owner = load_key(directory).public_key
        logs_ok &= verify_log(directory / LOG_DIRECTORY).state == "clean"
        for entry in read_entries(directory / LOG_DIRECTORY):
            record = decode_record(entry.type, entry.payload)
            if isinstance(record, ReceiptAcknowledged):
                good = _receipt_good(record, network)
                acknowledged[signing.receipt_id(record.receipt)] = good
            elif isinstance(record, ReceiptSigned):
                signed.add(signing.receipt_id(record.receipt))
        for cid, channel in read_ledger(directory, owner).channels.items():
            ends.setdefault(cid, {})[channel.role] = channel
    receipts_ok = bool(acknowledged) and all(acknowledged.values())
    receipts_ok &= set(acknowledged) <= signed
    conserved = all(_agree(both) for both in ends.values())
    return {"logs_ok": logs_ok, "receipts_ok": receipts_ok, "conserved": conserved}


def _agree(ends: dict[Role, Channel]) -> bool:
    payer, payee = ends.get(Role.PAYER), ends.get(Role.PAYEE)
    if payer is None:
        return False
    if payee is None:
        return payer.settled_ucr == 0
    same = _price(payer) == _price(payee) and payer.deposit_ucr == payee.deposit_ucr
    return same and payee.total_ucr <= payer.total_ucr <= payer.deposit_ucr


def _price(channel: Channel) -> int:
    return channel.due_ucr if channel.settled_ucr is None else channel.settled_ucr
