"""Lanes that we pay for and whose stream broke, or whose channel ends. Sans-IO.

Rule: router/README.md, "Resuming".
"""

from typing import TYPE_CHECKING

from protocol import limits
from protocol.channel import Channel
from protocol.job import JobState
from router.attempt import Attempt
from router.context import Context
from router.delivery import Delivery
from router.job import Job
from router.payer import Payer
from router.timers import TimerKey

if TYPE_CHECKING:
    from router.requester import Requester


class Breaks:
    """Keeps lanes over a broken stream, while somebody reads their text."""

    def __init__(
        self, context: Context, payer: Payer, delivery: Delivery, requester: "Requester"
    ) -> None:
        self._context = context
        self._payer = payer
        self._delivery = delivery
        self._requester = requester

    def stop(self, channel: Channel, code: str) -> None:
        """The channel ends: what arrived on its lanes is due, the rest never comes."""
        for attempt in self._delivery.attempts.of(channel):
            job = self._delivery.job_of(attempt)
            attempt.away = False
            self._delivery.close_lane(attempt, code)
            if job is not None and job.state is JobState.AWARDED:
                self._requester.awarding.next_bid(job, code)
            elif job is not None:
                self._requester.continuing.broke_off(job, code, "what arrived is paid")

    def session_closed(self, provider: bytes, *, may_resume: bool) -> None:
        """The stream is gone; its lanes stay open on the channel until it is re-established.

        Lanes whose text somebody is reading wait for that, for RESUME_TIMEOUT_NS.
        """
        context = self._context
        for attempt in self._delivery.attempts.with_provider(provider):
            attempt.asked = False
            job = self._delivery.job_of(attempt)
            if may_resume and job is not None and job.state is JobState.STREAMING:
                if not attempt.away:
                    attempt.away_until_ns = context.now_ns + limits.RESUME_TIMEOUT_NS
                    timer = TimerKey("resume", attempt.request, attempt.slot)
                    context.timers.set(timer, context.now_ns + limits.RESUME_ALONE_NS)
                attempt.away = True
            else:
                self._delivery.drop(attempt)
                attempt.live = attempt.away = False
        self._payer.lost(provider)

    def waited(self, job: Job) -> None:
        """The stream did not come back in time, or in the time that it has where others sell."""
        attempt, context = job.attempt, self._context
        assert attempt is not None
        left = context.now_ns < attempt.away_until_ns
        if left and (attempt.asked or not self._requester.continuing.is_easy(job)):
            timer = TimerKey("resume", attempt.request, attempt.slot)
            context.timers.set(timer, attempt.away_until_ns)
            return
        vanished = "mid-stream; what arrived is paid"
        self._requester.continuing.broke_off(job, "provider.vanished", vanished)

    def away(self, channel: Channel) -> list[Attempt]:
        """The lanes of a channel that wait for its stream."""
        return [attempt for attempt in self._delivery.attempts.of(channel) if attempt.away]

    def resumed(self, channel: Channel, going_on: list[int]) -> None:
        """The channel is re-established, or never will be: the lanes named go on."""
        for attempt in self.away(channel):
            job = self._delivery.job_of(attempt)
            attempt.away = attempt.asked = False
            if attempt.lane.lane in going_on and not attempt.live:
                self._delivery.cancel(attempt)  # nobody reads it any more
                continue
            if attempt.lane.lane in going_on:
                resume = TimerKey("resume", attempt.request, attempt.slot)
                self._context.timers.cancel(resume)
                self._delivery.watch(attempt)
                self._context.note("stream.resumed", request_id=attempt.request)
                continue
            self._delivery.drop(attempt)
            if job is not None:
                vanished = "mid-stream; what arrived is paid"
                self._requester.continuing.broke_off(job, "provider.vanished", vanished)
