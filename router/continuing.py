"""Going on elsewhere with an answer that its provider broke off. Sans-IO.

What arrived is paid. A request of its own, for the prompt with the answer's beginning, within what
is left of tokens, price and time, goes to offers or an auction as any other does. The asker reads
one text. Rule: router/README.md, "When a provider fails".
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from protocol import limits
from protocol.errors import CODES, LocalError
from protocol.fields import ChatMessage, InferenceType, Outcome
from protocol.records import RequestContinued
from router import events
from router.actions import Ask
from router.context import Context
from router.job import Job
from router.judging import outcome_of
from router.publishing import published

if TYPE_CHECKING:
    from router.requester import Requester


class Continuing:
    """The answers of this node's requests that were begun and not finished."""

    def __init__(self, context: Context, requester: "Requester") -> None:
        self._context = context
        self._requester = requester

    def broke_off(self, job: Job, code: str, detail: str) -> None:
        """No more comes of the award whose text is being read: go on elsewhere, or fail."""
        requester, progress = self._requester, job.progress
        attempt = job.attempt
        assert attempt is not None
        requester.delivery.abandon(attempt)
        try:
            ask = self._rest(job, code)
            request = published(self._context, ask)
        except LocalError as error:
            why = f"not continued elsewhere: {error.detail}"
            requester.fail(job, code, f"{detail}; {why}" if detail else why)
            return
        context, by = self._context, request.signed.digest
        context.append(RequestContinued(job.id, by, code if code in CODES else "", context.now_ns))
        requester.judging.failed(job, code)
        requester.offers.drop(attempt.provider, job.ask.model)
        requester.forget(job)
        progress.code, progress.detail = code, detail
        progress.output_tokens += attempt.output_tokens
        progress.broke_off.append(attempt.provider)
        progress.failed = []
        if outcome_of(code, job.state) is Outcome.LIED:
            progress.lied.append(attempt.provider)
        continuing = events.Continuing(
            provider=attempt.provider,
            code=code,
            request_id=by,
            output_tokens=progress.output_tokens,
            paid_ucr=progress.paid_ucr,
            at_ns=job.elapsed_ns(context.now_ns),
        )
        context.deliver(ask.ask_id, continuing)
        context.note("request.continued", request_id=job.id, by=by, code=code)
        if job.explanation is not None:
            job.explanation.continued_by.append(by)
        requester.begin(ask, request, progress, job.explanation)

    def is_easy(self, job: Job) -> bool:
        """Whether others are known who could go on, should the provider be gone."""
        assert job.attempt is not None
        filters, now_ns = job.ask.filters, self._context.now_ns
        gone = [*job.progress.broke_off, job.attempt.provider, *filters.providers_ignored]
        try:
            self._rest(job, "provider.vanished")
        except LocalError:
            return False
        offers = self._requester.offers
        return offers.has_other(job.ask.model, filters.providers_only, gone, now_ns)

    def _rest(self, job: Job, code: str) -> Ask:
        """What is left to ask for. LocalError `request.invalid` says why nothing is."""
        ask, progress, request = job.ask, job.progress, job.request.message
        attempt = job.attempt
        assert attempt is not None
        tokens_left = ask.parameters.output_tokens_max - attempt.output_tokens
        price_left_ucr = progress.ask.price_max_ucr - progress.exposed_ucr
        left_ns = request.deadline_ns - self._context.now_ns
        text = progress.text
        if not ask.choice.elsewhere:
            raise _no("the request allows no other provider")
        if ask.prompt.inference_type is InferenceType.EMBEDDING:
            raise _no("vectors are made in one piece")
        if ask.parameters.logprobs:
            raise _no("the tokens' scores would have a seam")
        if len(progress.broke_off) >= limits.CONTINUATIONS_MAX:
            raise _no(f"{len(progress.broke_off)} providers did so already")
        named, gone = ask.filters.providers_only, [*progress.broke_off, attempt.provider]
        if code == "provider.vanished" and named and all(one in gone for one in named):
            raise _no("nobody else was asked for")
        if tokens_left < 1:
            raise _no("all its tokens came, only the receipt is missing")
        if price_left_ucr < 1:
            raise _no("the price cap is used up")
        if left_ns <= ask.bid_window_ns:
            raise _no("no time is left")
        asked = progress.ask.prompt
        begun = asked.begun + (text or "")
        full = len(asked.opening().messages) >= limits.CHAT_MESSAGES_MAX
        if text is None or len(begun) > limits.MESSAGE_TEXT_CHARS_MAX or full:
            raise _no("the text is too long for a prompt")
        messages = (*asked.opening().messages, ChatMessage("assistant", begun))
        return replace(
            ask,
            prompt=replace(asked, messages=messages, continues=1),
            parameters=replace(ask.parameters, output_tokens_max=tokens_left),
            price_max_ucr=price_left_ucr,
            timeout_ns=left_ns,
            use_offers=progress.ask.use_offers,
        )


def _no(detail: str) -> LocalError:
    return LocalError("request.invalid", detail)
