"""Continuous batching: sequences join and leave at every step; nothing waits for the slowest.

`engine.composition` says what a step feeds, `engine.intake` makes the sequences. Must not know
pipes, processes or trio. Rule: engine/README.md.
"""

import time
from collections import deque
from collections.abc import Callable

from engine.adapters import AdapterTurns
from engine.choice import Choice, Logits, choose
from engine.composition import IDLE_CHUNK_TOKENS, compose
from engine.frames import (
    Embed,
    JobEmbedded,
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
from engine.native import NativeModel, Row
from engine.places import Places
from engine.preemption import compute
from engine.prompts import PromptReader
from engine.sequence import Sequence
from engine.sharing import find_leader, release_led
from engine.speed import Speedometer
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason


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
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._model = model
        self._intake = Intake(model, prompts)
        self._speedometer = speedometer
        self._emit = emit
        self._chunk_tokens = chunk_tokens
        self._queue_jobs = queue_jobs
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._embeds = False
        self._turns = AdapterTurns(model.use_adapter)
        self._places = Places(model, reuses=prefix_reuse)
        self._now_ns = now_ns
        # After a preemption nobody is let in until one has finished: else it would not end.
        self._is_held = False

    @property
    def is_busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._running or self._waiting)

    def submit(self, job: Submit | Recheck | Embed) -> None:
        """Take a job: emits JobStarted, or JobFailed with the code of what is wrong."""
        waiting = {sequence.handle for sequence in self._waiting}
        if len(waiting) >= self._queue_jobs + self._places.free:
            self._emit(JobFailed(job.handle, "engine.overloaded", ""))
            return
        try:
            sequences = self._intake.read(job)
        except EngineError as error:
            self._emit(JobFailed(job.handle, error.code, error.detail))
            return
        now_ns = self._now_ns()
        for sequence in sequences:
            sequence.submitted_ns = now_ns
        self._waiting.extend(sequences)
        self._emit(JobStarted(job.handle, sum(len(sequence.unfed) for sequence in sequences)))

    def cancel(self, handle: int) -> None:
        """Stop a job between two steps; unknown handles are ignored: it may just have ended."""
        for sequence in self._of(handle):
            self._finish(sequence, FinishReason.CANCELLED)
            return

    def _of(self, handle: int) -> list[Sequence]:
        """A job's sequences that are left."""
        return [each for each in (*self._running, *self._waiting) if each.handle == handle]

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
        is_typical = is_typical and len({each.adapter for each in self._running}) == 1
        start_ns = time.perf_counter_ns()
        rows, sampled, embedding = self._compose()
        rows, losers = compute(self._model, self._places, self._running, rows)
        if losers:
            is_typical = False
            self._wait_again(losers)
            sampled = [sequence for sequence in sampled if sequence not in losers]
        decoding = sum(1 for row in rows if len(row.tokens) == 1)
        read = sum(len(row.tokens) for row in rows) - decoding
        self._places.record(rows)
        chosen = self._choose(sampled, [row.wanted for row in rows if row.wanted])
        if is_typical:
            self._speedometer.record(decoding, read, time.perf_counter_ns() - start_ns)
        step_ns = self._now_ns()
        for sequence, token, row in chosen:
            sequence.first_ns = sequence.first_ns or step_ns
            sequence.last_ns = step_ns
            self._accept(sequence, token, row)
        if embedding:
            self._embed(rows, embedding)

    def _compose(self) -> tuple[list[Row], list[Sequence], list[Sequence]]:
        """What to feed, whose next token follows, and whose rows are wanted as they are."""
        able = [sequence for sequence in self._running if sequence.leader is None]
        adapter = self._turns.take({each.adapter for each in able}, time.perf_counter_ns())
        able = [sequence for sequence in able if sequence.adapter == adapter]
        embedding = [sequence for sequence in able if sequence.embedder is not None]
        chunk, idle = self._chunk_tokens, IDLE_CHUNK_TOKENS
        if embedding:
            most = max(1, limits.ENGINE_OUTPUT_NUMBERS_MAX // self._model.vocabulary.size)
            chunk, idle = min(chunk, most), min(idle, most)
        if bool(embedding) != self._embeds:
            self._embeds = bool(embedding)
            self._model.embed(wanted=self._embeds)
        rows, sampled = compose(able, chunk, idle)
        return rows, sampled, embedding

    def _wait_again(self, losers: list[Sequence]) -> None:
        """Those that lost their place go first among those that wait, when one has finished."""
        self._waiting.extendleft(losers)
        self._is_held = bool(self._running)
        if not self._running:
            self._fail(losers[-1], EngineError("engine.context_full"))

    def _admit(self) -> None:
        while self._waiting and self._places.free and not self._is_held:
            sequence = self._next_waiting()
            find_leader(sequence, self._running, self._places)
            # A re-check or an embedding reads all itself: it depends on nobody else's job.
            may_reuse = sequence.generates and sequence.leader is None
            sequence.place, reused = self._places.take(
                sequence.unfed, sequence.owner, may_reuse=may_reuse
            )
            sequence.skip(reused)
            if sequence.placed_ns is None:
                sequence.placed_ns = self._now_ns()
            self._running.append(sequence)

    def _next_waiting(self) -> Sequence:
        """The first; texts to embed go after the others, which leave them a place at least: the
        daemon gives no more jobs than there are places."""
        whole = (each for each in self._waiting if each.embedder is None)
        sequence = next(whole, self._waiting[0])
        self._waiting.remove(sequence)
        return sequence

    def _choose(self, sampled: list[Sequence], wanted: list[int]) -> list[Choice]:
        """The next tokens; re-checks that have read all end here."""
        if not sampled:
            return []
        logits = self._model.logits(sum(wanted))
        chosen = choose(logits, zip(sampled, wanted, strict=True), self._fail)
        for sequence in sampled:
            checker = sequence.checker
            if checker is not None and not sequence.unfed and sequence in self._running:
                self._leave(sequence)
                self._emit(checker.report(sequence.handle, sequence.input_tokens))
        return chosen

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

    def _embed(self, rows: list[Row], embedding: list[Sequence]) -> None:
        """Give each text its tokens' rows of the step, and tell those that are whole."""
        hidden = self._model.hidden()
        by_place = {sequence.place: sequence for sequence in embedding}
        end = 0
        for row in rows:
            start, end = end, end + len(row.tokens)
            sequence = by_place.get(row.sequence)
            if sequence in self._running and sequence.embedder is not None:
                sequence.embedder.take(hidden[start:end])
                if not sequence.unfed:
                    self._tell_vector(sequence, sequence.embedder.vector())

    def _tell_vector(self, sequence: Sequence, vector: bytes | None) -> None:
        handle = sequence.handle
        if vector is None:
            detail = f"text {sequence.index}: its vector is not of finite numbers"
            self._fail(sequence, EngineError("engine.no_embeddings", detail))
            return
        self._leave(sequence)
        self._emit(JobEmbedded(handle, sequence.index, sequence.input_tokens, vector))
        if not self._of(handle):
            self._emit(JobFinished(handle, FinishReason.STOP, 0))

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._leave_all(sequence.handle)
        self._emit(
            JobFinished(
                sequence.handle,
                reason,
                sequence.output_tokens,
                sequence.reused_tokens,
                queue_ns=self._queued_ns(sequence),
                output_ns=sequence.last_ns - sequence.first_ns,
            )
        )

    def _queued_ns(self, sequence: Sequence) -> int:
        end_ns = self._now_ns() if sequence.placed_ns is None else sequence.placed_ns
        return end_ns - sequence.submitted_ns

    def _fail(self, sequence: Sequence, error: EngineError) -> None:
        self._leave_all(sequence.handle)
        self._emit(JobFailed(sequence.handle, error.code, error.detail))

    def _leave_all(self, handle: int) -> None:
        for sequence in self._of(handle):
            self._leave(sequence)

    def _leave(self, sequence: Sequence) -> None:
        """Show what was held back, and give the place to the next."""
        self._show(sequence, *sequence.text.flush())
        if sequence.place >= 0:
            self._running.remove(sequence)
            self._places.release(sequence.place)
            self._is_held = False
        else:
            self._waiting.remove(sequence)

    def _show(self, sequence: Sequence, text: str, count: int) -> None:
        if count and sequence.generates:
            ids, sequence.unshown = sequence.unshown[:count], sequence.unshown[count:]
            scores, sequence.scores = sequence.scores[:count], sequence.scores[count:]
            self._emit(JobTokens(sequence.handle, text, count, tuple(ids), tuple(scores)))
