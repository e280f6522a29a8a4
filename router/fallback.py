"""What is left of a request whose awards all failed before their first text. Sans-IO.

After standing offers an auction of the same request; after an auction one more, for those who did
not fail, within what is left of price, time and awards. The asker reads nothing of it in its text.
Rule: router/README.md, "When a provider fails".
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from protocol import limits
from protocol.errors import CODES, LocalError
from protocol.job import JobEvent
from protocol.records import RequestContinued
from router import events
from router.context import Context
from router.job import Contest, Job
from router.publishing import published

if TYPE_CHECKING:
    from router.requester import Requester


class Fallback:
    """The next auction of this node's requests."""

    def __init__(self, context: Context, requester: "Requester") -> None:
        self._context = context
        self._requester = requester

    def take(self, job: Job, code: str, detail: str) -> bool:
        """Hold an auction after all that was tried failed, the last for the reason in `code` and
        `detail`; False where none is left, and the request fails for that."""
        if not job.ask.choice.fallbacks:
            return False
        if job.direct:
            job.offers_code = job.last_code
            job.direct, job.contest.attempts, job.last_code = False, 0, ""
            job.contest.hedged = False
            job.step(JobEvent.AUCTION)
            self._requester.bidding.begin(job)
            return True
        return self._again(job, code, detail)

    def _again(self, job: Job, code: str, detail: str) -> bool:
        """A request of its own, as bidders answer none twice."""
        context, progress, contest = self._context, job.progress, job.contest
        left_ucr = progress.ask.price_max_ucr - progress.exposed_ucr
        left_ns = job.request.message.deadline_ns - context.now_ns
        named = job.ask.filters.providers_only
        if not contest.failed or progress.auctions_again >= limits.AUCTIONS_AGAIN_MAX:
            return False
        if contest.attempts >= job.ask.choice.awards_max:
            return False
        if named and all(provider in contest.failed for provider in named):
            return False
        if left_ucr < 1 or left_ns <= job.ask.bid_window_ns:
            return False
        ask = replace(job.ask, price_max_ucr=left_ucr, timeout_ns=left_ns, use_offers=False)
        try:
            request = published(context, ask)
        except LocalError:
            return False
        by = request.signed.digest
        why = job.last_code if job.last_code in CODES else ""
        context.append(RequestContinued(job.id, by, why, context.now_ns))
        progress.auctions_again += 1
        progress.code, progress.detail = code, detail
        progress.failed = contest.failed
        at_ns = job.elapsed_ns(context.now_ns)
        context.deliver(ask.ask_id, events.AuctionedAgain(why, by, at_ns))
        context.note("request.auctioned_again", request_id=job.id, by=by, code=why)
        if job.explanation is not None:
            job.explanation.continued_by.append(by)
        self._requester.forget(job)
        tried = Contest(attempts=contest.attempts)
        self._requester.begin(ask, request, progress, job.explanation, tried)
        return True
