"""One request of ours, from publication to its end. Knows the table, not what moves it."""

from dataclasses import dataclass, field

from protocol.envelope import Signed
from protocol.job import JOB_TRANSITIONS, JobEvent, JobState
from protocol.machine import apply
from router.actions import Ask
from router.attempt import Attempt
from router.auction import ScoredBid
from router.explaining import Explanation


@dataclass(slots=True)
class Job:
    """One request of ours, from publication to its end."""

    ask: Ask
    request: Signed
    ephemeral_seed: bytes
    prompt_key: bytes
    state: JobState = JobState.BIDDING
    bids: list[ScoredBid] = field(default_factory=list)
    bidders: dict[bytes, str] = field(default_factory=dict)  # provider -> "" or why not
    best: ScoredBid | None = None
    queue: list[ScoredBid] = field(default_factory=list)
    candidate: ScoredBid | None = None
    attempt: Attempt | None = None
    attempts: int = 0
    paid_ucr: int = 0
    last_code: str = ""
    median_ucr: int = 0  # what such a job usually costs; 0 when that is not known
    over_cap_ucr: int = 0  # the least that was asked over the cap; 0 for nothing
    explanation: Explanation | None = None
    direct: bool = False  # the award goes to a standing offer, before any auction

    @property
    def id(self) -> bytes:
        """The request's id."""
        return self.request.digest

    def step(self, event: JobEvent) -> None:
        """Move by the table."""
        self.state = apply(JOB_TRANSITIONS, self.state, event, "session.protocol")

    def elapsed_ns(self, now_ns: int) -> int:
        """Time since the request was published."""
        return now_ns - self.request.sent_at_ns
