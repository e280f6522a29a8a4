"""Every message on the wire, one frozen dataclass each; type numbers are never reused.

Fields are positional on the wire, in the order written here. Knows nothing of encoding or
meaning: `protocol.wire` encodes, the cores of router/ act. Rule: protocol/README.md.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

from protocol import limits
from protocol.fields import (
    OPTIONAL,
    U32,
    U63,
    Addresses,
    Bytes16,
    Bytes32,
    Bytes64,
    ChannelOpen,
    ChannelTerms,
    Code,
    Deposit,
    DepositOrder,
    FinishReason,
    GenerationParameters,
    GenerationProfile,
    InferenceType,
    LaneClaim,
    ModelName,
    Price,
    Prompt,
    Quantization,
    RequestFilter,
    SignedHead,
    Strategy,
    TokenLogprob,
    WitnessSignatures,
)
from protocol.registry import Registry

_registry: Final = Registry(limits.TYPE_NUMBER_MAX)
message = _registry.register
BY_NUMBER: Final = _registry.by_number
NUMBERS: Final = _registry.numbers


@message(1)
@dataclass(frozen=True, slots=True)
class Request:
    """Broadcast: what is wanted, never the prompt. Travels in a signed envelope.

    `input_tokens_max` is the bucketed upper bound of the prompt; `price_max_ucr` caps the
    whole job; `deadline_ns` is Unix time; `bid_window_ns` a duration from the envelope's date.
    `prompt_commitment` is BLAKE2b-256 of the encoded Prompt under a key told in the award.
    """

    model: ModelName
    inference_type: InferenceType
    input_tokens_max: Annotated[int, Meta(ge=1, le=limits.INPUT_TOKENS_MAX)]
    output_tokens_max: Annotated[int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX)]
    price_max_ucr: Price
    deadline_ns: U63
    bid_window_ns: Annotated[int, Meta(ge=limits.BID_WINDOW_NS_MIN, le=limits.BID_WINDOW_NS_MAX)]
    strategy: Strategy
    filters: RequestFilter
    redundancy: Annotated[int, Meta(ge=1, le=limits.REDUNDANCY_MAX)]
    ephemeral_key: Bytes32
    addresses: Addresses
    prompt_commitment: Bytes32


@message(2)
@dataclass(frozen=True, slots=True)
class SealedBid:
    """An enveloped Bid in a libsodium sealed box to the request's ephemeral key."""

    request_id: Bytes32
    sealed: Annotated[bytes, Meta(max_length=limits.SEALED_BID_BYTES_MAX)]


@message(3)
@dataclass(frozen=True, slots=True)
class Bid:
    """A provider's promise: prices in ucr per 1,000,000 tokens, time to first token, speed.

    `tokens_per_s_milli` is tokens per 1,000 s; `payee_salt` goes into the channel's id;
    `quantization` is of protocol.quantization, empty where it is not known.
    """

    request_id: Bytes32
    model_digest: Bytes32
    input_price_ucr: Price
    output_price_ucr: Price
    ttft_ns: U63
    tokens_per_s_milli: Annotated[int, Meta(ge=1, le=limits.U63_MAX)]
    expires_at_ns: U63
    terms: ChannelTerms
    payee_salt: Bytes16
    addresses: Addresses
    quantization: Quantization = field(default="", metadata=OPTIONAL)


@message(4)
@dataclass(frozen=True, slots=True)
class StandingOffer:
    """A provider's promise to anybody, until it expires: an award may name it like a bid.

    The time to first token is `ttft_ns` and `ttft_ns_per_input_token` for each token of the
    prompt; `places` are free now.
    """

    model: ModelName
    model_digest: Bytes32
    context_tokens: U32
    input_price_ucr: Price
    output_price_ucr: Price
    ttft_ns: U63
    ttft_ns_per_input_token: U63
    tokens_per_s_milli: Annotated[int, Meta(ge=1, le=limits.U63_MAX)]
    places: U32
    expires_at_ns: U63
    terms: ChannelTerms
    payee_salt: Bytes16
    addresses: Addresses
    quantization: Quantization = field(default="", metadata=OPTIONAL)


