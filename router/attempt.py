"""One award of one request, as its payer checks it: every chunk, total and receipt.

Pure: it verifies and counts, and never decides what to do about it. Rule: protocol/README.md,
"Chunks" and "Receipts".
"""

from dataclasses import dataclass, field

from protocol import limits, signing
from protocol.channel import Channel
from protocol.crypto import Verify
from protocol.errors import RemoteError
from protocol.fields import GenerationParameters, Outcome
from protocol.lane import Lane, LaneEvent
from protocol.messages import Accept, Chunk, Receipt, Request, Result
from protocol.transcript import transcript_next
from router.actions import SessionKey
from router.auction import ScoredBid, patience_ns
from router.counting import output_tokens_most
from router.pace import Pace


@dataclass(slots=True)
class Attempt:
    """A lane that we pay for. `live` is False once its answer is no longer wanted: chunks in
    flight are still checked and paid, their text is dropped. `away` while its stream is broken
    and may come back, `asked` once the next stream has brought the wish to go on. `needed_ucr` is
    the total that the provider waits for, 0 for none. `said` is what it is when the provider
    itself ends it, `code` why it ended. `slot` is that of its Job,
    `away_until_ns` when a broken stream has had its time to come back. The prompt has
    `prompt_bytes` and may be billed as `input_tokens_most`; `text_bytes` came so far."""

    request: bytes
    ask: Request
    parameters: GenerationParameters
    commitment: bytes
    scored: ScoredBid
    session: SessionKey
    channel: Channel
    lane: Lane
    transcript: bytes
    input_tokens: int = 0
    output_tokens: int = 0
    live: bool = True
    away: bool = False
    asked: bool = False
    needed_ucr: int = 0
    said: Outcome | None = None
    slot: int = 0
    input_tokens_most: int = limits.INPUT_TOKENS_MAX
    prompt_bytes: int = 0
    text_bytes: int = 0
    away_until_ns: int = 0
    code: str = ""
    receipt_id: bytes = b""
    pace: Pace = field(default_factory=Pace)

    @property
    def provider(self) -> bytes:
        """The payee's public key."""
        return self.channel.payee

    def patience_ns(self) -> int:
        """How long to wait for the next chunk; the first one is held to the bid's promise."""
        if self.lane.chunks:
            return limits.CHUNK_TIMEOUT_NS
        return patience_ns(self.scored.bid)

    def take_accept(self, network: str, message: Accept, verify: Verify) -> None:
        """RemoteError `channel.bad_signature`, `channel.wrong_state`."""
        signed = signing.accept_bytes(
            network,
            self.channel.cid,
            self.channel.deposit_ucr,
            self.lane.lane,
            self.scored.signed.digest,
        )
        if not verify(self.provider, signed, message.signature):
            raise RemoteError("channel.bad_signature", "accept")
        self.lane.step(LaneEvent.ACCEPT)

    def take_chunk(self, network: str, chunk: Chunk, verify: Verify) -> None:
        """Check a chunk and count it as received; nothing changes when it is refused.

        RemoteError: `channel.wrong_state`, `chunk.out_of_order`, `chunk.too_many_tokens`,
        `chunk.bad_logprobs`, `chunk.wrong_total`, `chunk.wrong_hash`, `chunk.bad_signature`.
        """
        self.lane.step(LaneEvent.CHUNK)
        if chunk.sequence != self.lane.chunks + 1:
            expected = self.lane.chunks + 1
            raise RemoteError("chunk.out_of_order", f"{chunk.sequence}, expected {expected}")
        text_bytes = self.text_bytes + len(chunk.text.encode())
        self._check_counts(chunk, text_bytes)
        due = self.lane.price_ucr(chunk.input_tokens, chunk.output_tokens)
        if chunk.due_ucr != due:
            raise RemoteError("chunk.wrong_total", f"{chunk.due_ucr} ucr, {due} expected")
        transcript = transcript_next(
            self.transcript,
            chunk.sequence,
            chunk.text,
            chunk.input_tokens,
            chunk.output_tokens,
            chunk.due_ucr,
            chunk.logprobs,
        )
        if chunk.transcript != transcript:
            raise RemoteError("chunk.wrong_hash")
        signed = signing.chunk_bytes(
            network, self.channel.cid, self.lane.lane, chunk.sequence, transcript
        )
        if not verify(self.provider, signed, chunk.signature):
            raise RemoteError("chunk.bad_signature")
        self.lane.chunks, self.lane.due_ucr = chunk.sequence, due
        self.transcript, self.text_bytes = transcript, text_bytes
        self.input_tokens, self.output_tokens = chunk.input_tokens, chunk.output_tokens

    def _check_counts(self, chunk: Chunk, text_bytes: int) -> None:
        if chunk.input_tokens > self.input_tokens_most:
            raise RemoteError("chunk.too_many_tokens", f"{chunk.input_tokens} in")
        if self.lane.chunks and chunk.input_tokens != self.input_tokens:
            raise RemoteError("chunk.wrong_total", "the prompt's length changed")
        if chunk.output_tokens > self.parameters.output_tokens_max:
            raise RemoteError("chunk.too_many_tokens", f"{chunk.output_tokens} out")
        if chunk.output_tokens < self.output_tokens:
            raise RemoteError("chunk.wrong_total", "the output's length fell")
        if chunk.output_tokens > output_tokens_most(text_bytes, self.parameters.stop):
            detail = f"{chunk.output_tokens} out in {text_bytes} bytes of text"
            raise RemoteError("chunk.too_many_tokens", detail)
        # An engine may know fewer than it has tokens: those of a remote server's hidden text.
        most = chunk.output_tokens - self.output_tokens if self.parameters.logprobs else 0
        if len(chunk.logprobs) > most:
            raise RemoteError("chunk.bad_logprobs", f"{len(chunk.logprobs)}, {most} at most")
        if any(len(token.top) > self.parameters.logprobs for token in chunk.logprobs):
            raise RemoteError("chunk.bad_logprobs", "too many alternatives")

    def check_result(self, network: str, result: Result, verify: Verify) -> bytes:
        """The receipt's id, when the receipt says exactly what was delivered.

        RemoteError: `receipt.mismatch` (naming the field), `receipt.bad_signature`.
        """
        receipt = result.receipt
        expected = {
            "request_id": self.request,
            "bid_id": self.scored.signed.digest,
            "cid": self.channel.cid,
            "lane": self.lane.lane,
            "payer": self.channel.payer,
            "payee": self.provider,
            "prompt_commitment": self.commitment,
            "transcript": self.transcript,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "chunks": self.lane.chunks,
            "price_ucr": self.lane.due_ucr,
        }
        for name, value in expected.items():
            if getattr(receipt, name) != value:
                raise RemoteError("receipt.mismatch", name)
        if not self.lane.chunks:
            raise RemoteError("receipt.mismatch", "no chunk was delivered")
        self._check_profile(receipt)
        identity = signing.receipt_id(receipt)
        signed = signing.receipt_bytes(network, identity)
        if not verify(self.provider, signed, result.signature):
            raise RemoteError("receipt.bad_signature")
        return identity

    def _check_profile(self, receipt: Receipt) -> None:
        if receipt.profile.model_digest != self.scored.bid.model_digest:
            raise RemoteError("receipt.mismatch", "model_digest")
        if receipt.profile.parameters_digest != signing.parameters_digest(self.parameters):
            raise RemoteError("receipt.mismatch", "parameters")


