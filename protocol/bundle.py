"""The settlement bundle: all that is signed about one channel, in one file for a third party.

Checked offline, with nothing but the keys in it. Holds no secret, and nothing that pays anybody
but the payee. Rule: protocol/README.md, "Settlement bundle".
"""

from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta

from protocol import crypto, limits, signing, wire
from protocol.errors import RemoteError
from protocol.fields import (
    U8,
    U63,
    Bytes32,
    Bytes64,
    ChannelOpen,
    Deposit,
    DepositOrder,
    WitnessSignatures,
)
from protocol.messages import Receipt, Voucher

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ReceiptEvidence:
    """A receipt as the payee signed it; `payer_signature` is empty where the payer did not."""

    receipt: Receipt
    payee_signature: Bytes64
    payer_signature: Annotated[bytes, Meta(max_length=64)]


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """Receipts by rising lane; every page but the last is full."""

    receipts: Annotated[
        tuple[ReceiptEvidence, ...], Meta(min_length=1, max_length=limits.ARRAY_ITEMS_MAX)
    ]


@dataclass(frozen=True, slots=True)
class RaiseEvidence:
    """The last top-up: the deposit in all, and the payer's signature under it."""

    deposit_ucr: Deposit
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class BackingEvidence:
    """What the payer ordered of its witnesses, and those that signed that they hold it."""

    order: DepositOrder
    signatures: WitnessSignatures


@dataclass(frozen=True, slots=True)
class CloseEvidence:
    """Both ends agreed to close at this."""

    total_ucr: U63
    payer_signature: Bytes64
    payee_signature: Bytes64


@dataclass(frozen=True, slots=True)
class SettlementBundle:
    """One channel; what is not known is null or empty."""

    version: U8
    network: Annotated[str, Meta(min_length=1, max_length=limits.LOG_NETWORK_BYTES_MAX)]
    payer: Bytes32
    payee: Bytes32
    opening: ChannelOpen
    raised: RaiseEvidence | None
    backing: BackingEvidence | None
    voucher: Voucher | None
    pages: Annotated[tuple[ReceiptPage, ...], Meta(max_length=limits.BUNDLE_PAGES_MAX)]
    closed: CloseEvidence | None


@dataclass(frozen=True, slots=True)
class BundleFindings:
    """What a bundle proves, in ucr. `owed_ucr` is what the payer signed that it owes at least.

    `agreed_*` are jobs whose receipts both signed; `claimed_*` those that the payee alone did,
    which prove nothing against the payer.
    """

    network: str
    cid: bytes
    payer: bytes
    payee: bytes
    opened_at_ns: int
    deposit_ucr: int
    owed_ucr: int
    agreed_jobs: int
    agreed_ucr: int
    claimed_jobs: int
    claimed_ucr: int
    witnesses: tuple[bytes, ...]
    backed_ucr: int
    closed_ucr: int | None


def pages_of(receipts: list[ReceiptEvidence]) -> tuple[ReceiptPage, ...]:
    """The receipts, by rising lane, as a bundle holds them: the last ones, if they are many."""
    size = limits.ARRAY_ITEMS_MAX
    kept = receipts[-size * limits.BUNDLE_PAGES_MAX :]
    return tuple(
        ReceiptPage(tuple(kept[start : start + size])) for start in range(0, len(kept), size)
    )


def encode_bundle(bundle: SettlementBundle) -> bytes:
    """The file's bytes. LocalError `wire.unencodable`."""
    return wire.encode_fields(bundle)


def check_bundle(data: bytes, verify: crypto.Verify = crypto.verify) -> BundleFindings:
    """What the bytes prove.

    RemoteError `bundle.malformed`, `bundle.version`, `bundle.bad_signature`, `bundle.mismatch`:
    it was changed, or never was one.
    """
    # The version is the first field, so that a later one is told from damage.
    if data[1:2] and data[0] & 0xF0 == 0x90 and VERSION < data[1] < 0x80:
        raise RemoteError("bundle.version", str(data[1]), penalize=False)
    try:
        bundle = wire.decode_fields(SettlementBundle, data, limits.BUNDLE_BYTES_MAX)
    except RemoteError as error:
        raise RemoteError("bundle.malformed", str(error.code), penalize=False) from error
    if bundle.version != VERSION:
        raise RemoteError("bundle.version", str(bundle.version), penalize=False)
    return _Check(bundle, verify).findings()