@message(5)
@dataclass(frozen=True, slots=True)
class PeerRecord:
    """Where a node can be dialled; enveloped by that node, passed on by others as it is."""

    addresses: Addresses


@message(6)
@dataclass(frozen=True, slots=True)
class PeerList:
    """Enveloped PeerRecords that the sender knows, its own first."""

    records: Annotated[
        tuple[Annotated[bytes, Meta(max_length=4096)], ...],
        Meta(max_length=limits.PEER_RECORDS_PER_REPLY_MAX),
    ]


@message(7)
@dataclass(frozen=True, slots=True)
class Clearing:
    """What an auction of the sender came to: the bid that was about the CLEARING_RANK-th best,
    and about how many sell the model.

    Prices, `ttft_ns` and `tokens_per_s_milli` are that bid's, on a request of `input_tokens_max`.
    """

    model: ModelName
    input_tokens_max: Annotated[int, Meta(ge=1, le=limits.INPUT_TOKENS_MAX)]
    input_price_ucr: Price
    output_price_ucr: Price
    ttft_ns: U63
    tokens_per_s_milli: Annotated[int, Meta(ge=1, le=limits.U63_MAX)]
    sellers: Annotated[int, Meta(ge=1, le=limits.U32_MAX)]


@message(8)
@dataclass(frozen=True, slots=True)
class MoreBids:
    """The sender's request got too few bids: who withheld one, send it."""

    request_id: Bytes32


# --- session: payer to payee ---------------------------------------------------------------


@message(21)
@dataclass(frozen=True, slots=True)
class Voucher:
    """The payer owes the payee `total_ucr` in all on this channel; the total is the nonce."""

    cid: Bytes32
    total_ucr: U63
    lanes: Annotated[tuple[LaneClaim, ...], Meta(max_length=limits.LANES_PER_CHANNEL_MAX)]
    signature: Bytes64


@message(20)
@dataclass(frozen=True, slots=True)
class Award:
    """The job itself, to the winner alone: prompt, lane, first voucher, perhaps a channel."""

    request_id: Bytes32
    bid_id: Bytes32
    cid: Bytes32
    lane: U63
    prompt: Prompt
    prompt_key: Bytes32
    parameters: GenerationParameters
    open: ChannelOpen | None
    voucher: Voucher | None
    signature: Bytes64


@message(22)
@dataclass(frozen=True, slots=True)
class Cancel:
    """The payer wants no more of this lane; what was sent stays due."""

    cid: Bytes32
    lane: U63


@message(23)
@dataclass(frozen=True, slots=True)
class CloseRequest:
    """The payer proposes to settle at `total_ucr` and get the rest of the deposit back."""

    cid: Bytes32
    total_ucr: U63
    signature: Bytes64


@message(24)
@dataclass(frozen=True, slots=True)
class ReceiptAck:
    """The payer's counter-signature under a receipt."""

    cid: Bytes32
    lane: U63
    receipt_id: Bytes32
    signature: Bytes64


@message(26)
@dataclass(frozen=True, slots=True)
class DepositProof:
    """What stands behind a channel that the payer is about to open or has raised: its order to
    the witnesses, and a threshold of their signatures under it."""

    order: DepositOrder
    signatures: WitnessSignatures


@message(27)
@dataclass(frozen=True, slots=True)
class DirectRequest:
    """An enveloped Request that was not published, before the award on a standing offer."""

    request: Annotated[bytes, Meta(max_length=limits.GOSSIP_BYTES_MAX)]


@message(25)
@dataclass(frozen=True, slots=True)
class TopUp:
    """The payer raises the channel's deposit to `deposit_ucr` in all."""

    cid: Bytes32
    deposit_ucr: Deposit
    signature: Bytes64


@message(28)
@dataclass(frozen=True, slots=True)
class TermsAsk:
    """The payer wants to open a channel without a job: on what terms?"""

    deposit_ucr: Deposit


@message(29)
@dataclass(frozen=True, slots=True)
class OpenAsk:
    """Opens a channel without a job, on the terms that were given on this stream."""

    cid: Bytes32
    opening: ChannelOpen


