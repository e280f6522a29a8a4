"""One running job on the daemon's side: from the worker's events to the caller's.

Knows nothing of processes. Rule: engine/interface.py.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import trio

from engine.frames import (
    FrameError,
    JobEvent,
    JobFailed,
    JobFinished,
    JobRechecked,
    JobStarted,
    JobTokens,
    Ready,
)
from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.logprobs import read_scored
from protocol import limits
from protocol.errors import CODES, EngineError
from protocol.fields import FinishReason
from protocol.units import NS_PER_S


def now_ns() -> int:
    """Trio's clock in ns."""
    return int(trio.current_time() * NS_PER_S)


def after_waiting(
    emit: Callable[[EngineEvent], None], begin_ns: int
) -> Callable[[EngineEvent], None]:
    """`emit`, for a job that was submitted at `begin_ns` and reaches a worker only now: its
    durations are told from the beginning."""
    waited_ns = now_ns() - begin_ns

    def tell(event: EngineEvent) -> None:
        if isinstance(event, Finished):
            event = replace(
                event,
                ttft_ns=event.ttft_ns + waited_ns,
                duration_ns=event.duration_ns + waited_ns,
            )
        emit(event)

    return tell


def told_error(code: str, detail: str) -> EngineError:
    """What a worker says went wrong, if it is a code at all; in one line."""
    line = " ".join(detail.split())[: limits.ENGINE_DETAIL_CHARS_MAX]
    return EngineError(code if code in CODES else "engine.crashed", line)


def _tokens(event: JobTokens) -> Tokens:
    logprobs = tuple(map(read_scored, event.scores))
    return Tokens(event.text, event.count, event.ids, logprobs)


class RunningJob:
    """A job between submission and its last event; `rechecks` says of which kind."""

    def __init__(self, spec: JobSpec, ready: Ready, *, rechecks: bool = False) -> None:
        self.spec = spec
        self._rechecks = rechecks
        self.is_over = False
        self.input_tokens = 0
        self.output_tokens = 0
        self._ready = ready
        self._submitted_ns = now_ns()
        self._first_ns = 0
        # Bounded by the job's own tokens: at most one event for each (`_check`).
        self._events: deque[EngineEvent | JobRechecked] = deque()
        self._failure: EngineError | None = None
        self._changed = trio.Event()

    @property
    def submitted_ns(self) -> int:
        """When it was submitted, by trio's clock."""
        return self._submitted_ns

    @property
    def tokens_left(self) -> int:
        """How many tokens it may still make."""
        return self.spec.parameters.output_tokens_max - self.output_tokens

    @property
    def unread_tokens(self) -> int:
        """Tokens of its prompt that may still have to be read."""
        return 0 if self._first_ns else self.input_tokens

    def take(self, event: JobEvent) -> None:
        """Record what the worker says of this job. FrameError when it can't be so."""
        self._check(event)
        match event:
            case JobStarted():
                self.input_tokens = event.input_tokens
                self._events.append(Started(event.input_tokens))
            case JobTokens():
                self._first_ns = self._first_ns or now_ns()
                self.output_tokens += event.count
                self._events.append(_tokens(event))
            case JobFinished():
                self.is_over = True
                self._events.append(self._finished(event))
            case JobRechecked():
                self.is_over = True
                self._events.append(event)
            case JobFailed():
                self.fail(told_error(event.code, event.detail))
        self._changed.set()

    def _check(self, event: JobEvent) -> None:
        """A worker whose memory is damaged may say anything; what it says is billed."""
        match event:
            case JobStarted():
                most = self._ready.context_tokens
                fits = not self.input_tokens and 0 < event.input_tokens <= most
            case JobTokens():
                fits = not self._rechecks and 0 < event.count <= self.tokens_left
                scored = event.count if self.spec.parameters.logprobs else 0
                fits = fits and len(event.scores) == scored
            case JobFinished():
                right_kind = not self._rechecks or event.reason is FinishReason.CANCELLED
                fits = right_kind and event.output_tokens == self.output_tokens
            case JobRechecked():
                fits = self._rechecks
            case _:
                fits = True
        if not self.input_tokens and not isinstance(event, JobStarted | JobFailed):
            fits = False
        if not fits:
            raise FrameError(f"{type(event).__name__} that does not fit its job")

    def _finished(self, event: JobFinished) -> Finished:
        end_ns = now_ns()
        return Finished(
            reason=event.reason,
            input_tokens=self.input_tokens,
            output_tokens=event.output_tokens,
            ttft_ns=(self._first_ns or end_ns) - self._submitted_ns,
            duration_ns=end_ns - self._submitted_ns,
            engine=self._ready.engine,
            settings=self._ready.settings,
            reused_tokens=event.reused_tokens,
        )

    def fail(self, error: EngineError) -> None:
        """End the job with an error, after the events that came before it."""
        if not self.is_over:
            self.is_over = True
            self._failure = error
            self._changed.set()

    async def next_event(self) -> EngineEvent | JobRechecked:
        """The next event in order; raises the EngineError of a failed job after the last."""
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._changed = trio.Event()
            await self._changed.wait()
        return self._events.popleft()
