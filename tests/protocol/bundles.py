"""A settlement bundle with every part, signed by keys that are known: for vectors and tests."""

from dataclasses import replace
from typing import Final

from protocol import crypto, signing
from protocol.bundle import (
    BackingEvidence,
    CloseEvidence,
    RaiseEvidence,
    ReceiptEvidence,
    SettlementBundle,
    pages_of,
)
from protocol.fields import ChannelOpen, DepositOrder, WitnessSignature
from protocol.messages import Voucher
from tests.vectors import samples as s

PAYER: Final = crypto.Signer(s.PAYER_SEED)
PAYEE: Final = crypto.Signer(s.PAYEE_SEED)
WITNESSES: Final = sorted(
    (crypto.Signer(s.fill(seed)) for seed in (0xA1, 0xA2, 0xA3)), key=lambda one: one.public_key
)
SALTS: Final = s.fill(0x40, 16), s.fill(0x50, 16)
CID: Final = signing.channel_id(s.NETWORK, PAYER.public_key, PAYEE.public_key, *SALTS, s.TERMS)


def evidence(lane: int, price_ucr: int, *, agreed: bool = True) -> ReceiptEvidence:
    """A receipt that both signed, or the payee alone."""
    ends = {"payer": PAYER.public_key, "payee": PAYEE.public_key}
    receipt = replace(s.RECEIPT, cid=CID, lane=lane, price_ucr=price_ucr, **ends)
    identity = signing.receipt_id(receipt)
    by_payer = PAYER.sign(signing.receipt_ack_bytes(s.NETWORK, identity)) if agreed else b""
    return ReceiptEvidence(
        receipt, PAYEE.sign(signing.receipt_bytes(s.NETWORK, identity)), by_payer
    )


def order(deposit_ucr: int) -> BackingEvidence:
    """The payer's order, and all witnesses' signatures under it."""
    signed = signing.deposit_bytes(s.NETWORK, CID, deposit_ucr, 3)
    given = DepositOrder(
        PAYER.public_key,
        PAYEE.public_key,
        *SALTS,
        s.TERMS,
        deposit_ucr,
        3,
        PAYER.sign(signing.order_bytes(s.NETWORK, CID, deposit_ucr, 3)),
    )
    witnessed = tuple(WitnessSignature(one.public_key, one.sign(signed)) for one in WITNESSES)
    return BackingEvidence(given, witnessed)


def voucher(total_ucr: int) -> Voucher:
    """Signed by the payer."""
    signed = signing.voucher_bytes(s.NETWORK, CID, total_ucr, s.CLAIMS)
    return Voucher(CID, total_ucr, s.CLAIMS, PAYER.sign(signed))


def whole() -> SettlementBundle:
    """Opened, topped up, backed, paid, two jobs agreed and one not, and closed."""
    opened = signing.open_bytes(s.NETWORK, CID, 2_000_000, s.NOW_NS)
    return SettlementBundle(
        version=1,
        network=s.NETWORK,
        payer=PAYER.public_key,
        payee=PAYEE.public_key,
        opening=ChannelOpen(*SALTS, s.TERMS, 2_000_000, s.NOW_NS, PAYER.sign(opened)),
        raised=RaiseEvidence(
            3_000_000, PAYER.sign(signing.top_up_bytes(s.NETWORK, CID, 3_000_000))
        ),
        backing=order(3_000_000),
        voucher=voucher(2_500_000),
        pages=pages_of([evidence(1, 52_500), evidence(2, 7), evidence(4, 9, agreed=False)]),
        closed=CloseEvidence(
            52_507,
            PAYER.sign(signing.close_bytes(s.NETWORK, CID, 52_507)),
            PAYEE.sign(signing.close_ack_bytes(s.NETWORK, CID, 52_507)),
        ),
    )
