"""What a provider remembers of a bid it placed and of a lane it serves. Decides nothing."""

from collections import deque
from dataclasses import dataclass, field

from protocol.channel import LANE_TRANSITIONS, Channel, Lane, LaneEvent
from protocol.envelope import Signed
from protocol.fields import GenerationParameters
from protocol.machine import apply
from router.actions import JobFinished, SessionKey


@dataclass(frozen=True, slots=True)
class PlacedBid:
    """A promise that an award may collect on until it expires."""

    request: Signed
    signed: Signed
    model: str


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
    finished: JobFinished | None = None

    def step(self, event: LaneEvent) -> None:
        """Move the lane by its table."""
        state = self.lane.state
        self.lane.state = apply(LANE_TRANSITIONS, state, event, "channel.wrong_state")
