"""The bounded types and the parts that messages and log records are made of.

Knows nothing of encoding. Bounds are part of the type: `protocol.wire` enforces them in both
directions. Rule: protocol/README.md.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta

from protocol import limits

# A field with this is left out of the encoding when it and all fields after it are at their
# defaults: so a dataclass can grow without another encoding of what there was before.
OPTIONAL: Final = {"optional": True}

U8 = Annotated[int, Meta(ge=0, le=255)]
U16 = Annotated[int, Meta(ge=0, le=limits.U16_MAX)]
U32 = Annotated[int, Meta(ge=0, le=limits.U32_MAX)]
U63 = Annotated[int, Meta(ge=0, le=limits.U63_MAX)]
Price = Annotated[int, Meta(ge=0, le=limits.PRICE_UCR_MAX)]
Deposit = Annotated[int, Meta(ge=0, le=limits.DEPOSIT_UCR_MAX)]
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
ModelName = Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
Address = Annotated[str, Meta(min_length=1, max_length=limits.ADDRESS_CHARS_MAX)]
Addresses = Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)]
Code = Annotated[str, Meta(min_length=1, max_length=limits.CODE_CHARS_MAX)]
Quantization = Annotated[str, Meta(max_length=limits.QUANTIZATION_CHARS_MAX)]


class InferenceType(IntEnum):
    """What is asked for; numbers are on the wire."""

    COMPLETION = 1
    CHAT = 2
    EMBEDDING = 3


class FinishReason(IntEnum):
    """Why a generation ended; numbers are on the wire and in receipts."""

    STOP = 1
    LENGTH = 2
    CANCELLED = 3


class Outcome(IntEnum):
    """How an award ended, in its payer's log; numbers are in logs."""

    DELIVERED = 1
    REFUSED = 2
    FAILED = 3
    LIED = 4
    UNREACHED = 5
    WITHDRAWN = 6


class AwardRole(IntEnum):
    """Why an award was made, in its payer's log; numbers are in logs. RETRY: in the place of one
    that failed. RACE: with others at once. HEDGE: beside a late one. CONTINUE: for the rest of an
    answer that broke off."""

    FIRST = 1
    RETRY = 2
    RACE = 3
    HEDGE = 4
    CONTINUE = 5


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the requester ranks bids, committed to before any bid: weights in 1/1000, sum 1000."""

    price_weight: Annotated[int, Meta(ge=0, le=1000)]
    latency_weight: Annotated[int, Meta(ge=0, le=1000)]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Whom the requester would accept. Empty means anybody; digest empty means any file."""

    model_digest: Annotated[bytes, Meta(max_length=32)]
    providers_only: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROVIDERS_FILTER_MAX)]
    providers_ignored: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROVIDERS_FILTER_MAX)]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; `role` is system, user or assistant (engine-checked)."""

    role: Annotated[str, Meta(min_length=1, max_length=16)]
    content: Annotated[str, Meta(max_length=limits.MESSAGE_TEXT_CHARS_MAX)]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given: one message of raw text for COMPLETION, turns for CHAT, a text in
    each for EMBEDDING.

    With `continues` 1 the last message, behind those, is an answer's beginning: the output goes
    on where it stops, and does not repeat it.
    """

    inference_type: InferenceType
    messages: Annotated[
        tuple[ChatMessage, ...], Meta(min_length=1, max_length=limits.CHAT_MESSAGES_MAX)
    ]
    continues: Annotated[int, Meta(ge=0, le=1)] = field(default=0, metadata=OPTIONAL)

    @property
    def begun(self) -> str:
        """The answer's beginning, or nothing."""
        return self.messages[-1].content if self.continues else ""

    def opening(self) -> "Prompt":
        """The prompt without its answer's beginning. A continuing one has two messages or more."""
        return Prompt(self.inference_type, self.messages[:-1]) if self.continues else self


class ConstraintKind(IntEnum):
    """What the output must be; numbers are on the wire."""

    GRAMMAR = 1
    JSON = 2
    JSON_SCHEMA = 3


@dataclass(frozen=True, slots=True)
class OutputConstraint:
    """The output's form: a GBNF grammar, any JSON object (`text` empty), or a JSON schema."""

    kind: ConstraintKind
    text: Annotated[str, Meta(max_length=limits.CONSTRAINT_CHARS_MAX)]


@dataclass(frozen=True, slots=True)
class LogitBias:
    """Added to one token's logit before sampling, in 1/1000; -100,000 forbids it."""

    token: U32
    bias_milli: Annotated[int, Meta(ge=-100_000, le=100_000)]


