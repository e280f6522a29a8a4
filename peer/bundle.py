"""A channel's settlement bundle from the log, and what one proves, in words."""

from collections.abc import Iterable
from typing import Any

from peer.identity import peer_id
from protocol import records, signing
from protocol.bundle import (
    VERSION,
    BackingEvidence,
    BundleFindings,
    CloseEvidence,
    RaiseEvidence,
    ReceiptEvidence,
    SettlementBundle,
    pages_of,
)
from protocol.channel import Channel, Role
from protocol.crypto import Signer
from protocol.errors import LocalError
from protocol.fields import ChannelOpen
from protocol.messages import Voucher
from protocol.units import format_credits
from router.ledger import COOPERATIVE, Ledger

Json = dict[str, Any]


def make_bundle(
    ledger: Ledger, channel: Channel, signer: Signer, log: Iterable[Any]
) -> SettlementBundle:
    """All that is signed about `channel`, out of its ledger and the records of the log.

    A payer's own vouchers are signed anew, the same bytes as then. LocalError
    `bundle.no_opening`: the log does not go back so far.
    """
    opened: records.ChannelOpened | None = None
    raised: RaiseEvidence | None = None
    closed: CloseEvidence | None = None
    receipts: dict[int, ReceiptEvidence] = {}
    cid = channel.cid
    for record in log:
        match record:
            case records.ChannelOpened() if _salts(record) == _salts(channel):
                opened = record
            case records.DepositRaised(cid=found) if found == cid:
                raised = RaiseEvidence(record.deposit_ucr, record.signature)
            case records.ReceiptSigned() if record.receipt.cid == cid:
                evidence = ReceiptEvidence(record.receipt, record.payee_signature, b"")
                receipts[record.receipt.lane] = evidence
            case records.ReceiptCountersigned(cid=found) if found == cid:
                known = receipts.get(record.lane)
                if known is not None:
                    signatures = known.payee_signature, record.payer_signature
                    receipts[record.lane] = ReceiptEvidence(known.receipt, *signatures)
            case records.ReceiptAcknowledged() if record.receipt.cid == cid:
                receipts[record.receipt.lane] = ReceiptEvidence(
                    record.receipt, record.payee_signature, record.payer_signature
                )
            case records.ChannelClosed(cid=found, how=how) if (found, how) == (cid, COOPERATIVE):
                closed = CloseEvidence(
                    record.settled_ucr, record.payer_signature, record.payee_signature
                )
    if opened is None or not channel.open_signature:
        raise LocalError("bundle.no_opening", cid.hex()[:16])
    if raised is not None and channel.role is Role.PAYER:
        signed = signing.top_up_bytes(ledger.network, cid, raised.deposit_ucr)
        raised = RaiseEvidence(raised.deposit_ucr, signer.sign(signed))
    proof = ledger.backing.proof(cid)
    return SettlementBundle(
        version=VERSION,
        network=ledger.network,
        payer=channel.payer,
        payee=channel.payee,
        opening=ChannelOpen(
            opened.payer_salt,
            opened.payee_salt,
            opened.terms,
            opened.deposit_ucr,
            opened.opened_at_ns,
            channel.open_signature,
        ),
        raised=raised,
        backing=BackingEvidence(proof.order, proof.signatures) if proof else None,
        voucher=_voucher(ledger.network, channel, signer),
        pages=pages_of([receipts[lane] for lane in sorted(receipts)]),
        closed=closed,
    )


def _salts(of: Any) -> tuple[bytes, ...]:
    return of.payer, of.payee, of.payer_salt, of.payee_salt


def _voucher(network: str, channel: Channel, signer: Signer) -> Voucher | None:
    if channel.role is Role.PAYEE or not channel.total_ucr:
        return channel.voucher
    signed = signing.voucher_bytes(network, channel.cid, channel.total_ucr, channel.issued)
    return Voucher(channel.cid, channel.total_ucr, channel.issued, signer.sign(signed))


def findings_json(found: BundleFindings) -> Json:
    """The findings; amounts in ucr."""
    return {
        "network": found.network,
        "channel": found.cid.hex(),
        "payer": peer_id(found.payer),
        "payee": peer_id(found.payee),
        "opened_at_ns": found.opened_at_ns,
        "deposit_ucr": found.deposit_ucr,
        "owed_ucr": found.owed_ucr,
        "agreed_jobs": found.agreed_jobs,
        "agreed_ucr": found.agreed_ucr,
        "claimed_jobs": found.claimed_jobs,
        "claimed_ucr": found.claimed_ucr,
        "witnesses": [peer_id(key) for key in found.witnesses],
        "backed_ucr": found.backed_ucr,
        "closed_ucr": found.closed_ucr,
    }


def findings_text(found: BundleFindings) -> list[str]:
    """What the bundle proves, a sentence a line."""
    payer, payee = peer_id(found.payer), peer_id(found.payee)
    lines = [
        f"channel {found.cid.hex()} on network {found.network}",
        f"{payer} opened it to {payee} with a deposit of {format_credits(found.deposit_ucr)}"
        " credits.",
    ]
    if found.owed_ucr:
        lines.append(
            f"It signed that it owes at least {format_credits(found.owed_ucr)} credits on it."
        )
    else:
        lines.append("No voucher is here: it proves no debt.")
    if found.agreed_jobs:
        lines.append(
            f"Both signed that {found.agreed_jobs} jobs were delivered, for"
            f" {format_credits(found.agreed_ucr)} credits."
        )
    if found.claimed_jobs:
        lines.append(
            f"{payee} alone says so of {found.claimed_jobs} more, for"
            f" {format_credits(found.claimed_ucr)} credits; that proves nothing against the other."
        )
    if found.witnesses:
        lines.append(
            f"{len(found.witnesses)} witnesses signed that they hold"
            f" {format_credits(found.backed_ucr)} credits for it; whether these are to be"
            " believed is for you to say:"
        )
        lines += [f"  {peer_id(key)}" for key in found.witnesses]
    if found.closed_ucr is not None:
        lines.append(f"Both agreed to close it at {format_credits(found.closed_ucr)} credits.")
    lines.append("Whoever holds this file can have the payee paid, and nobody else.")
    return lines
