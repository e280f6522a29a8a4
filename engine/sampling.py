"""From a row of logits to the next token: the engine's only sampler, and one to replay.

In llama.cpp's order: logit bias; penalties over the last PENALTY_TOKENS tokens of prompt and
output; top_k; top_p and min_p, on softmax of what is left at temperature 1; temperature; choice.
The choice is the highest score plus Gumbel noise (engine/noise.py): the same distribution as
drawing from softmax, and a function of logits, parameters and step alone, so whoever has the
logits can repeat it. The bias and penalties touch a few numbers of the row, so they come first,
as in llama.cpp, and still cost nothing. Under a constraint the best legal candidate is chosen,
and when none is legal, everything begins again with only the legal tokens of the row. Must not
know jobs or batches. Rule: engine/README.md.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.constraint import Constraint
from engine.noise import bits, gumbel
from protocol.errors import EngineError
from protocol.fields import GenerationParameters

# What a re-check must have too: it changes with the order above or with the noise.
SAMPLER_VERSION = 1
# top_p sorts what it is given: on a whole vocabulary 50 times slower than on these.
TOP_K_BEFORE_TOP_P = 1_000
LEAST_LOGIT = np.finfo(np.float32).min
# More candidates than this are first thinned out to those that can win.
UNCUT_TOKENS = 1_024
# llama.cpp's own window.
PENALTY_TOKENS = 64
# Candidates that are checked one by one before the whole vocabulary is.
SINGLE_CHECKS = 64
# This bias forbids a token instead of moving it.
FORBIDDEN_MILLI = -100_000

Row = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]


def check_parameters(parameters: GenerationParameters, vocabulary_tokens: int) -> None:
    """EngineError `engine.bad_spec` for what can't be done as asked, or not at all."""
    named = [bias.token for bias in parameters.logit_bias]
    for what, tokens in (("logit_bias", named), ("stop_tokens", parameters.stop_tokens)):
        if any(token >= vocabulary_tokens for token in tokens):
            raise EngineError(
                "engine.bad_spec", f"{what}: the vocabulary has {vocabulary_tokens} tokens"
            )
    if len(set(named)) != len(named):
        raise EngineError("engine.bad_spec", "logit_bias names a token twice")
    forbidden = [bias for bias in parameters.logit_bias if bias.bias_milli == FORBIDDEN_MILLI]
    if len(forbidden) == vocabulary_tokens:
        raise EngineError("engine.bad_spec", "logit_bias forbids every token")


def is_greedy(parameters: GenerationParameters) -> bool:
    """Whether the best token always wins: temperature 0, or only one candidate."""
    return (
        parameters.temperature_milli == 0 or parameters.top_k == 1 or parameters.top_p_milli == 0
    )


