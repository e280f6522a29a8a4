"""Continuous batching: sequences join and leave at every step; nothing waits for the slowest.

`engine.composition` says what a step feeds, `engine.intake` makes the sequences. Must not know
pipes, processes or trio. Rule: engine/README.md.
"""

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine.composition import compose
from engine.frames import (
    JobEvent,
    JobFailed,
    JobFinished,
    JobStarted,
    JobTokens,
    Recheck,
    Submit,
)
from engine.intake import Intake
from engine.logprobs import score
from engine.native import NativeModel
from engine.places import Places
from engine.prompts import PromptReader
from engine.recheck import Checker
from engine.sequence import Sequence
from engine.sharing import find_leader, release_led
from engine.speed import Speedometer
from protocol.errors import EngineError
from protocol.fields import FinishReason

Logits = npt.NDArray[np.float32]
# A sequence's next token, None for its end, and the row that it was chosen from.
Choice = tuple[Sequence, int | None, Logits]


class Batcher:
    """Jobs of one model. `emit` gets what happens to them, during `submit`, `cancel`, `step`."""

    def __init__(
        self,
        model: NativeModel,
        prompts: PromptReader,
        speedometer: Speedometer,
        emit: Callable[[JobEvent], None],
        *,
        chunk_tokens: int,
        queue_jobs: int,
        prefix_reuse: bool = True,
    ) -> None:
        self._model = model
        self._intake = Intake(model, prompts)
        self._speedometer = speedometer
        self._emit = emit
        self._chunk_tokens = chunk_tokens
        self._queue_jobs = queue_jobs
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._places = Places(model, reuses=prefix_reuse)

    @property
    def is_busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._running or self._waiting)

    def submit(self, job: Submit | Recheck) -> None:
        """Take a job: emits JobStarted, or JobFailed with the code of what is wrong."""
        if len(self._waiting) >= self._queue_jobs + self._places.free:
            self._emit(JobFailed(job.handle, "engine.overloaded", ""))
            return
        try:
            sequence = self._intake.read(job)
        except EngineError as error:
            self._emit(JobFailed(job.handle, error.code, error.detail))
            return
        self._waiting.append(sequence)
        self._emit(JobStarted(job.handle, len(sequence.unfed)))

    def cancel(self, handle: int) -> None:
        """Stop a job between two steps; unknown handles are ignored: it may just have ended."""
        for sequence in (*self._running, *self._waiting):
            if sequence.handle == handle:
                self._finish(sequence, FinishReason.CANCELLED)
                return

    def step(self) -> None:
        """Compute one step for every sequence that has a place.

        EngineError `engine.crashed` when the model can't go on.
        """
        # First, as a leader that has gone leaves its place to the next.
        release_led(self._running, self._places)
        self._admit()
        if not self._running:
            return
        is_typical = all(sequence.is_typical for sequence in self._running)
        start_ns = time.perf_counter_ns()
        rows, sampled = compose(
            (sequence for sequence in self._running if not sequence.leader), self._chunk_tokens
        )
        decoding = sum(1 for row in rows if len(row.tokens) == 1)
        read = sum(len(row.tokens) for row in rows) - decoding
        self._model.decode(rows)
        self._places.record(rows)
        chosen = self._choose(sampled, [row.wanted for row in rows if row.wanted])
        if is_typical:
            self._speedometer.record(decoding, read, time.perf_counter_ns() - start_ns)
        for sequence, token, row in chosen:
            self._accept(sequence, token, row)

    def _admit(self) -> None:
        while self._waiting and self._places.free:
            sequence = self._waiting.popleft()
            find_leader(sequence, self._running, self._places)
            # A re-check reads all itself: what it finds depends on nobody else's job.
            may_reuse = sequence.checker is None and sequence.leader is None
            sequence.place, reused = self._places.take(
                sequence.unfed, sequence.owner, may_reuse=may_reuse
            )
            sequence.skip(reused)
            self._running.append(sequence)

    def _choose(self, sampled: list[Sequence], wanted: list[int]) -> list[Choice]:
        """The next token, None for the end, of each sequence that has so many rows of logits.

        Those that have no next token and may not end, fail here; re-checks go on or end here.
        """
        if not sampled:
            return []
        logits: Logits = self._model.logits(sum(wanted))
        best = logits.argmax(axis=1)
        # argmax finds a NaN before any number, so one look at the best is enough.
        if not np.isfinite(logits[np.arange(len(logits)), best]).all():
            raise EngineError("engine.crashed", "the model's scores are not finite numbers")
        chosen: list[Choice] = []
        end = 0
        for sequence, count in zip(sampled, wanted, strict=True):
            end += count
            try:
                if sequence.checker is not None:
                    self._check(sequence, sequence.checker, logits[end - count : end])
                elif sequence.sampler.is_plain:
                    chosen.append((sequence, int(best[end - 1]), logits[end - 1]))
                else:
                    step = sequence.output_tokens
                    token = sequence.sampler.next_token(logits[end - 1], step)
                    chosen.append((sequence, token, logits[end - 1]))
            except EngineError as error:
                self._fail(sequence, error)
        return chosen

    def _check(self, sequence: Sequence, checker: Checker, rows: Logits) -> None:
        for row in rows:
            checker.take(row)
        if not sequence.unfed:
            report = checker.report(sequence.handle, sequence.input_tokens)
            self._leave(sequence)
            self._emit(report)

    def _accept(self, sequence: Sequence, token: int | None, row: Logits) -> None:
        """Count and show a token, and end the sequence where it ends."""
        pieces = self._model.vocabulary.pieces
        if token is None or token in sequence.ends:
            self._finish(sequence, FinishReason.STOP)
            return
        sequence.output_tokens += 1
        try:
            sequence.sampler.take(token)
        except EngineError as error:
            self._fail(sequence, error)
            return
        sequence.unshown.append(token)
        if sequence.logprobs:
            sequence.scores.append(score(row, token, sequence.logprobs, pieces))
        self._show(sequence, *sequence.text.push(pieces[token]))
        if sequence.text.stopped or sequence.sampler.is_over:
            self._finish(sequence, FinishReason.STOP)
        elif (
            sequence.output_tokens >= sequence.output_tokens_max
            or sequence.position >= self._model.context_tokens
        ):
            self._finish(sequence, FinishReason.LENGTH)
        else:
            sequence.unfed = [token]

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._leave(sequence)
        reused = sequence.reused_tokens
        self._emit(JobFinished(sequence.handle, reason, sequence.output_tokens, reused))

    def _fail(self, sequence: Sequence, error: EngineError) -> None:
        self._leave(sequence)
        self._emit(JobFailed(sequence.handle, error.code, error.detail))

    def _leave(self, sequence: Sequence) -> None:
        """Show what was held back, and give the place to the next."""
        self._show(sequence, *sequence.text.flush())
        if sequence.place >= 0:
            self._running.remove(sequence)
            self._places.release(sequence.place)
        else:
            self._waiting.remove(sequence)

    def _show(self, sequence: Sequence, text: str, count: int) -> None:
        if count and sequence.checker is None:
            ids, sequence.unshown = sequence.unshown[:count], sequence.unshown[count:]
            scores, sequence.scores = sequence.scores[:count], sequence.scores[count:]
            self._emit(JobTokens(sequence.handle, text, count, tuple(ids), tuple(scores)))