# --- session: payee to payer ---------------------------------------------------------------


@message(40)
@dataclass(frozen=True, slots=True)
class Accept:
    """The job starts; `signature` is the payee's over cid, deposit, lane and bid."""

    cid: Bytes32
    lane: U63
    signature: Bytes64


@message(41)
@dataclass(frozen=True, slots=True)
class Refuse:
    """An award, re-establish or close is not taken, for the reason `code`; nothing is due.

    `subject` is the request's id for an award, the channel's for the others.
    """

    subject: Bytes32
    code: Code


@message(42)
@dataclass(frozen=True, slots=True)
class Chunk:
    """Text `sequence` (from 1) of a lane, with running counts and the price due so far.

    `transcript` is the hash chain over all chunks; `signature` the payee's over it.
    `logprobs` are those of the tokens of this chunk, where the award asked for them.
    """

    cid: Bytes32
    lane: U63
    sequence: Annotated[int, Meta(ge=1, le=limits.U32_MAX)]
    text: Annotated[str, Meta(max_length=limits.CHUNK_TEXT_CHARS_MAX)]
    input_tokens: U32
    output_tokens: U32
    due_ucr: U63
    transcript: Bytes32
    signature: Bytes64
    logprobs: Annotated[tuple[TokenLogprob, ...], Meta(max_length=limits.CHUNK_TOKENS_MAX)] = (
        field(default=(), metadata=OPTIONAL)
    )


@message(43)
@dataclass(frozen=True, slots=True)
class VoucherAck:
    """The best total that the payee holds durably."""

    cid: Bytes32
    best_ucr: U63


@message(44)
@dataclass(frozen=True, slots=True)
class NeedVoucher:
    """The lane is paused until the channel's total reaches `total_ucr`."""

    cid: Bytes32
    lane: U63
    total_ucr: U63


@message(45)
@dataclass(frozen=True, slots=True)
class Receipt:
    """What was delivered, as both sides sign it: digests, counts, price, timings.

    Times: `started_at_ns` Unix, others durations. `transcript` is that of the last chunk.
    """

    request_id: Bytes32
    bid_id: Bytes32
    cid: Bytes32
    lane: U63
    payer: Bytes32
    payee: Bytes32
    prompt_commitment: Bytes32
    transcript: Bytes32
    input_tokens: U32
    output_tokens: U32
    chunks: U32
    price_ucr: U63
    started_at_ns: U63
    ttft_ns: U63
    duration_ns: U63
    finish_reason: FinishReason
    profile: GenerationProfile


@message(46)
@dataclass(frozen=True, slots=True)
class Result:
    """The end of a lane: the receipt and the payee's signature under it."""

    receipt: Receipt
    signature: Bytes64


@message(47)
@dataclass(frozen=True, slots=True)
class JobFailed:
    """The lane ended without a result, for the reason `code`; what was sent stays due."""

    cid: Bytes32
    lane: U63
    code: Code


@message(48)
@dataclass(frozen=True, slots=True)
class CloseAck:
    """The payee agrees to the final total; the rest goes back to the payer."""

    cid: Bytes32
    total_ucr: U63
    signature: Bytes64


@message(53)
@dataclass(frozen=True, slots=True)
class TopUpAck:
    """The payee counts on a deposit of `deposit_ucr` from now on."""

    cid: Bytes32
    deposit_ucr: Deposit
    signature: Bytes64


@message(54)
@dataclass(frozen=True, slots=True)
class Terms:
    """The terms and the payee's salt of one channel, until the stream ends or it is opened."""

    terms: ChannelTerms
    payee_salt: Bytes16


@message(55)
@dataclass(frozen=True, slots=True)
class Opened:
    """The channel is open; `signature` is the payee's, layout accept, for lane 0 and no bid."""

    cid: Bytes32
    signature: Bytes64


# --- session: both directions --------------------------------------------------------------


@message(60)
@dataclass(frozen=True, slots=True)
class Reestablish:
    """After a reconnect: the best total that the sender knows, and its lanes.

    The payer reports what it received a lane; the payee shows the best voucher it holds.
    """

    cid: Bytes32
    total_ucr: U63
    lanes: Annotated[tuple[LaneClaim, ...], Meta(max_length=limits.LANES_PER_CHANNEL_MAX)]
    voucher: Voucher | None


