"""One request of ours, from publication to its end. Knows the table, not what moves it."""

from dataclasses import dataclass, field, replace

from protocol.envelope import Signed
from protocol.fields import AwardRole
from protocol.job import JOB_TRANSITIONS, JobEvent, JobState
from protocol.machine import apply
from protocol.units import format_credits
from router.actions import Ask
from router.attempt import Attempt
from router.auction import ScoredBid
from router.counting import UNKNOWN, Counts
from router.explaining import Explanation
from router.progress import Progress


@dataclass(slots=True)
class Contest:
    """The awards of one request that run at once: one, or several in a race or beside a late one.

    `slots` were given out, `attempts` awards made, of which the providers `failed` got no text
    out; `hedged` once there was a second one for the first one's lateness.
    """

    runs: list["Job"] = field(default_factory=list)
    slots: int = 1
    attempts: int = 0
    failed: list[bytes] = field(default_factory=list)
    hedged: bool = False


@dataclass(slots=True)
class Job:
    """One request of ours, from publication to its end.

    While several awards run, each has a Job: `contest`, `queue` and `progress` are common to
    them, the `slot` is its own.
    """

    ask: Ask
    request: Signed
    ephemeral_seed: bytes
    prompt_key: bytes
    progress: Progress
    contest: Contest = field(default_factory=Contest)
    slot: int = 0
    role: AwardRole = AwardRole.FIRST
    state: JobState = JobState.BIDDING
    bids: list[ScoredBid] = field(default_factory=list)
    bidders: dict[bytes, str] = field(default_factory=dict)  # provider -> "" or why not
    bar_points: int | None = None  # what others' auctions say that many bids should match
    good_bids: int = 0  # acceptable ones that do, of sellers that are not suspended
    best: ScoredBid | None = None
    best_at_ns: int = 0
    dialled: list[bytes] = field(default_factory=list)  # those who lead have a stream beforehand
    queue: list[ScoredBid] = field(default_factory=list)
    candidate: ScoredBid | None = None
    attempt: Attempt | None = None
    last_code: str = ""
    input_tokens_least: int = 0
    usual: Counts = UNKNOWN  # tokens a KiB, as most count them; 0: not known
    curious: bool = False  # it may cost a little to learn how others count
    median_ucr: int = 0  # what such a job usually costs; 0 when that is not known
    over_cap_ucr: int = 0  # the least that was asked over the cap; 0 for nothing
    explanation: Explanation | None = None
    refusals: dict[str, str] = field(default_factory=dict)  # code -> what one of them lacked
    direct: bool = False  # the award goes to a standing offer, before any auction
    offers_code: str = ""  # why the last of the offers that were awarded came to nothing

    @property
    def id(self) -> bytes:
        """The request's id."""
        return self.request.digest

    @property
    def waits(self) -> bool:
        """Whether it has an award, or is about to, and no text yet."""
        return self.state in (JobState.CONNECTING, JobState.AWARDED)

    @property
    def all_first_bid(self) -> bool:
        """Whether everybody has bid who is to be tried before the others."""
        return all(provider in self.bidders for provider in self.ask.choice.order)

    def step(self, event: JobEvent) -> None:
        """Move by the table."""
        self.state = apply(JOB_TRANSITIONS, self.state, event, "session.protocol")

    def elapsed_ns(self, now_ns: int) -> int:
        """Time since the ask's first request was published."""
        return now_ns - self.progress.began_at_ns

    def enter(self) -> None:
        """The first award of a request is about to be sought."""
        self.contest.runs.append(self)
        if self.progress.broke_off:
            self.role = AwardRole.CONTINUE
        if self.contest.attempts:
            self.role = AwardRole.RETRY

    def lacks(self) -> str:
        """How much the cap lacks for the cheapest that was asked."""
        least, cap = format_credits(self.over_cap_ucr), format_credits(self.ask.price_max_ucr)
        over = format_credits(self.short_ucr)
        return f"up to {least} credits are asked, {over} over the cap of {cap}"

    @property
    def short_ucr(self) -> int:
        """The same in ucr."""
        return max(0, self.over_cap_ucr - self.ask.price_max_ucr)

    def rival(self, role: AwardRole) -> "Job":
        """One more award of the same request, about to go to the best bid that is left."""
        contest = self.contest
        rival = replace(
            self,
            slot=contest.slots,
            role=role,
            state=JobState.CONNECTING,
            candidate=None,
            attempt=None,
            last_code="",
        )
        contest.slots += 1
        contest.runs.append(rival)
        return rival

    def exposed_ucr(self) -> int:
        """What the ask may have cost in the end by what was awarded, or is about to be."""
        promised = [
            run.candidate.cost_max_ucr
            for run in self.contest.runs
            if run.candidate is not None and run.attempt is None
        ]
        return self.progress.exposed_ucr + sum(promised)
