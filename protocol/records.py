"""What the log holds: one frozen dataclass a record, digests and numbers, never prompts or keys.

`encode_record` gives the (type, payload) of a log frame. Numbers are never reused. What a
record does to a channel is in `router.ledger`. Rule: protocol/README.md, "The log".
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol import limits, wire
from protocol.errors import RemoteError, StorageError
from protocol.fields import (
    OPTIONAL,
    U8,
    U32,
    U63,
    AwardRole,
    Bytes16,
    Bytes32,
    Bytes64,
    ChannelTerms,
    Cheque,
    Code,
    Deposit,
    DepositOrder,
    LaneClaim,
    ModelName,
    Outcome,
    Price,
    SignedHead,
    WitnessSignatures,
)
from protocol.log import SNAPSHOT_END_TYPE, SNAPSHOT_PART_TYPE, SNAPSHOT_TYPE
from protocol.messages import Receipt, Voucher
from protocol.registry import Registry

_registry: Final = Registry(limits.RECORD_NUMBER_MAX)
record = _registry.register
RECORDS: Final = _registry.by_number
NUMBERS: Final = _registry.numbers


@record(1)
@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """Payer: before the award that opens it is sent. Payee: before it is accepted."""

    payer: Bytes32
    payee: Bytes32
    payer_salt: Bytes16
    payee_salt: Bytes16
    terms: ChannelTerms
    deposit_ucr: Deposit
    opened_at_ns: U63


@record(2)
@dataclass(frozen=True, slots=True)
class LaneOpened:
    """A job on a channel; `bid` is the provider's signed envelope, the promise it is held to."""

    cid: Bytes32
    lane: U63
    request_id: Bytes32
    bid_id: Bytes32
    model: ModelName
    input_price_ucr: Price
    output_price_ucr: Price
    opened_at_ns: U63
    bid: Annotated[bytes, Meta(max_length=limits.SEALED_BID_BYTES_MAX)]


@record(3)
@dataclass(frozen=True, slots=True)
class VoucherIssued:
    """Payer, before the voucher is signed: `total_ucr` in all, and the lanes it states."""

    cid: Bytes32
    total_ucr: U63
    lanes: Annotated[tuple[LaneClaim, ...], Meta(max_length=limits.LANES_PER_CHANNEL_MAX)]


@record(4)
@dataclass(frozen=True, slots=True)
class VoucherAccepted:
    """Payee: the best voucher, counted as paid once this is durable."""

    voucher: Voucher


@record(5)
@dataclass(frozen=True, slots=True)
class Reserved:
    """Payee, before chunks are sent: the lane's price due may have reached `due_ucr`."""

    cid: Bytes32
    lane: U63
    due_ucr: U63


@record(6)
@dataclass(frozen=True, slots=True)
class LaneClosed:
    """A lane ended without a receipt, at `due_ucr`, for the reason `code`."""

    cid: Bytes32
    lane: U63
    chunks: U32
    due_ucr: U63
    code: Code
    closed_at_ns: U63


@record(7)
@dataclass(frozen=True, slots=True)
class ReceiptSigned:
    """Payee, before the result is sent: the receipt and its signature."""

    receipt: Receipt
    payee_signature: Bytes64


@record(8)
@dataclass(frozen=True, slots=True)
class ReceiptAcknowledged:
    """Payer, before it counter-signs: the receipt and both signatures."""

    receipt: Receipt
    payee_signature: Bytes64
    payer_signature: Bytes64


@record(9)
@dataclass(frozen=True, slots=True)
class ReceiptCountersigned:
    """Payee: the payer's signature under a receipt of record 7."""

    cid: Bytes32
    lane: U63
    receipt_id: Bytes32
    payer_signature: Bytes64


@record(10)
@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The channel is settled at `settled_ucr`; the rest of the deposit is the payer's again.

    `how` is 1 co-operative (both signatures), 2 refused at opening (none, nothing due),
    3 unilateral (none, the best voucher).
    """

    cid: Bytes32
    settled_ucr: U63
    how: U8
    closed_at_ns: U63
    payer_signature: Annotated[bytes, Meta(max_length=64)]
    payee_signature: Annotated[bytes, Meta(max_length=64)]


@record(11)
@dataclass(frozen=True, slots=True)
class CloseAgreed:
    """Payer, before it asks to close at `total_ucr`: no voucher is issued beyond it."""

    cid: Bytes32
    total_ucr: U63


@record(12)
@dataclass(frozen=True, slots=True)
class ChannelFrozen:
    """The peer broke the channel's rules, for the reason `code`: only claim and close remain."""

    cid: Bytes32
    code: Code
    frozen_at_ns: U63


@record(13)
@dataclass(frozen=True, slots=True)
class DueAgreed:
    """After a re-establish or the repair of a rolled-back log: what the closed lanes cost.

    `settled_due_ucr` is the price of all closed lanes, `settled_lanes` their number; lanes up
    to `lane_last` were used.
    """

    cid: Bytes32
    settled_due_ucr: U63
    settled_lanes: U32
    lane_last: U63