@message(62)
@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the sender's log stands, and the newest head of the receiver's that it holds.

    `own` is absent until the receiver has shown what it holds: see router/heads.py.
    """

    own: SignedHead | None
    yours: SignedHead | None


@message(61)
@dataclass(frozen=True, slots=True)
class Resume:
    """Before Reestablish: the lane shall go on (payer), goes on (payee), from chunk `sequence`."""

    cid: Bytes32
    lane: U63
    sequence: Annotated[int, Meta(ge=1, le=limits.U32_MAX)]


@message(63)
@dataclass(frozen=True, slots=True)
class CloseNotice:
    """The sender closes the channel alone, at the total of its best voucher; `signature` is the
    sender's over it and `deadline_ns`, until when it takes a better one."""

    cid: Bytes32
    total_ucr: U63
    deadline_ns: U63
    voucher: Voucher | None
    signature: Bytes64


@message(64)
@dataclass(frozen=True, slots=True)
class CloseClaim:
    """A better voucher than the one that a channel is being closed with."""

    cid: Bytes32
    voucher: Voucher


@message(65)
@dataclass(frozen=True, slots=True)
class CloseShown:
    """Payer, answering a CloseNotice: both had agreed to close, which the payee's log forgot."""

    cid: Bytes32
    total_ucr: U63
    payer_signature: Bytes64
    payee_signature: Bytes64


# --- session: client to witness ------------------------------------------------------------


@message(70)
@dataclass(frozen=True, slots=True)
class LockAsk:
    """Lock a deposit. With `signatures`, a threshold of them, it is settled fact: apply it."""

    order: DepositOrder
    signatures: WitnessSignatures


@message(71)
@dataclass(frozen=True, slots=True)
class ClaimAsk:
    """Pay the payee up to this voucher; `closing` 1 begins to close the channel as well.

    Anybody may show a voucher, only the two ends may close.
    """

    cid: Bytes32
    voucher: Voucher | None
    closing: Annotated[int, Meta(ge=0, le=1)]


@message(72)
@dataclass(frozen=True, slots=True)
class SettleAsk:
    """Both ends agreed to close at `total_ucr`: the signatures of CloseRequest and CloseAck."""

    cid: Bytes32
    total_ucr: U63
    payer_signature: Bytes64
    payee_signature: Bytes64


@message(73)
@dataclass(frozen=True, slots=True)
class ChannelAsk:
    """Where does the witness stand on this channel?"""

    cid: Bytes32


@message(74)
@dataclass(frozen=True, slots=True)
class AccountAsk:
    """What does the sender have with this witness?"""

    account: Bytes32


# --- session: witness to client ------------------------------------------------------------


@message(75)
@dataclass(frozen=True, slots=True)
class LockReceipt:
    """The deposit is locked, durably: the witness's signature over it."""

    cid: Bytes32
    deposit_ucr: Deposit
    sequence: U63
    signature: Bytes64


@message(76)
@dataclass(frozen=True, slots=True)
class ClaimNotice:
    """The best voucher shown so far, and when the channel settles at it; 0: nobody closes."""

    cid: Bytes32
    total_ucr: U63
    deadline_ns: U63


@message(77)
@dataclass(frozen=True, slots=True)
class Settlement:
    """The witness has paid `settled_ucr` to the payee and the rest back; signed."""

    cid: Bytes32
    settled_ucr: U63
    signature: Bytes64


@message(78)
@dataclass(frozen=True, slots=True)
class Account:
    """Funds of an account; `sequence` is the number of its next order."""

    account: Bytes32
    free_ucr: U63
    locked_ucr: U63
    sequence: U63


@message(79)
@dataclass(frozen=True, slots=True)
class WitnessRefuse:
    """What was asked about `cid` is not done, for the reason `code`.

    `sequence` is the number of the order that the witness would take next.
    """

    cid: Bytes32
    code: Code
    sequence: U63
