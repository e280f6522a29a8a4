"""What goes into a Node and what comes out: plain values, no behaviour.

Actions of one input run in order, and nothing after an Append leaves before that record is
durable; what waits for a stream that ends meanwhile goes down with it. That is the driver's
contract, in `peer.driver` and `simnet.driver` alike.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocol.envelope import Signed
from protocol.fields import (
    Cheque,
    FinishReason,
    GenerationParameters,
    Prompt,
    RequestFilter,
    Strategy,
    TokenLogprob,
)
from router.choosing import Choice


class SessionKey(NamedTuple):
    """A job stream to a peer; `outbound` when we are the payer, who dials."""

    peer: bytes
    outbound: bool


class RequestKey(NamedTuple):
    """A client's name for a request, and what stands for its body; both 32 bytes."""

    name: bytes
    body: bytes


# --- inputs --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GossipReceived:
    """A gossip message that admission let through."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class BidReceived:
    """A SealedBid that came on a direct stream from `peer`."""

    peer: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class BidUndelivered:
    """A bid could not be sent directly: the requester is unreachable from here."""

    request_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A job stream is up: one that we asked for, or one that a payer opened to us."""

    session: SessionKey


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A job stream ended, or could not be opened; `code` says why."""

    session: SessionKey
    code: str


@dataclass(frozen=True, slots=True)
class SessionData:
    """Bytes of a job stream, cut anywhere."""

    session: SessionKey
    data: bytes


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model that the engine serves now: facts, promise and price.

    `places` jobs run at once, and `queue_jobs` more would be taken to wait now; the promise is
    for one that comes next, with its wait. It `embeds` where it takes EMBEDDING, too. The
    `quantization` is of protocol.quantization, empty where it is not known.
    """

    name: str
    digest: bytes
    context_tokens: int
    input_price_ucr: int
    output_price_ucr: int
    ttft_ns: int
    ttft_ns_per_input_token: int
    tokens_per_s_milli: int
    places: int
    queue_jobs: int = 0
    embeds: bool = False
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class OffersChanged:
    """What the engine can serve from now on; empty when it is down or draining."""

    offers: tuple[ModelOffer, ...]


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The engine took the prompt: its length in tokens."""

    job_id: bytes
    input_tokens: int


@dataclass(frozen=True, slots=True)
class JobTokens:
    """Pieces of text with the tokens that made each; logprobs of them in order, if asked for."""

    job_id: bytes
    pieces: tuple[tuple[str, int], ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class JobFinished:
    """The engine finished a job; durations in ns from its start."""

    job_id: bytes
    reason: FinishReason
    output_tokens: int
    ttft_ns: int
    duration_ns: int
    engine: str
    settings: str


@dataclass(frozen=True, slots=True)
class JobBroke:
    """The engine failed a job; `code` is an error code of the table."""

    job_id: bytes
    code: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A local person or program wants an answer. Amounts in ucr, durations in ns.

    With `use_offers` the best standing offers are tried first, without an auction.
    `holdback_ucr` of the price, at most, is paid only when an auditor passes the receipt or
    `audit_ns` after it. A request with a `key` is logged under it before it is published.
    """

    ask_id: int
    model: str
    prompt: Prompt
    parameters: GenerationParameters
    price_max_ucr: int
    timeout_ns: int
    bid_window_ns: int
    strategy: Strategy
    filters: RequestFilter
    deposit_ucr: int
    advance_max_ucr: int
    use_offers: bool = False
    holdback_ucr: int = 0
    audit_ns: int = 0
    choice: Choice = field(default_factory=Choice)
    early_close_bids: int = 3  # acceptable bids with which the window may end early; 0: never
    key: RequestKey | None = None


@dataclass(frozen=True, slots=True)
class CancelAsk:
    """The local asker has gone away or changed its mind."""

    ask_id: int


@dataclass(frozen=True, slots=True)
class CloseChannels:
    """Close the payer channels named by `cids`, or all of them when empty."""

    cids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AuditPassed:
    """A local auditor has nothing to say against the receipt of a lane that we paid for."""

    cid: bytes
    lane: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """A local auditor says that a lane did not deliver what its receipt says, with a code."""

    cid: bytes
    lane: int
    code: str