@record(14)
@dataclass(frozen=True, slots=True)
class Denied:
    """Payee: on returning the payer denied `denied_ucr` that was sent and not yet paid."""

    cid: Bytes32
    denied_ucr: U63


@record(15)
@dataclass(frozen=True, slots=True)
class TopUpOffered:
    """Payer, before it signs a deposit of `deposit_ucr` in all; again with the old one when the
    payee refused."""

    cid: Bytes32
    deposit_ucr: Deposit


@record(16)
@dataclass(frozen=True, slots=True)
class DepositRaised:
    """The deposit is `deposit_ucr` from now on: payee, before it says so; payer, when it does.

    The signature is the other end's, under its offer or its answer.
    """

    cid: Bytes32
    deposit_ucr: Deposit
    signature: Bytes64


@record(17)
@dataclass(frozen=True, slots=True)
class ChallengeStarted:
    """One end closes the channel alone, before it says so or when it hears of it.

    `started_by` is 1 payer, 2 payee. Better vouchers than `total_ucr` count until `deadline_ns`.
    """

    cid: Bytes32
    total_ucr: U63
    started_by: U8
    deadline_ns: U63


@record(18)
@dataclass(frozen=True, slots=True)
class AuditOpened:
    """Payer, before a receipt is acknowledged: `held_ucr` of its price is not paid before
    `until_ns`, unless an auditor passes it."""

    cid: Bytes32
    lane: U63
    held_ucr: U63
    until_ns: U63


@record(19)
@dataclass(frozen=True, slots=True)
class AuditClosed:
    """Payer: `verdict` 1 passed, all is paid; 2 disputed, `kept_ucr` is not, for the reason
    `code`."""

    cid: Bytes32
    lane: U63
    verdict: U8
    kept_ucr: U63
    code: Code
    closed_at_ns: U63


@record(20)
@dataclass(frozen=True, slots=True)
class HeadSigned:
    """The head after the record before this one, signed: peers and exports are shown it."""

    head: SignedHead
    signed_at_ns: U63


@record(SNAPSHOT_TYPE)
@dataclass(frozen=True, slots=True)
class SnapshotBegun:
    """The state that the records before it make follows in so many parts, one after another."""

    parts: U32


@record(SNAPSHOT_PART_TYPE)
@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """Some of the state, as router/snapshot.py writes it."""

    state: Annotated[bytes, Meta(max_length=limits.SNAPSHOT_PART_BYTES_MAX)]


@record(SNAPSHOT_END_TYPE)
@dataclass(frozen=True, slots=True)
class SnapshotSigned:
    """The snapshot is complete: the head after its last part, signed. A replay may start at
    its beginning."""

    head: SignedHead
    signed_at_ns: U63


@record(24)
@dataclass(frozen=True, slots=True)
class HeadSeen:
    """A validly signed head that a peer showed, of its own log or, `owner` being us, of ours.

    One of ours is logged only where our log does not have it: it was rolled back. `other` is a
    second one of the same record with another chain: the peer signed two logs.
    """

    owner: Bytes32
    head: SignedHead
    other: SignedHead | None


@record(30)
@dataclass(frozen=True, slots=True)
class OpeningSigned:
    """Both ends, behind ChannelOpened: the payer's signature under the opening, as evidence."""

    cid: Bytes32
    signature: Bytes64


@record(31)
@dataclass(frozen=True, slots=True)
class DepositProved:
    """Both ends: a threshold of witnesses signed that they locked this deposit."""

    order: DepositOrder
    signatures: WitnessSignatures


@record(32)
@dataclass(frozen=True, slots=True)
class DebtPaid:
    """Payee, mutual credit: by its operator's word `payer` paid `amount_ucr` of its debts."""

    payer: Bytes32
    amount_ucr: U63
    paid_at_ns: U63


@record(33)
@dataclass(frozen=True, slots=True)
class DepositOrdered:
    """Payer, before it asks its witnesses: an order's number is never used for another."""

    order: DepositOrder


@record(34)
@dataclass(frozen=True, slots=True)
class FundsGranted:
    """Witness: by its operator's word, `account` was given `granted_ucr` in all."""

    account: Bytes32
    granted_ucr: U63


@record(35)
@dataclass(frozen=True, slots=True)
class FundsLocked:
    """Witness, before it signs: the order is the one that it stands by."""

    order: DepositOrder


@record(36)
@dataclass(frozen=True, slots=True)
class OrderCertified:
    """Witness: a threshold of witnesses signed this order, so it holds here too."""

    order: DepositOrder
    signatures: WitnessSignatures


@record(37)
@dataclass(frozen=True, slots=True)
class ClaimTaken:
    """Witness, before it answers: the best voucher shown, and when the channel settles, or 0."""

    cid: Bytes32
    voucher: Voucher | None
    deadline_ns: U63


