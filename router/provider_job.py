"""What a provider remembers of a bid it placed and of a lane it serves. Decides nothing."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from protocol import limits
from protocol.channel import LANE_TRANSITIONS, Channel, Lane, LaneEvent
from protocol.envelope import Signed
from protocol.fields import GenerationParameters, TokenLogprob
from protocol.machine import apply
from protocol.messages import Bid
from router.actions import JobFinished, SessionKey


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
    input_tokens: int | None = None
    output_tokens: int = 0
    pieces: deque[tuple[str, int]] = field(default_factory=deque)
    logprobs: deque[TokenLogprob] = field(default_factory=deque)
    finished: JobFinished | None = None

    def step(self, event: LaneEvent) -> None:
        """Move the lane by its table."""
        state = self.lane.state
        self.lane.state = apply(LANE_TRANSITIONS, state, event, "channel.wrong_state")

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