@dataclass(frozen=True, slots=True)
class GenerationParameters:
    """Sampling, in integers: whatever is a fraction is in 1/1000; top_k 0 means off.

    `repeat_penalty_milli` 1000 means off, the other penalties and min_p are off at 0.
    `logprobs` asks for that many alternatives a token. `stop_tokens` end the output like the
    model's own end: they are neither shown nor counted. A provider that can't give what is
    asked ends the job.
    """

    output_tokens_max: Annotated[int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX)]
    temperature_milli: Annotated[int, Meta(ge=0, le=5_000)]
    top_k: Annotated[int, Meta(ge=0, le=1_000)]
    top_p_milli: Annotated[int, Meta(ge=0, le=1_000)]
    seed: U32
    stop: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=limits.STOP_STRING_CHARS_MAX)], ...],
        Meta(max_length=limits.STOP_STRINGS_MAX),
    ]
    min_p_milli: Annotated[int, Meta(ge=0, le=1_000)] = 0
    repeat_penalty_milli: Annotated[int, Meta(ge=100, le=10_000)] = 1_000
    presence_penalty_milli: Annotated[int, Meta(ge=-2_000, le=2_000)] = 0
    frequency_penalty_milli: Annotated[int, Meta(ge=-2_000, le=2_000)] = 0
    logit_bias: Annotated[tuple[LogitBias, ...], Meta(max_length=limits.LOGIT_BIAS_MAX)] = ()
    constraint: OutputConstraint | None = None
    logprobs: Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)] = 0
    stop_tokens: Annotated[tuple[U32, ...], Meta(max_length=limits.STOP_TOKENS_MAX)] = field(
        default=(), metadata=OPTIONAL
    )


@dataclass(frozen=True, slots=True)
class TokenChance:
    """A token's bytes, cut to the bound, and ln of its probability in 1/1,000,000."""

    piece: Annotated[bytes, Meta(max_length=limits.TOKEN_BYTES_MAX)]
    logprob_micro: Annotated[int, Meta(ge=limits.LOGPROB_MICRO_MIN, le=0)]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an output and the most likely tokens in its place, best first.

    Of the model's own distribution: at temperature 1, without bias, penalties or constraint.
    """

    chosen: TokenChance
    top: Annotated[tuple[TokenChance, ...], Meta(max_length=limits.LOGPROBS_MAX)]


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """What the payee offers in a bid and the payer accepts by opening.

    `window_ucr` is W, the payee's credit window: delivered and unpaid never exceeds it.
    `deposit_max_ucr` is what the payee's anchor would accept from this payer.
    """

    window_ucr: Deposit
    deposit_max_ucr: Deposit
    lifetime_ns: U63
    challenge_ns: U63


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """What the payer acknowledges of one lane: chunks received and their price due."""

    lane: U63
    chunks: U32
    due_ucr: U63


@dataclass(frozen=True, slots=True)
class GenerationProfile:
    """What a re-check needs to know of how the tokens were made.

    `parameters_digest` is that of the encoded GenerationParameters: receipts go into logs, and
    stop strings or a schema may say what the prompt was about.
    """

    engine: Annotated[str, Meta(max_length=limits.BUILD_NAME_CHARS_MAX)]
    model_digest: Bytes32
    parameters_digest: Bytes32
    settings: Annotated[str, Meta(max_length=limits.BUILD_NAME_CHARS_MAX)]


@dataclass(frozen=True, slots=True)
class DepositOrder:
    """A payer's order to its witnesses: let `deposit_ucr` in all stand behind a channel.

    `sequence` counts the payer's orders from 0; one of each number can ever be certified.
    `signature` is the payer's over the channel's id, the deposit and the number.
    """

    payer: Bytes32
    payee: Bytes32
    payer_salt: Bytes16
    payee_salt: Bytes16
    terms: ChannelTerms
    deposit_ucr: Deposit
    sequence: U63
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class WitnessSignature:
    """One witness's signature; over what is said where it stands."""

    witness: Bytes32
    signature: Bytes64


WitnessSignatures = Annotated[tuple[WitnessSignature, ...], Meta(max_length=limits.WITNESSES_MAX)]


@dataclass(frozen=True, slots=True)
class Cheque:
    """A user's promise to pay `node` for one answer, `amount_ucr` at most.

    `nonce` is the Unix time in ns at which it was written, and no other's of this user. With
    `body`, a digest, it is good for the request with that body alone.
    """

    user: Bytes32
    node: Bytes32
    nonce: U63
    amount_ucr: Price
    signature: Bytes64
    body: Annotated[bytes, Meta(max_length=32)] = field(default=b"", metadata=OPTIONAL)


@dataclass(frozen=True, slots=True)
class ChannelOpen:
    """Opens a channel inside an award; `signature` is the payer's over the cid and deposit."""

    payer_salt: Bytes16
    payee_salt: Bytes16
    terms: ChannelTerms
    deposit_ucr: Deposit
    opened_at_ns: U63
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A node's word for its log up to and with record `sequence`: the chain's value there.

    `signature` is of the log's owner, who is known from where the head stands.
    """

    sequence: U63
    head: Bytes32
    signature: Bytes64