class _Check:
    """One bundle, part by part."""

    def __init__(self, bundle: SettlementBundle, verify: crypto.Verify) -> None:
        opening = bundle.opening
        self._bundle = bundle
        self._verify = verify
        self._cid = signing.channel_id(
            bundle.network,
            bundle.payer,
            bundle.payee,
            opening.payer_salt,
            opening.payee_salt,
            opening.terms,
        )
        self._deposit_ucr = opening.deposit_ucr
        if bundle.raised is not None:
            self._deposit_ucr = bundle.raised.deposit_ucr

    def _signed(self, key: bytes, what: bytes, signature: bytes, name: str) -> None:
        if not self._verify(key, what, signature):
            raise RemoteError("bundle.bad_signature", name, penalize=False)

    def _same(self, is_so: bool, what: str) -> None:
        if not is_so:
            raise RemoteError("bundle.mismatch", what, penalize=False)

    def findings(self) -> BundleFindings:
        """Check all of it, then say what it proves."""
        bundle, voucher = self._bundle, self._bundle.voucher
        self._check_opening()
        self._check_backing()
        if voucher is not None:
            self._check_voucher(voucher)
        agreed, claimed = self._check_receipts()
        closed_ucr = self._check_close()
        backing = bundle.backing
        return BundleFindings(
            network=bundle.network,
            cid=self._cid,
            payer=bundle.payer,
            payee=bundle.payee,
            opened_at_ns=bundle.opening.opened_at_ns,
            deposit_ucr=self._deposit_ucr,
            owed_ucr=voucher.total_ucr if voucher is not None else 0,
            agreed_jobs=len(agreed),
            agreed_ucr=sum(agreed),
            claimed_jobs=len(claimed),
            claimed_ucr=sum(claimed),
            witnesses=tuple(one.witness for one in backing.signatures) if backing else (),
            backed_ucr=backing.order.deposit_ucr if backing else 0,
            closed_ucr=closed_ucr,
        )

    def _check_opening(self) -> None:
        bundle, opening = self._bundle, self._bundle.opening
        signed = signing.open_bytes(
            bundle.network, self._cid, opening.deposit_ucr, opening.opened_at_ns
        )
        self._signed(bundle.payer, signed, opening.signature, "opening")
        raised = bundle.raised
        if raised is not None:
            self._same(raised.deposit_ucr > opening.deposit_ucr, "the top-up raises nothing")
            signed = signing.top_up_bytes(bundle.network, self._cid, raised.deposit_ucr)
            self._signed(bundle.payer, signed, raised.signature, "top-up")

    def _check_backing(self) -> None:
        bundle, backing = self._bundle, self._bundle.backing
        if backing is None:
            return
        order = backing.order
        cid = signing.opened_id(bundle.network, order)
        self._same(cid == self._cid, "the order to the witnesses is for another channel")
        amounts = order.deposit_ucr, order.sequence
        signed = signing.order_bytes(bundle.network, cid, *amounts)
        self._signed(bundle.payer, signed, order.signature, "order to the witnesses")
        names = [one.witness for one in backing.signatures]
        self._same(names == sorted(set(names)), "witnesses are not in rising order")
        signed = signing.deposit_bytes(bundle.network, cid, *amounts)
        for one in backing.signatures:
            self._signed(one.witness, signed, one.signature, "witness")

    def _check_voucher(self, voucher: Voucher) -> None:
        bundle = self._bundle
        self._same(voucher.cid == self._cid, "the voucher is of another channel")
        self._same(voucher.total_ucr <= self._deposit_ucr, "the voucher is over the deposit")
        signed = signing.voucher_bytes(bundle.network, self._cid, voucher.total_ucr, voucher.lanes)
        self._signed(bundle.payer, signed, voucher.signature, "voucher")

    def _check_receipts(self) -> tuple[list[int], list[int]]:
        """The prices of those that both signed, and of those that the payee alone did."""
        bundle = self._bundle
        full = all(len(page.receipts) == limits.ARRAY_ITEMS_MAX for page in bundle.pages[:-1])
        self._same(full, "a page of receipts in the middle is not full")
        agreed: list[int] = []
        claimed: list[int] = []
        last = 0
        for one in (one for page in bundle.pages for one in page.receipts):
            receipt = one.receipt
            ends = (receipt.cid, receipt.payer, receipt.payee)
            self._same(ends == (self._cid, bundle.payer, bundle.payee), "another's receipt")
            self._same(receipt.lane > last, "receipts are not by rising lane")
            last = receipt.lane
            identity = signing.receipt_id(receipt)
            signed = signing.receipt_bytes(bundle.network, identity)
            self._signed(bundle.payee, signed, one.payee_signature, "receipt")
            if one.payer_signature:
                signed = signing.receipt_ack_bytes(bundle.network, identity)
                self._signed(bundle.payer, signed, one.payer_signature, "counter-signature")
            (agreed if one.payer_signature else claimed).append(receipt.price_ucr)
        return agreed, claimed

    def _check_close(self) -> int | None:
        bundle, closed = self._bundle, self._bundle.closed
        if closed is None:
            return None
        total = closed.total_ucr
        self._same(total <= self._deposit_ucr, "the close is over the deposit")
        signed = signing.close_bytes(bundle.network, self._cid, total)
        self._signed(bundle.payer, signed, closed.payer_signature, "close")
        signed = signing.close_ack_bytes(bundle.network, self._cid, total)
        self._signed(bundle.payee, signed, closed.payee_signature, "agreement to close")
        return total
