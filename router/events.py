"""What a local asker is told while its request lives. Plain values; amounts in ucr, times in ns.

`at_ns` counts from the publication of the request.
"""

from dataclasses import dataclass

from protocol.fields import TokenLogprob
from protocol.messages import Receipt

CONTROL_ASK = -1  # events that belong to no request: what becomes of channels


@dataclass(frozen=True, slots=True)
class Published:
    """The request is out."""

    request_id: bytes


@dataclass(frozen=True, slots=True)
class BidSeen:
    """A bid came in; `code` is empty when it counts, else why it doesn't.

    `cost_max_ucr` is the worst case for this job; `score` is lower for better.
    """

    provider: bytes
    input_price_ucr: int
    output_price_ucr: int
    ttft_ns: int
    tokens_per_s_milli: int
    cost_max_ucr: int
    score: int
    at_ns: int
    code: str
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class Awarded:
    """The award went out to this provider; `attempt` counts from 1."""

    provider: bytes
    attempt: int
    cid: bytes
    opened_channel: bool
    deposit_ucr: int
    at_ns: int
    role: str = "first"


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer, checked and paid for; `logprobs` where they were asked for. The tokens
    and the price due are those of the whole request so far."""

    text: str
    output_tokens: int
    due_ucr: int
    at_ns: int
    logprobs: tuple[TokenLogprob, ...] = ()
    provider: bytes = b""


@dataclass(frozen=True, slots=True)
class Paid:
    """A voucher was issued: the channel's total so far."""

    cid: bytes
    total_ucr: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Retrying:
    """A provider failed before its first chunk; the next bid is tried, or another award runs."""

    provider: bytes
    code: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class AuctionedAgain:
    """All that bid and were awarded failed before any text, the last one for the reason `code`:
    the request `request_id` is published in place of the one before it, to everybody else."""

    code: str
    request_id: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Continuing:
    """A provider broke off in mid-stream; what arrived is kept and paid, and the request
    `request_id` goes on with the answer elsewhere."""

    provider: bytes
    code: str
    request_id: bytes
    output_tokens: int
    paid_ucr: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Part:
    """What another lane of a request cost than the one whose receipt ends it: `code` says why it
    ended. A receipt is there if its provider had completed the answer all the same."""

    provider: bytes
    cid: bytes
    lane: int
    input_tokens: int
    output_tokens: int
    cost_ucr: int
    code: str
    receipt_id: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete and its receipt checked and counter-signed.

    `others` are lanes that cost something beside: those that broke off and were continued, the
    losers of a race.
    One that a cheque pays for has the `signature` that is its user's evidence.
    """

    receipt: Receipt
    receipt_id: bytes
    at_ns: int
    signature: bytes = b""
    others: tuple[Part, ...] = ()

    @property
    def cost_ucr(self) -> int:
        """For all lanes together."""
        return self.receipt.price_ucr + sum(part.cost_ucr for part in self.others)

    @property
    def input_tokens(self) -> int:
        """Read, and paid, on all lanes together."""
        return self.receipt.input_tokens + sum(part.input_tokens for part in self.others)

    @property
    def output_tokens(self) -> int:
        """Made, and paid, on all lanes together."""
        return self.receipt.output_tokens + sum(part.output_tokens for part in self.others)


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a receipt; `paid_ucr` is what its delivered part cost.

    `short_ucr` is what a cap, a deposit or a cheque lacked, where that ended it and is known.
    """

    code: str
    detail: str
    paid_ucr: int
    at_ns: int
    short_ucr: int = 0


@dataclass(frozen=True, slots=True)
class Quoted:
    """What the request would cost and take: acceptable bids or offers, best first. Not awarded."""

    bids: tuple[BidSeen, ...]
    at_ns: int


@dataclass(frozen=True, slots=True)
class ChannelSettled:
    """A channel closed: what the provider got and what came back."""

    cid: bytes
    settled_ucr: int
    refund_ucr: int


@dataclass(frozen=True, slots=True)
class CloseBegun:
    """A channel is being closed by one end alone: better vouchers count until `deadline_ns`."""

    cid: bytes
    total_ucr: int
    deadline_ns: int
    by_us: bool


@dataclass(frozen=True, slots=True)
class AuditEnded:
    """The audit of a lane is closed; `code` is empty when it is paid in full, else why not."""

    cid: bytes
    lane: int
    code: str


@dataclass(frozen=True, slots=True)
class CloseRefused:
    """A channel that a person wants closed can't be, for the reason `code`."""

    cid: bytes
    code: str


@dataclass(frozen=True, slots=True)
class ChannelToppedUp:
    """A channel's deposit is `deposit_ucr` now; `code` says why it was not raised, if so."""

    cid: bytes
    deposit_ucr: int
    code: str


AskEvent = (
    Published
    | BidSeen
    | Awarded
    | Text
    | Paid
    | Retrying
    | AuctionedAgain
    | Continuing
    | Done
    | Failed
    | Quoted
)
TERMINAL = (Done, Failed, Quoted)