class Attempts:
    """The lanes that this node pays for now, by channel and number."""

    def __init__(self) -> None:
        self._by_lane: dict[tuple[bytes, int], Attempt] = {}

    def add(self, attempt: Attempt) -> None:
        """A lane that was just awarded."""
        self._by_lane[attempt.channel.cid, attempt.lane.lane] = attempt

    def remove(self, attempt: Attempt) -> None:
        """Its lane has ended here."""
        self._by_lane.pop((attempt.channel.cid, attempt.lane.lane), None)

    def __contains__(self, attempt: Attempt) -> bool:
        return (attempt.channel.cid, attempt.lane.lane) in self._by_lane

    def find(self, session: SessionKey, cid: bytes, lane: int) -> Attempt:
        """The lane that a frame is about. RemoteError `chunk.unknown_lane`, no offence: one that
        ended a moment ago may still have frames in flight."""
        attempt = self._by_lane.get((cid, lane))
        if attempt is None or attempt.session != session:
            raise RemoteError("chunk.unknown_lane", penalize=False)
        return attempt

    def of(self, channel: Channel) -> list[Attempt]:
        """Those on one channel."""
        return [a for a in self._by_lane.values() if a.channel is channel]

    def with_provider(self, provider: bytes) -> list[Attempt]:
        """Those of one provider."""
        return [a for a in self._by_lane.values() if a.provider == provider]

    def committed_ucr(self, channel: Channel) -> int:
        """What the lanes that run on a channel may still cost."""
        return sum(max(0, a.scored.cost_max_ucr - a.lane.due_ucr) for a in self.of(channel))


# What a provider may find out after it accepted and can't help, or could not know.
_EXCUSED = ("engine.bad_spec", "engine.prompt_too_long", "engine.draining", "engine.overloaded")


def said_outcome(code: str, chunks: int) -> Outcome:
    """How an accepted award ended that its provider gave up for the reason `code`."""
    return Outcome.REFUSED if code in _EXCUSED and not chunks else Outcome.FAILED
