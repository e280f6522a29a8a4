"""One job on the daemon's side: it waits for its turn, then the worker's events are its own.

Knows nothing of processes. Rule: engine/interface.py.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import trio

from engine import frames
from engine.completions import estimated_tokens
from engine.frames import (
    Embed,
    FrameError,
    JobEvent,
    JobFailed,
    JobFinished,
    JobRechecked,
    JobStarted,
    JobTokens,
    Ready,
    Recheck,
    Submit,
)
from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.logprobs import read_scored
from engine.queue import Ticket
from protocol import limits
from protocol.errors import CODES, EngineError
from protocol.fields import FinishReason, GenerationParameters, Prompt
from protocol.units import NS_PER_S


def now_ns() -> int:
    """Trio's clock in ns."""
    return int(trio.current_time() * NS_PER_S)


def after_waiting(
    emit: Callable[[EngineEvent], None], begin_ns: int
) -> Callable[[EngineEvent], None]:
    """`emit`, for a job that was submitted at `begin_ns` and reaches an engine only now: its
    durations are told from the beginning."""
    waited_ns = now_ns() - begin_ns

    def tell(event: EngineEvent) -> None:
        if isinstance(event, Finished):
            event = replace(
                event,
                ttft_ns=event.ttft_ns + waited_ns,
                duration_ns=event.duration_ns + waited_ns,
                queue_ns=event.queue_ns + waited_ns,
            )
        emit(event)

    return tell


def check_spec(spec: JobSpec) -> None:
    """EngineError `engine.bad_spec`: a value that the wire does not know, names and all.

    What depends on the model (tokens of its vocabulary, its context) is checked in the worker.
    """
    if not isinstance(spec.prompt, Prompt) or not isinstance(
        spec.parameters, GenerationParameters
    ):
        raise EngineError("engine.bad_spec", "it has no prompt or no parameters")
    try:
        frames.check(Submit(0, spec.prompt, spec.parameters, spec.owner))
    except FrameError as error:
        why = str(error).replace("$[3].", "").replace("$[2].", "prompt.")
        raise EngineError("engine.bad_spec", why.replace("$[4]", "owner")) from None


def told_error(code: str, detail: str) -> EngineError:
    """What a worker says went wrong, if it is a code at all; in one line."""
    line = " ".join(detail.split())[: limits.ENGINE_DETAIL_CHARS_MAX]
    return EngineError(code if code in CODES else "engine.crashed", line)


def _tokens(event: JobTokens) -> Tokens:
    logprobs = tuple(map(read_scored, event.scores))
    return Tokens(event.text, event.count, event.ids, logprobs)


class Job:
    """A job between submission and its last event; `given` to a worker when its turn comes.

    With `token_ids`, it is a re-check of them. `adapter` is the number of the one that it wants,
    `ticket` its place in the queue.
    """

    def __init__(
        self, spec: JobSpec, token_ids: tuple[int, ...] | None = None, adapter: int = 0
    ) -> None:
        self.spec = spec
        self.adapter = adapter
        self.ticket: Ticket[Job] | None = None
        self.handle: int | None = None
        self.is_over = False
        # An estimate until the worker has read the prompt.
        self.input_tokens = estimated_tokens(spec.prompt)
        self.output_tokens = 0
        self.reused_tokens = 0
        self.given_ns = 0
        self._token_ids = token_ids
        self._submitted_ns = now_ns()
        self.ready: Ready | None = None
        self._is_read = False
        self._first_ns = 0
        # Bounded by the job's own tokens: at most one event for each (`_check`).
        self._events: deque[EngineEvent | JobRechecked] = deque()
        self._failure: EngineError | None = None
        self._changed = trio.Event()

    def message(self, handle: int) -> Submit | Recheck | Embed:
        """What the worker is told."""
        spec = self.spec
        if self._token_ids is not None:
            return Recheck(handle, spec.prompt, spec.parameters, self._token_ids, self.adapter)
        return Submit(handle, spec.prompt, spec.parameters, spec.owner, self.adapter)

    def given(self, handle: int, ready: Ready) -> None:
        """A worker has it: its turn has come."""
        self.handle, self.ready = handle, ready
        self.given_ns = now_ns()
        self._changed.set()

    async def wait_given(self) -> None:
        """Until a worker has it, or it failed."""
        while self.handle is None and self._failure is None:
            self._changed = trio.Event()
            await self._changed.wait()

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Wait for its turn in here, and for what has to come before that, such as loading.

        EngineError `engine.too_late` when its first token is due and it still waits.
        """
        limit_ns = self.spec.ttft_ns_max
        due_s = (self._submitted_ns + limit_ns) / NS_PER_S if limit_ns else math.inf
        with trio.CancelScope(deadline=due_s) as scope:
            yield
        if scope.cancelled_caught:
            raise EngineError("engine.too_late", "its time passed while it waited")

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
                self._is_read = True
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
        if isinstance(event, JobFailed):
            return
        in_order = self._is_read is not isinstance(event, JobStarted)
        if not in_order or not self._fits(event):
            raise FrameError(f"{type(event).__name__} that does not fit its job")

    def _fits(self, event: JobEvent) -> bool:
        """Whether this may be said of a job of this kind, in this place."""
        rechecks = self._token_ids is not None
        match event:
            case JobStarted():
                return 0 < event.input_tokens <= (self.ready.context_tokens if self.ready else 0)
            case JobTokens():
                scored = event.count if self.spec.parameters.logprobs else 0
                fits = 0 < event.count <= self.tokens_left and len(event.scores) == scored
                return fits and not rechecks
            case JobFinished():
                right_kind = not rechecks or event.reason is FinishReason.CANCELLED
                return right_kind and event.output_tokens == self.output_tokens
            case JobRechecked():
                return rechecks
        return False

    def _finished(self, event: JobFinished) -> Finished:
        assert self.ready is not None
        end_ns = now_ns()
        first_ns = self._first_ns or end_ns
        self.reused_tokens = event.reused_tokens
        gaps = event.output_tokens - 1
        speed = 1_000 * NS_PER_S * gaps // event.output_ns if event.output_ns and gaps > 0 else 0
        return Finished(
            reason=event.reason,
            input_tokens=self.input_tokens,
            output_tokens=event.output_tokens,
            ttft_ns=first_ns - self._submitted_ns,
            duration_ns=end_ns - self._submitted_ns,
            engine=self.ready.engine,
            settings=self.ready.settings,
            reused_tokens=event.reused_tokens,
            queue_ns=min(self.given_ns + event.queue_ns, first_ns) - self._submitted_ns,
            tokens_per_s_milli=speed,
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
