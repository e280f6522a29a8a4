"""Checks claimed tokens against the logits that they should have come from.

The prompt and the claimed tokens are read in one pass (teacher forcing), which costs a fraction of
making them; each row of logits then says how good the claimed token was, and which one the
sampler would have chosen. The numbers of reading and of decoding differ a little, so an honest
answer has rare mismatches with small gaps: the evidence is in their share. Must not know batches.
Rule: engine/README.md.
"""

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from engine.frames import JobRechecked, Ready
from engine.interface import RecheckReport, TokenCheck
from engine.sampling import Sampler
from engine.text import TextStream
from protocol import limits
from protocol.errors import EngineError

NO_TOKEN = -1


class Checker:
    """One claim: takes the rows of logits in order, the first being that after the prompt.

    `ends` are the tokens that end an output, `pieces` the bytes of all tokens.
    """

    def __init__(
        self,
        claimed: Sequence[int],
        sampler: Sampler,
        text: TextStream,
        pieces: Sequence[bytes],
        ends: frozenset[int],
    ) -> None:
        if any(token >= len(pieces) for token in claimed):
            raise EngineError("engine.bad_spec", "a claimed token is not in the vocabulary")
        self._claimed = claimed
        self._sampler = sampler
        self._text = text
        self._pieces = pieces
        self._ends = ends
        self._shown: list[str] = []
        self._columns: list[tuple[float, int, float, int, float]] = []
        self._end_gap: float | None = None
        self._ends_here = False

    def take(self, row: npt.NDArray[np.float32]) -> None:
        """The next row of logits, (vocabulary,), all numbers; one more than tokens at most.

        EngineError `engine.bad_spec` when the job's constraint takes too much.
        """
        step = len(self._columns)
        best = float(row.max())
        if step == len(self._claimed):
            ends = [float(row[token]) for token in self._ends]
            self._end_gap = best - max(ends, default=-math.inf)
            # An output cut by length has no next token; that none can be found does not matter.
            with suppress(EngineError):
                chosen = self._sampler.choose(row, step)
                self._ends_here = chosen in self._ends or (chosen is None and self._may_end)
            return
        chosen = self._sampler.choose(row, step)
        token = self._claimed[step]
        if self._is_over or token in self._ends:
            # An output that is over has no further token, and its end is none of them.
            chosen = None
        logit = float(row[token])
        total = float(np.exp(row - row.max()).sum(dtype=np.float64))
        shortfall = 0.0
        if chosen != token:
            shortfall = self._sampler.shortfall(row, step, chosen, token)
        self._columns.append(
            (
                logit - best - math.log(total),
                int((row > row[token]).sum()),
                best - logit,
                NO_TOKEN if chosen is None else chosen,
                shortfall,
            )
        )
        self._follow(token)

    @property
    def _is_over(self) -> bool:
        return self._text.stopped or self._sampler.is_over

    @property
    def _may_end(self) -> bool:
        constraint = self._sampler.constraint
        return constraint is not None and constraint.may_end

    def _follow(self, token: int) -> None:
        constraint = self._sampler.constraint
        if constraint is not None and (token in self._ends or not constraint.allows(token)):
            # No text goes on from here; what follows is checked as if it were free.
            self._sampler.constraint = None
        self._sampler.take(token)
        if not self._text.stopped:
            self._shown.append(self._text.push(self._pieces[token])[0])

    def report(self, handle: int, input_tokens: int) -> JobRechecked:
        """What was found, after the last row."""
        text = "".join(self._shown) + self._text.flush()[0]
        logprobs, ranks, gaps, replayed, shortfalls = (
            zip(*self._columns, strict=True) if self._columns else ((),) * 5
        )
        return JobRechecked(
            handle,
            input_tokens,
            logprobs,
            ranks,
            gaps,
            replayed,
            shortfalls,
            text[: limits.ENGINE_RECHECK_CHARS_MAX],
            self._is_over,
            self._end_gap,
            self._ends_here,
        )


def read_report(event: JobRechecked, claimed: Sequence[int], ready: Ready) -> RecheckReport:
    """What the worker found, for whoever asked. EngineError `engine.crashed` when it is cut."""
    columns = (event.logprobs, event.ranks, event.gaps, event.replayed, event.shortfalls)
    if any(len(column) != len(claimed) for column in columns):
        raise EngineError("engine.crashed", "the worker's report is of another length")
    return RecheckReport(
        input_tokens=event.input_tokens,
        tokens=tuple(TokenCheck(*line) for line in zip(claimed, *columns, strict=True)),
        text=event.text,
        is_over=event.is_over,
        end_gap=event.end_gap,
        ends=event.ends,
        engine=ready.engine,
        settings=ready.settings,
    )
