"""What an award that ended says of its provider, logged for the reputation.

A provider's own word for why it failed excuses nothing: what it says is a refusal before the
first chunk and a failure after it. Sans-IO. Rule: router/README.md, "Reputation".
"""

from typing import Final

from protocol.errors import CODES
from protocol.fields import Outcome
from protocol.job import JobState
from protocol.records import AwardJudged, FeedbackGiven
from router.attempt import Attempt
from router.auction import ScoredBid
from router.context import Context
from router.job import Job

_SILENT: Final = ("award.timeout", "chunk.stalled", "provider.vanished", "request.deadline")
_CHECKS: Final = ("chunk.", "receipt.", "session.protocol", "channel.bad_signature")
_NO_STREAM: Final = ("network.", "session.", "provider.", "request.deadline")


def outcome_of(code: str, state: JobState, *, said: bool, chunks: int) -> Outcome:
    """How an award without a receipt ended; `said` when the provider gave the code."""
    if said:
        return Outcome.FAILED if chunks else Outcome.REFUSED
    if state is JobState.CONNECTING:
        return Outcome.UNREACHED if code.startswith(_NO_STREAM) else Outcome.WITHDRAWN
    if code in _SILENT:
        return Outcome.FAILED
    return Outcome.LIED if code.startswith(_CHECKS) else Outcome.WITHDRAWN


class Judging:
    """Writes one AwardJudged for each award of this node's requests."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def delivered(self, job: Job, attempt: Attempt, receipt_id: bytes) -> Outcome:
        """The receipt is counter-signed."""
        return self._log(job, attempt.scored, attempt, Outcome.DELIVERED, "", receipt_id)

    def failed(self, job: Job, code: str) -> Outcome | None:
        """The award that the job waits for, if any, came to nothing; tell before it is dropped."""
        scored, attempt = job.candidate, job.attempt
        if scored is None:
            return None
        said = attempt is not None and attempt.said
        chunks = 0 if attempt is None else attempt.lane.chunks
        outcome = outcome_of(code, job.state, said=said, chunks=chunks)
        return self._log(job, scored, attempt, outcome, code if code in CODES else "", b"")

    def feedback(self, receipt_id: bytes, verdict: int) -> None:
        """A user's word for an answer whose receipt is still kept; else nothing happens."""
        context = self._context
        if receipt_id in context.ledger.reputation.rated:
            context.append(FeedbackGiven(receipt_id, verdict, context.now_ns))

    def _log(
        self,
        job: Job,
        scored: ScoredBid,
        attempt: Attempt | None,
        outcome: Outcome,
        code: str,
        receipt_id: bytes,
    ) -> Outcome:
        ttft_ns = speed_milli = paid_ucr = 0
        if attempt is not None:
            ttft_ns, speed_milli = attempt.pace.ttft_ns, attempt.pace.tokens_per_s_milli
            paid_ucr = attempt.lane.due_ucr
        self._context.append(
            AwardJudged(
                request_id=job.id,
                provider=scored.signed.sender,
                model=job.ask.model,
                outcome=outcome,
                code=code,
                receipt_id=receipt_id,
                promised_ttft_ns=scored.bid.ttft_ns,
                ttft_ns=ttft_ns,
                promised_tokens_per_s_milli=scored.bid.tokens_per_s_milli,
                tokens_per_s_milli=speed_milli,
                cost_max_ucr=scored.cost_max_ucr,
                paid_ucr=paid_ucr,
                judged_at_ns=self._context.now_ns,
            )
        )
        return outcome
