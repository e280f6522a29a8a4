"""Continuous batching: sequences join and leave at every step; nothing waits for the slowest.

One step feeds each decoding sequence its last token, and fills the rest with a bounded chunk
of waiting prompts. Must not know pipes, processes or trio. Rule: engine/README.md.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.constraint import Constraint, Pieces, compile_constraint
from engine.frames import JobEvent, JobFailed, JobFinished, JobStarted, JobTokens, Submit
from engine.native import NativeModel, Row
from engine.prompts import PromptReader
from engine.sampling import Sampler, check_parameters
from engine.speed import Speedometer
from engine.text import TextStream
from protocol.errors import EngineError
from protocol.fields import FinishReason, GenerationParameters

# When nobody decodes, nobody waits for a step: more than this reads no faster.
IDLE_CHUNK_TOKENS = 512


@dataclass(slots=True, eq=False)
class Sequence:
    """One job: `unfed` tokens go in next, at `position`; `place` -1 while it waits."""

    handle: int
    unfed: list[int]
    output_tokens_max: int
    sampler: Sampler
    text: TextStream
    position: int = 0
    output_tokens: int = 0
    place: int = -1
    prefilled: bool = field(default=False)


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
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._speedometer = speedometer
        self._emit = emit
        self._chunk_tokens = chunk_tokens
        self._queue_jobs = queue_jobs
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._free_places = list(range(model.places))
        self._pieces: Pieces | None = None

    @property
    def is_busy(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._running or self._waiting)

    def submit(self, job: Submit) -> None:
        """Take a job: emits JobStarted, or JobFailed with the code of what is wrong."""
        if len(self._waiting) >= self._queue_jobs + len(self._free_places):
            self._emit(JobFailed(job.handle, "engine.overloaded", ""))
            return
        try:
            tokens = self._prompts.read(job.prompt)
            sampler = self._sampler(job.parameters, tokens)
        except EngineError as error:
            self._emit(JobFailed(job.handle, error.code, error.detail))
            return
        parameters = job.parameters
        sequence = Sequence(
            job.handle,
            tokens,
            parameters.output_tokens_max,
            sampler,
            TextStream(parameters.stop + self._prompts.stop_strings(job.prompt)),
        )
        self._waiting.append(sequence)
        self._emit(JobStarted(job.handle, len(tokens)))

    def _sampler(self, parameters: GenerationParameters, tokens: list[int]) -> Sampler:
        vocabulary = self._model.vocabulary
        check_parameters(parameters, vocabulary.size)
        if parameters.constraint is None:
            return Sampler(parameters, tokens)
        grammar = compile_constraint(parameters.constraint)
        if self._pieces is None:
            self._pieces = Pieces(vocabulary.pieces, vocabulary.end_tokens)
        return Sampler(parameters, tokens, Constraint(grammar, self._pieces))

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
        self._admit()
        if not self._running:
            return
        start_ns = time.perf_counter_ns()
        rows, sampled = self._rows()
        decoding = sum(1 for row in rows if len(row.tokens) == 1)
        read = sum(len(row.tokens) for row in rows) - decoding
        self._model.decode(rows)
        chosen = self._choose(sampled)
        self._speedometer.record(decoding, read, time.perf_counter_ns() - start_ns)
        for sequence, token in chosen:
            self._accept(sequence, token)

    def _admit(self) -> None:
        while self._waiting and self._free_places:
            sequence = self._waiting.popleft()
            sequence.place = self._free_places.pop(0)
            self._model.forget(sequence.place)
            self._running.append(sequence)

    def _rows(self) -> tuple[list[Row], list[Sequence]]:
        """What to feed in this step, and whose next token follows from it, in order."""
        decoding = [sequence for sequence in self._running if sequence.prefilled]
        budget = self._chunk_tokens if decoding else max(self._chunk_tokens, IDLE_CHUNK_TOKENS)
        rows: list[Row] = []
        sampled: list[Sequence] = []
        for sequence in sorted(self._running, key=lambda sequence: not sequence.prefilled):
            count = 1 if sequence.prefilled else min(len(sequence.unfed), budget)
            if not count:
                break
            if not sequence.prefilled:
                budget -= count
            tokens, sequence.unfed = sequence.unfed[:count], sequence.unfed[count:]
            complete = not sequence.unfed
            rows.append(Row(sequence.place, sequence.position, tokens, complete))
            sequence.position += count
            if complete:
                sequence.prefilled = True
                sampled.append(sequence)
        return rows, sampled

    def _choose(self, sampled: list[Sequence]) -> list[tuple[Sequence, int | None]]:
        """The next token, None for the end, of each sequence whose row has logits.

        Those that have no next token and may not end, fail here.
        """
        if not sampled:
            return []
        logits: npt.NDArray[np.float32] = self._model.logits(len(sampled))
        best = logits.argmax(axis=1)
        # argmax finds a NaN before any number, so one look at the best is enough.
        if not np.isfinite(logits[np.arange(len(sampled)), best]).all():
            raise EngineError("engine.crashed", "the model's scores are not finite numbers")
        chosen: list[tuple[Sequence, int | None]] = []
        for row, sequence in enumerate(sampled):
            if sequence.sampler.is_plain:
                chosen.append((sequence, int(best[row])))
                continue
            try:
                token = sequence.sampler.next_token(logits[row], sequence.output_tokens)
            except EngineError as error:
                self._fail(sequence, error)
            else:
                chosen.append((sequence, token))
        return chosen

    def _accept(self, sequence: Sequence, token: int | None) -> None:
        """Count and show a token, and end the sequence where it ends."""
        vocabulary = self._model.vocabulary
        if token is None or token in vocabulary.end_tokens:
            self._finish(sequence, FinishReason.STOP)
            return
        sequence.output_tokens += 1
        try:
            sequence.sampler.take(token)
        except EngineError as error:
            self._fail(sequence, error)
            return
        text, count = sequence.text.push(vocabulary.pieces[token])
        if count:
            self._emit(JobTokens(sequence.handle, text, count))
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
        self._emit(JobFinished(sequence.handle, reason, sequence.output_tokens))

    def _fail(self, sequence: Sequence, error: EngineError) -> None:
        self._leave(sequence)
        self._emit(JobFailed(sequence.handle, error.code, error.detail))

    def _leave(self, sequence: Sequence) -> None:
        """Show what was held back, and give the place to the next."""
        text, count = sequence.text.flush()
        if count:
            self._emit(JobTokens(sequence.handle, text, count))
        if sequence.place >= 0:
            self._running.remove(sequence)
            self._free_places.append(sequence.place)
        else:
            self._waiting.remove(sequence)
