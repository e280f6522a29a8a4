"""Keeps one job's output to a form: which tokens may come next, and when it is complete.

A token is checked alone where one was chosen already; the mask over the whole vocabulary is
worked out only when the best candidates are all illegal, and kept for the state. llama.cpp never
sees the grammar. Must not know logits or batches. Rule: engine/README.md.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.automaton import DEAD, Automaton
from engine.gbnf import parse_grammar
from engine.grammar import Grammar
from engine.json_rules import JSON_OBJECT
from engine.schema import schema_to_gbnf
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ConstraintKind, OutputConstraint

# One byte for each token of the vocabulary; a document comes back to the same few states.
MASKS_KEPT = 32
# A byte of one token among all costs this much less than an element looked at.
BYTES_PER_ELEMENT = 12
# A text that is begun is read in pieces about as long as tokens are.
BEGUN_STEP_BYTES = 4

Mask = npt.NDArray[np.bool_]


def compile_constraint(constraint: OutputConstraint) -> Grammar:
    """What the output must be, as rules. EngineError `engine.bad_spec`."""
    if constraint.kind == ConstraintKind.GRAMMAR:
        return parse_grammar(constraint.text)
    if constraint.kind == ConstraintKind.JSON_SCHEMA:
        return parse_grammar(schema_to_gbnf(constraint.text))
    if constraint.text:
        raise EngineError("engine.bad_spec", "constraint: JSON takes no text")
    return parse_grammar(JSON_OBJECT)


class Pieces:
    """The bytes of a vocabulary's tokens, by token and all in a row. Made once for a model.

    A token without bytes, as control tokens are, is never part of a constrained output; a token
    of `ends` ends it.
    """

    def __init__(self, pieces: Sequence[bytes], ends: frozenset[int]) -> None:
        self.by_token = pieces
        self.ends = ends
        self.end_tokens = np.array(sorted(ends), np.intp)
        sizes = np.array([len(piece) for piece in pieces], np.int64)
        self.row = np.frombuffer(b"".join(pieces), np.uint8)
        self.begins = np.cumsum(sizes) - sizes
        sizes[self.end_tokens] = 0
        self.sizes = sizes
        self.readable = np.flatnonzero(sizes)


class Constraint:
    """The output of one sequence so far. Every method may raise EngineError `engine.bad_spec`:
    the grammar is more than GRAMMAR_WORK_MAX and the other bounds allow."""

    def __init__(self, grammar: Grammar, pieces: Pieces) -> None:
        self._automaton = Automaton(grammar)
        self._pieces = pieces
        self._state = self._automaton.start
        self._masks: dict[int, Mask] = {}

    @property
    def may_end(self) -> bool:
        """Whether the output is complete as it is."""
        return self._automaton.may_end(self._state)

    @property
    def must_end(self) -> bool:
        """Whether it is complete and no text could follow."""
        return self._automaton.must_end(self._state)

    def allows(self, token: int) -> bool:
        """Whether this token may be next."""
        if token in self._pieces.ends:
            return self.may_end
        piece = self._pieces.by_token[token]
        return bool(piece) and self._automaton.read(self._state, piece) != DEAD

    def begin(self, text: bytes) -> None:
        """What the output begins with, when it is to be continued; before any token.

        EngineError `engine.bad_spec` when no output begins so.
        """
        for start in range(0, len(text), BEGUN_STEP_BYTES):
            self._read_on(text[start : start + BEGUN_STEP_BYTES])
        if self._state == DEAD:
            raise EngineError("engine.bad_spec", "constraint: the answer does not begin so")

    def take(self, token: int) -> None:
        """A token that is next and was allowed, and is no end."""
        self._read_on(self._pieces.by_token[token])
        assert self._state != DEAD

    def _read_on(self, data: bytes) -> None:
        state = self._automaton.read(self._state, data) if self._state != DEAD else DEAD
        # What was done for the tokens so far is forgiven little by little.
        self._automaton.work = max(0, self._automaton.work - limits.GRAMMAR_WORK_PER_TOKEN)
        generation = self._automaton.generation
        self._state = self._automaton.compact(state) if state != DEAD else DEAD
        if self._automaton.generation != generation or len(self._masks) > MASKS_KEPT:
            self._masks.clear()

    def mask(self) -> Mask:
        """Whether each token of the vocabulary may be next; not to be changed."""
        mask = self._masks.get(self._state)
        if mask is None:
            mask = self._masks[self._state] = self._read_all()
        return mask

    def _read_all(self) -> Mask:
        """Every token's bytes at once, a byte at a time, as long as they are alive."""
        pieces = self._pieces
        mask = np.zeros(len(pieces.by_token), np.bool_)
        mask[pieces.end_tokens] = self.may_end
        alive = pieces.readable
        states = np.full(alive.size, self._state, np.int32)
        offset = 0
        while alive.size:
            self._automaton.spend(alive.size // BYTES_PER_ELEMENT)
            states = self._automaton.step_many(states, pieces.row[pieces.begins[alive] + offset])
            offset += 1
            lives = states != DEAD
            alive, states = alive[lives], states[lives]
            read = pieces.sizes[alive] == offset
            mask[alive[read]] = True
            alive, states = alive[~read], states[~read]
        return mask
