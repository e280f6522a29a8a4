"""What an award that ended says of its provider, logged for the reputation.

A provider's own word for why it failed excuses nothing: what it says is a refusal before the
first chunk and a failure after it. Sans-IO. Rule: router/README.md, "Reputation".
"""

from typing import Final

from protocol.errors import CODES
from protocol.fields import AwardRole, Outcome
from protocol.job import JobState
from protocol.records import AwardJudged, AwardMade, FeedbackGiven
from router.attempt import Attempt
from router.auction import ScoredBid
from router.breaker import Breakers
from router.context import Context
from router.explaining import Tried
from router.job import Job

_SILENT: Final = ("award.timeout", "chunk.stalled", "provider.vanished", "request.deadline")
_CHECKS: Final = ("chunk.", "receipt.", "session.protocol", "channel.bad_signature")
_NO_STREAM: Final = ("network.", "session.", "provider.", "request.deadline")


def outcome_of(code: str, state: JobState) -> Outcome:
    """How an award without a receipt ended, by this side's own reason."""
    if state is JobState.CONNECTING:
        return Outcome.UNREACHED if code.startswith(_NO_STREAM) else Outcome.WITHDRAWN
    if code in _SILENT:
        return Outcome.FAILED
    return Outcome.LIED if code.startswith(_CHECKS) else Outcome.WITHDRAWN


class Judging:
    """Writes what each award of this node's requests was for, and what became of it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.breakers = Breakers()

    def awarded(self, job: Job, provider: bytes) -> None:
        """A provider is tried."""
        self.breakers.awarded(provider)
        if job.role is not AwardRole.FIRST:
            made = AwardMade(job.id, provider, job.role, self._context.now_ns)
            self._context.append(made)
        if job.explanation is not None:
            at_ns = job.elapsed_ns(self._context.now_ns)
            job.explanation.tried.append(Tried(provider, at_ns, role=job.role))

    def ended(self, job: Job, code: str = "", detail: str = "", receipt_id: bytes = b"") -> None:
        """The request is over."""
        if job.explanation is not None:
            job.explanation.ended_at_ns = self._context.now_ns
            job.explanation.code, job.explanation.detail = code, detail
            job.explanation.receipt_id = receipt_id

    def delivered(self, job: Job, attempt: Attempt, receipt_id: bytes) -> None:
        """The receipt is counter-signed."""
        self._log(job, attempt.scored, attempt, Outcome.DELIVERED, "", receipt_id)
        self.ended(job, receipt_id=receipt_id)

    def failed(self, job: Job, code: str) -> None:
        """The award that the job waits for, if any, came to nothing; tell before it is dropped."""
        scored, attempt = job.candidate, job.attempt
        if scored is None:
            return
        said = None if attempt is None else attempt.said
        outcome = said or outcome_of(code, job.state)
        self._log(job, scored, attempt, outcome, code if code in CODES else "", b"")

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
    ) -> None:
        ttft_ns = speed_milli = paid_ucr = 0
        counts = (0, 0, 0, 0)
        if attempt is not None:
            ttft_ns, speed_milli = attempt.pace.ttft_ns, attempt.pace.tokens_per_s_milli
            paid_ucr = attempt.lane.due_ucr
            if attempt.lane.chunks:
                read = attempt.input_tokens, attempt.prompt_bytes
                counts = (*read, attempt.output_tokens, attempt.text_bytes)
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
                input_tokens=counts[0],
                prompt_bytes=counts[1],
                output_tokens=counts[2],
                text_bytes=counts[3],
                strategy=job.ask.choice.strategy.value,
            )
        )
        self.breakers.ended(scored.signed.sender, outcome, self._context.now_ns)
        if attempt is not None:
            attempt.code = code
        if job.explanation is not None:
            job.explanation.ended(scored.signed.sender, outcome, code, paid_ucr)
