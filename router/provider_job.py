"""What a provider remembers of a bid it placed and of a lane it serves. Decides nothing."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from protocol import limits
from protocol.channel import Channel
from protocol.envelope import Signed
from protocol.fields import GenerationParameters, TokenLogprob
from protocol.lane import Lane
from protocol.messages import Bid, Receipt
from router.actions import JobFinished, SessionKey
from router.receipts import profile_of


@dataclass(frozen=True, slots=True)
class PlacedBid:
    """A promise that an award may collect on until it expires: `signed` is the bid, or the
    standing offer that `bid` follows from."""

    request: Signed
    signed: Signed
    model: str
    bid: Bid


@dataclass(slots=True)
class ProviderJob:
    """A lane that we serve: what the engine made, and how much of it was sent."""

    job_id: bytes
    placed: PlacedBid
    session: SessionKey
    channel: Channel
    lane: Lane
    parameters: GenerationParameters
    commitment: bytes
    transcript: bytes
    started_at_ns: int
    input_tokens_most: int
    input_tokens: int | None = None
    output_tokens: int = 0
    text_bytes: int = 0
    pieces: deque[tuple[str, int]] = field(default_factory=deque)
    logprobs: deque[TokenLogprob] = field(default_factory=deque)
    finished: JobFinished | None = None
    away: bool = False  # the stream broke, and the payer has not come back yet

    @property
    def waiting_bytes(self) -> int:
        """About what the text that was not sent yet takes."""
        return sum(4 * len(text) for text, _ in self.pieces)

    def receipt(self, payee: bytes) -> Receipt:
        """What was delivered, when all of it is."""
        finished = self.finished
        assert finished is not None
        assert self.input_tokens is not None
        return Receipt(
            request_id=self.lane.request_id,
            bid_id=self.lane.bid_id,
            cid=self.channel.cid,
            lane=self.lane.lane,
            payer=self.channel.payer,
            payee=payee,
            prompt_commitment=self.commitment,
            transcript=self.transcript,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            chunks=self.lane.chunks,
            price_ucr=self.lane.due_ucr,
            started_at_ns=self.started_at_ns,
            ttft_ns=finished.ttft_ns,
            duration_ns=finished.duration_ns,
            finish_reason=finished.reason,
            profile=profile_of(finished, self.placed.bid.model_digest, self.parameters),
        )

    def take_logprobs(self, count: int) -> tuple[TokenLogprob, ...]:
        """Those of the next `count` tokens, as far as the engine has given them."""
        return tuple(self.logprobs.popleft() for _ in range(min(count, len(self.logprobs))))


def split_piece(text: str, count: int) -> list[tuple[str, int]]:
    """`text` of `count` tokens in pieces of at most PIECE_TOKENS_MAX tokens.

    An engine that ran ahead reports many tokens at once, and a piece must fit the credit
    window whole. Where in the text a token ends is not known, so the cuts are even.
    """
    if count <= limits.PIECE_TOKENS_MAX:
        return [(text, count)]
    cuts = [*range(0, count, limits.PIECE_TOKENS_MAX), count]
    return [
        (text[len(text) * start // count : len(text) * end // count], end - start)
        for start, end in pairwise(cuts)
    ]