class Sampler:
    """Chooses the tokens of one sequence; `take` tells it what it has to know of the past."""

    def __init__(
        self,
        parameters: GenerationParameters,
        prompt: Sequence[int],
        constraint: Constraint | None = None,
        begun_tokens: int = 0,
    ) -> None:
        self.constraint = constraint
        # The noise of a continued answer goes on, too: as if it had never been interrupted.
        self._begun_tokens = begun_tokens
        self._parameters = parameters
        self._is_greedy = is_greedy(parameters)
        biases = parameters.logit_bias
        self._biased = np.array([bias.token for bias in biases], np.intp)
        self._bias = np.array(
            [
                -math.inf if bias.bias_milli == FORBIDDEN_MILLI else bias.bias_milli / 1000
                for bias in biases
            ],
            np.float32,
        )
        self._penalizes = (
            parameters.repeat_penalty_milli != 1000
            or parameters.presence_penalty_milli != 0
            or parameters.frequency_penalty_milli != 0
        )
        self._changes_rows = bool(biases) or self._penalizes
        self._recent = deque(prompt[-PENALTY_TOKENS:], maxlen=PENALTY_TOKENS)

    @property
    def is_plain(self) -> bool:
        """Whether the row's highest logit is the choice, so that nothing need be computed."""
        return self._is_greedy and self.constraint is None and not self._changes_rows

    def take(self, token: int) -> None:
        """A token that follows, legal and no end: penalties and constraint look back on it."""
        self._recent.append(token)
        if self.constraint is not None:
            self.constraint.take(token)

    @property
    def is_over(self) -> bool:
        """Whether the output is complete and no text could follow."""
        return self.constraint is not None and self.constraint.must_end

    def next_token(self, row: Row, step: int) -> int | None:
        """As `choose`; None when the output is complete and the vocabulary has no end for it.

        EngineError `engine.bad_spec` when no token may follow and the output is not complete.
        """
        token = self.choose(row, step)
        if token is None and (self.constraint is None or not self.constraint.may_end):
            raise EngineError("engine.bad_spec", "constraint and bias leave no token")
        return token

    def choose(self, row: Row, step: int) -> int | None:
        """The token after `step` earlier ones of the output, from its logits (vocabulary,).

        None when constraint and bias leave no token. EngineError `engine.bad_spec` when the
        constraint takes too much. No logit may be NaN; the row is not changed.
        """
        row = self.adjust(row)
        chosen = self._best(row, step)
        if chosen is not None or self.constraint is None:
            return chosen
        if self._is_greedy:
            for token in best_tokens(row, SINGLE_CHECKS).tolist():
                if row[token] > -math.inf and self.constraint.allows(token):
                    return int(token)
        legal = np.where(self.constraint.mask(), row, np.float32(-math.inf))
        return self._best(legal, step)

    def shortfall(self, row: Row, step: int, chosen: int | None, claimed: int) -> float:
        """How much less `claimed` scores than `chosen`, which `choose` gives for this row.

        inf when it is no candidate; a token that top_k or top_p just cut off is none.
        """
        if chosen is None or (self.constraint is not None and not self.constraint.allows(claimed)):
            return math.inf
        row = self.adjust(row)
        tokens = self.candidates(row)
        if self.constraint is not None and chosen not in tokens:
            row = np.where(self.constraint.mask(), row, np.float32(-math.inf))
            tokens = self.candidates(row)
        if not self._is_greedy and claimed not in tokens:
            return math.inf
        scores = self.scores(row, step, np.array([chosen, claimed], np.intp))
        return float(scores[0] - scores[1])

    def _best(self, row: Row, step: int) -> int | None:
        """The best legal one of an adjusted row's candidates; None when none is legal."""
        tokens = self.candidates(row)
        if not tokens.size:
            return None
        first = self._contenders(row, step) if tokens.size > UNCUT_TOKENS else tokens
        scores = self.scores(row, step, first)
        if self.constraint is None:
            return int(first[scores.argmax()])
        checks = 1 if tokens.size > UNCUT_TOKENS else SINGLE_CHECKS
        for token in first[np.argsort(-scores, kind="stable")[:checks]].tolist():
            if self.constraint.allows(token):
                return int(token)
        legal = tokens[self.constraint.mask()[tokens]]
        return int(legal[self.scores(row, step, legal).argmax()]) if legal.size else None

    def scores(self, row: Row, step: int, tokens: Tokens) -> Scores:
        """Noise included, of candidates of an adjusted row: the highest is chosen."""
        scores = row[tokens].astype(np.float64)
        if not self._is_greedy:
            scores /= self._parameters.temperature_milli / 1000
            scores += gumbel(self._parameters.seed, self._begun_tokens + step, tokens)
        return scores

    def _contenders(self, row: Row, step: int) -> Tokens:
        """Of a whole vocabulary, those that can still win: the few best, and great noise.

        Logarithms for every token cost more than all the rest; a token outside of the best
        needs noise that lifts it over the best of them, and integers tell whether it has it.
        """
        best = best_tokens(row, 64)
        outside = float(row[best[-1]]) / (self._parameters.temperature_milli / 1000)
        needed = self.scores(row, step, best).max() - outside
        # A little less than is needed, so that rounding keeps out none that could win.
        least = math.exp(-math.exp(-min(max(needed, -3.0), 30.0))) * (1 - 1e-9)
        words = bits(self._parameters.seed, self._begun_tokens + step, np.arange(row.size))
        lifted = np.flatnonzero(words >= np.uint64(int(least * 2.0**64)))
        return np.union1d(best, lifted)

    def adjust(self, row: Row) -> Row:
        """The row after bias and penalties: a copy, or the row itself when there are none."""
        if not self._changes_rows:
            return row
        row = row.copy()
        row[self._biased] += self._bias
        if self._penalizes and self._recent:
            counts = Counter(self._recent)
            tokens = np.fromiter(counts, np.intp, len(counts))
            times = np.fromiter(counts.values(), np.float32, len(counts))
            logits = row[tokens]
            repeat = np.float32(self._parameters.repeat_penalty_milli / 1000)
            logits = np.where(logits <= 0, logits * repeat, logits / repeat)
            logits -= times * np.float32(self._parameters.frequency_penalty_milli / 1000)
            logits -= np.float32(self._parameters.presence_penalty_milli / 1000)
            row[tokens] = logits
        return row

    def candidates(self, row: Row) -> Tokens:
        """What is left of an adjusted row to choose from; none when every logit is -inf."""
        if self._is_greedy:
            best = np.array([row.argmax()], np.intp)
            return best[row[best] > -math.inf]
        parameters = self._parameters
        top_k, top_p = parameters.top_k, parameters.top_p_milli / 1000
        min_p = parameters.min_p_milli / 1000
        if top_p < 1 and top_k == 0:
            top_k = TOP_K_BEFORE_TOP_P
        if top_k == 0:
            least = row.max() + math.log(min_p) if min_p else LEAST_LOGIT
            return np.flatnonzero(row >= max(least, LEAST_LOGIT))
        tokens = best_tokens(row, top_k)
        tokens = tokens[row[tokens] > -math.inf]
        if not tokens.size:
            return tokens
        logits = row[tokens].astype(np.float64)
        if top_p < 1:
            weights = np.exp(logits - logits[0])
            reached = np.cumsum(weights) / weights.sum()
            tokens = tokens[: int(np.searchsorted(reached, top_p)) + 1]
            logits = logits[: tokens.size]
        if min_p:
            tokens = tokens[logits >= logits[0] + math.log(min_p)]
        return tokens


def best_tokens(row: Row, count: int) -> Tokens:
    """The tokens of the `count` highest logits, best first; equal ones by number."""
    bound = _bound(row, count)
    tokens = np.flatnonzero(row >= bound)
    order = np.argsort(-row[tokens], kind="stable")
    return tokens[order[:count]]


def _bound(row: Row, count: int) -> np.float32:
    """A logit that at least `count` of the row reach, and few more: from maxima of groups.

    Partitioning the maxima of disjoint groups is several times faster than the whole row.
    """
    groups = min(row.size, max(4 * count, 256))
    if count >= groups:
        return np.float32(-math.inf)
    size = row.size // groups
    maxima = row[: size * groups].reshape(size, groups).max(axis=0)
    bound: np.float32 = np.partition(maxima, groups - count)[groups - count]
    return bound
