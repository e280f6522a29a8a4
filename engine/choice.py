"""What follows from a step's logits: the next token of each sequence, or what a re-check found.

Must not know how steps are composed, nor tell anybody. Rule: engine/README.md, "Sampling".
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from engine.sequence import Sequence
from protocol.errors import EngineError

Logits = npt.NDArray[np.float32]
# A sequence's next token, None for its end, and the row that it was chosen from.
Choice = tuple[Sequence, int | None, Logits]


def choose(
    logits: Logits,
    sampled: Iterable[tuple[Sequence, int]],
    fail: Callable[[Sequence, EngineError], None],
) -> list[Choice]:
    """The choices of the sequences, each with its count of the rows (rows, vocabulary) in order.

    Those that have no next token and may not end, `fail`; re-checks take their rows and choose
    nothing. EngineError `engine.crashed` when the model can't go on.
    """
    best = logits.argmax(axis=1).tolist()
    # argmax finds a NaN before any number, so one look at the best is enough.
    if not all(map(math.isfinite, map(logits.item, range(len(best)), best))):
        raise EngineError("engine.crashed", "the model's scores are not finite numbers")
    chosen: list[Choice] = []
    end = 0
    for sequence, count in sampled:
        end += count
        try:
            if sequence.checker is not None:
                for row in logits[end - count : end]:
                    sequence.checker.take(row)
            elif sequence.sampler.is_plain:
                chosen.append((sequence, best[end - 1], logits[end - 1]))
            else:
                token = sequence.sampler.next_token(logits[end - 1], sequence.output_tokens)
                chosen.append((sequence, token, logits[end - 1]))
        except EngineError as error:
            fail(sequence, error)
    return chosen
