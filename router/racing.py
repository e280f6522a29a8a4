"""More than one award of a request at once: a race, or a second one because the first is late.

The first text decides; the others are cancelled and paid what is due. All awards together fit the
request's cap at their worst, or fewer run. Sans-IO. Rule: router/README.md, "Races and hedges".
"""

from typing import TYPE_CHECKING, Final

from protocol.fields import AwardRole
from protocol.job import JobEvent
from router.context import Context
from router.job import Job
from router.timers import TimerKey

if TYPE_CHECKING:
    from router.requester import Requester

# One award in so many may get a second one for its lateness, and a few at once: where everybody is
# late, twice the work makes all later still.
HEDGE_EVERY: Final = 10
HEDGES_SAVED: Final = 3

KINDS: Final = ("accept", "stall", "resume")  # timers that each award of a request has


class Racing:
    """The awards that run beside each other, of all requests of this node."""

    def __init__(self, context: Context, requester: "Requester") -> None:
        self._context = context
        self._requester = requester
        self._saved = HEDGE_EVERY * HEDGES_SAVED

    def start(self, job: Job) -> None:
        """Award the best bid; in a race, the best few."""
        self._saved = min(self._saved + 1, HEDGE_EVERY * HEDGES_SAVED)
        if job.ask.choice.race > 1 and job.role is not AwardRole.CONTINUE:
            job.role = AwardRole.RACE
        self._requester.awarding.next(job)
        for _ in range(job.ask.choice.race - 1):
            if self._may_enter(job):
                self._requester.awarding.next(job.rival(AwardRole.RACE))

    def watch(self, job: Job) -> None:
        """An award is about to be made: note when it would be late."""
        choice, scored = job.ask.choice, job.candidate
        alone = len(job.contest.runs) == 1 and not job.contest.hedged
        if not choice.hedge_factor_milli or scored is None or not alone:
            return
        promised_ns = scored.bid.ttft_ns * choice.hedge_factor_milli // 1_000
        late_ns = max(choice.hedge_floor_ns, promised_ns)
        self._context.timers.set(TimerKey("hedge", job.id), self._context.now_ns + late_ns)

    def late(self, job: Job) -> None:
        """The first text is late: a second award, if there is a bid for it."""
        contest = job.contest
        if contest.hedged or len(contest.runs) != 1 or not self._may_enter(job):
            return
        if self._saved < HEDGE_EVERY:
            return
        self._saved -= HEDGE_EVERY
        contest.hedged = True
        self._context.note("award.hedged", request_id=job.id)
        self._requester.awarding.next(job.rival(AwardRole.HEDGE))

    def _may_enter(self, job: Job) -> bool:
        contest = job.contest
        waiting = bool(contest.runs) and all(run.waits for run in contest.runs)
        return waiting and bool(job.queue) and contest.attempts < job.ask.choice.awards_max

    def won(self, job: Job) -> None:
        """The first text is this one's: nobody else's is wanted any more."""
        self._context.timers.cancel(TimerKey("hedge", job.id))
        for other in list(job.contest.runs):
            if other is not job:
                if other.attempt is not None:
                    self._requester.delivery.abandon(other.attempt)
                self._requester.judging.failed(other, "award.outrun")
                self.out(other)

    def out(self, job: Job) -> None:
        """An award came to nothing, and others of the request still run."""
        self._requester.awarding.drop_opening(job)
        job.step(JobEvent.FAIL)
        job.candidate = None
        for kind in KINDS:
            self._context.timers.cancel(TimerKey(kind, job.id, job.slot))
        job.contest.runs.remove(job)