@record(38)
@dataclass(frozen=True, slots=True)
class FundsSettled:
    """Witness: the payee has `settled_ucr` of the deposit, the payer the rest."""

    cid: Bytes32
    settled_ucr: U63
    settled_at_ns: U63


@record(39)
@dataclass(frozen=True, slots=True)
class DepositSettled:
    """Either end: a threshold of witnesses signed that they settled the channel at this."""

    cid: Bytes32
    settled_ucr: U63
    signatures: WitnessSignatures


@record(40)
@dataclass(frozen=True, slots=True)
class AwardJudged:
    """Payer, when an award ended: what its bid promised, and what came. 0 where nothing did."""

    request_id: Bytes32
    provider: Bytes32
    model: ModelName
    outcome: Outcome
    code: Annotated[str, Meta(max_length=limits.CODE_CHARS_MAX)]
    receipt_id: Annotated[bytes, Meta(max_length=32)]
    promised_ttft_ns: U63
    ttft_ns: U63
    promised_tokens_per_s_milli: U63
    tokens_per_s_milli: U63
    cost_max_ucr: U63
    paid_ucr: U63
    judged_at_ns: U63
    input_tokens: U32 = field(default=0, metadata=OPTIONAL)
    prompt_bytes: U63 = field(default=0, metadata=OPTIONAL)
    output_tokens: U32 = field(default=0, metadata=OPTIONAL)
    text_bytes: U63 = field(default=0, metadata=OPTIONAL)
    strategy: Annotated[str, Meta(max_length=16)] = field(default="", metadata=OPTIONAL)


@record(41)
@dataclass(frozen=True, slots=True)
class FeedbackGiven:
    """Payer: what its user says of the answer of a receipt, 1 good or 2 bad; the last counts."""

    receipt_id: Bytes32
    verdict: Annotated[int, Meta(ge=1, le=2)]
    given_at_ns: U63


@record(42)
@dataclass(frozen=True, slots=True)
class RequestKeyed:
    """Payer, before a request of an Idempotency-Key is published or awarded: `name` stands for
    the key and `body` for what it asks for, each a hash that only this node can make."""

    name: Bytes32
    body: Bytes32
    request_id: Bytes32
    keyed_at_ns: U63


@record(45)
@dataclass(frozen=True, slots=True)
class ChequeTaken:
    """Provider, before any of the answer leaves: the cheque's nonce is used up, and `held_ucr`,
    what the answer costs at most, counts against its user's limit until it is charged."""

    cheque: Cheque
    model: ModelName
    input_price_ucr: Price
    output_price_ucr: Price
    held_ucr: U63
    taken_at_ns: U63


@record(46)
@dataclass(frozen=True, slots=True)
class ChequeCharged:
    """Provider, before the answer's end leaves: its user owes `cost_ucr` for it.

    A whole answer has a receipt with our signature; one that ended early `code`, and none.
    """

    user: Bytes32
    nonce: U63
    cost_ucr: U63
    code: Annotated[str, Meta(max_length=limits.CODE_CHARS_MAX)]
    receipt: Receipt | None
    payee_signature: Annotated[bytes, Meta(max_length=64)]
    charged_at_ns: U63


@record(47)
@dataclass(frozen=True, slots=True)
class ChequesPaid:
    """Provider: by its operator's word `user` paid `amount_ucr` of what its cheques cost."""

    user: Bytes32
    amount_ucr: U63
    paid_at_ns: U63


@record(48)
@dataclass(frozen=True, slots=True)
class RequestContinued:
    """Payer, before it publishes or awards `by`: a request for the rest of the answer to
    `request_id`, whose provider broke off for the reason `code`; or for all of it, where every
    award failed before its first text, the last one for that reason."""

    request_id: Bytes32
    by: Bytes32
    code: Annotated[str, Meta(max_length=limits.CODE_CHARS_MAX)]
    continued_at_ns: U63


@record(49)
@dataclass(frozen=True, slots=True)
class AwardMade:
    """Payer, before an award of another role than FIRST leaves; one without this is a first. It
    is about the next AwardJudged of that request and provider."""

    request_id: Bytes32
    provider: Bytes32
    role: AwardRole
    made_at_ns: U63


def encode_record(value: Any) -> tuple[int, bytes]:
    """The frame's type and payload. LocalError `wire.unencodable`."""
    return NUMBERS[type(value)], wire.encode_fields(value)


def decode_record(number: int, payload: bytes) -> Any:
    """The record of a frame; StorageError `storage.corrupt` when it is none of ours."""
    cls = RECORDS.get(number)
    if cls is None:
        raise StorageError("storage.corrupt", f"record of unknown type {number}")
    try:
        return wire.decode_fields(cls, payload, limits.RECORD_BYTES_MAX)
    except RemoteError as error:
        raise StorageError("storage.corrupt", f"{cls.__name__}: {error.code}") from error