@dataclass(frozen=True, slots=True)
class ForceClose:
    """Close the channels named by `cids` alone, whatever the other end says."""

    cids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TopUpChannel:
    """Raise the deposit of the payer channel `cid` to `deposit_ucr` in all."""

    cid: bytes
    deposit_ucr: int


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """Open a channel to `payee` with this deposit, without a job."""

    payee: bytes
    deposit_ucr: int


@dataclass(frozen=True, slots=True)
class ClaimDeposits:
    """Collect on the vouchers of the payee channels named by `cids`, or of all when empty."""

    cids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AskAccounts:
    """Have every witness say what we have with it."""


@dataclass(frozen=True, slots=True)
class DebtWasPaid:
    """Under mutual credit: the operator says that `payer` paid so much of what it owes."""

    payer: bytes
    amount_ucr: int


@dataclass(frozen=True, slots=True)
class ServeCheque:
    """A user's cheque for one answer, which the asker `ask_id` is told; it waits `timeout_ns`."""

    ask_id: int
    cheque: Cheque
    model: str
    prompt: Prompt
    parameters: GenerationParameters
    timeout_ns: int


@dataclass(frozen=True, slots=True)
class ChequesWerePaid:
    """The operator says that `user` paid so much of what its cheques cost."""

    user: bytes
    amount_ucr: int


@dataclass(frozen=True, slots=True)
class Started:
    """The log was replayed and streams can be opened: what was begun goes on."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new work; what runs may finish."""


@dataclass(frozen=True, slots=True)
class GiveFeedback:
    """What the user says of the answer of a receipt: 1 good, 2 bad."""

    receipt_id: bytes
    verdict: int


@dataclass(frozen=True, slots=True)
class SignHead:
    """Sign the log's head and show it to channel peers: on demand, and before stopping."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Log the whole state now."""


Input = (
    GossipReceived
    | BidReceived
    | BidUndelivered
    | SessionOpened
    | SessionClosed
    | SessionData
    | OffersChanged
    | JobStarted
    | JobTokens
    | JobFinished
    | JobBroke
    | Ask
    | CancelAsk
    | CloseChannels
    | AuditPassed
    | Dispute
    | ForceClose
    | TopUpChannel
    | OpenChannel
    | ClaimDeposits
    | DebtWasPaid
    | AskAccounts
    | ServeCheque
    | ChequesWerePaid
    | Started
    | Drain
    | GiveFeedback
    | SignHead
    | Snapshot
)


# --- actions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Publish:
    """Gossip these bytes on the network's topic."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendBid:
    """Send a sealed bid on a direct stream; BidUndelivered comes back when it can't be."""

    peer: bytes
    addresses: tuple[str, ...]
    request_id: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a job stream; SessionOpened or SessionClosed follows."""

    session: SessionKey
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Framed bytes for a job stream, in order."""

    session: SessionKey
    data: bytes


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Close a job stream."""

    session: SessionKey
    code: str


@dataclass(frozen=True, slots=True)
class Append:
    """A record for the log; already applied to the node's own ledger."""

    type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StartJob:
    """Give the engine a job of `payer`, who was promised this first token and speed, and waits
    for the first token no longer than `ttft_ns_max`."""

    job_id: bytes
    model: str
    prompt: Prompt
    parameters: GenerationParameters
    payer: bytes
    ttft_ns: int = 0
    tokens_per_s_milli: int = 0
    ttft_ns_max: int = 0


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Stop a job at its next step; nothing more is wanted of it."""

    job_id: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """An event for a local asker: a `router.events` value."""

    ask_id: int
    event: Any


@dataclass(frozen=True, slots=True)
class Penalize:
    """A peer broke the protocol; the driver keeps away from it for a while."""

    peer: bytes
    code: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth one log line: an event's name and its fields."""

    event: str
    fields: tuple[tuple[str, Any], ...]


Action = (
    Publish
    | SendBid
    | OpenSession
    | Send
    | CloseSession
    | Append
    | StartJob
    | CancelJob
    | Deliver
    | Penalize
    | Note
)
