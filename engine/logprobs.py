"""Log-probabilities of a token and of the most likely ones in its place, from a row of logits.

Of the model's own distribution: at temperature 1, before bias, penalties and constraint. In
integers from here on, as they travel. Must not know jobs. Rule: engine/README.md.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.frames import Scored
from engine.sampling import best_tokens
from protocol import limits
from protocol.fields import TokenChance, TokenLogprob

MICRO = 1_000_000


def score(
    row: npt.NDArray[np.float32], token: int, alternatives: int, pieces: Sequence[bytes]
) -> Scored:
    """What is to be said of `token`, which was chosen from this row, (vocabulary,) finite logits.

    `alternatives` best ones come with it, best first; `pieces` are the bytes of all tokens.
    """
    best = best_tokens(row, alternatives)
    # Single precision is enough for six digits, and twice as fast.
    total = float(row[best[0]]) + math.log(float(np.exp(row - row[best[0]]).sum()))
    top = tuple(_chance(row, each, total, pieces) for each in best.tolist())
    return (*_chance(row, token, total, pieces), top)


def _chance(
    row: npt.NDArray[np.float32], token: int, total: float, pieces: Sequence[bytes]
) -> tuple[bytes, int]:
    micro = max((float(row[token]) - total) * MICRO, float(limits.LOGPROB_MICRO_MIN))
    return pieces[token][: limits.TOKEN_BYTES_MAX], round(min(0.0, micro))


def read_scored(scored: Scored) -> TokenLogprob:
    """What the worker says of a token, for whoever asked."""
    piece, logprob_micro, top = scored
    return TokenLogprob(
        TokenChance(piece, logprob_micro), tuple(TokenChance(*chance) for chance in top)
    )
