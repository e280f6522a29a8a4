"""Reads text byte by byte along a grammar: which bytes may follow, and whether it may end.

A state is the set of all ways to read the text so far, each a place in the grammar with those to
return to; states and their transitions are made when they are first needed and kept in a table,
so text that stays within what was seen costs a look-up a byte. An ambiguous grammar makes ways
without end: llama.cpp's matcher then takes minutes for a token (`root ::= "a" root "b" | "a"
root "c" | "x"`: 23 s for the 15th) inside one call that nothing can interrupt. Here every
closure, the states and the work for a token are bounded; over them the job fails with
EngineError `engine.bad_spec`. Pure. Rule: engine/README.md.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.grammar import Characters, Grammar, bad_grammar
from protocol import limits

DEAD = -1
UNKNOWN = -2
_NOWHERE = -1
_SURROGATES = (0xD800, 0xDFFF)
# The least code point of UTF-8 sequences of this many bytes; shorter forms exist below it.
_LEAST = {2: 0x80, 3: 0x800, 4: 0x10000}

Table = npt.NDArray[np.int32]
# What one element matches, apart from a rule: sorted first and last code points; None: the end.
_Ranges = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class _State:
    """`leaves` are the nodes whose character comes next; `pending` begins one in UTF-8."""

    leaves: tuple[int, ...]
    may_end: bool
    pending: bytes


class Automaton:
    """States are numbers >= 0, DEAD is none. `start` has read nothing.

    Numbers change with `generation`, which `compact` raises.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._elements: list[_Ranges | int | None] = []
        self._starts: list[list[int]] = []
        for rule in grammar.rules:
            starts = []
            for alternative in rule:
                starts.append(len(self._elements))
                for element in alternative:
                    self._elements.append(_flat(element))
                self._elements.append(None)
            self._starts.append(starts)
        self.work = 0
        self.generation = 0
        self._clear()
        roots = [self._node(at, _NOWHERE) for at in self._starts[grammar.root]]
        self.start = self._state(*self._close(roots), b"")

    def _clear(self) -> None:
        # A node: a place among the elements, and the node to go on from at the end of its rule.
        self._nodes: list[tuple[int, int, int]] = []
        self._node_numbers: dict[tuple[int, int], int] = {}
        self._states: list[_State] = []
        self._state_numbers: dict[_State, int] = {}
        self._closures: dict[tuple[int, ...], int] = {}
        self._table: Table = np.full((64, 256), UNKNOWN, np.int32)

    def may_end(self, state: int) -> bool:
        """Whether the text is complete."""
        return self._states[state].may_end

    def must_end(self, state: int) -> bool:
        """Whether the text is complete and nothing can follow."""
        return self._states[state].may_end and not self._states[state].leaves

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte, or DEAD."""
        after = int(self._table[state, byte])
        return self._fill(state, byte) if after == UNKNOWN else after

    def read(self, state: int, data: bytes) -> int:
        """The state after more bytes, or DEAD."""
        for byte in data:
            state = self.step(state, byte)
            if state == DEAD:
                break
        return state

    def step_many(self, states: Table, data: npt.NDArray[np.uint8]) -> Table:
        """`step` for pairs of states and bytes, shape (n,) both."""
        after = self._table[states, data]
        unknown = after == UNKNOWN
        if unknown.any():
            pairs = states[unknown].astype(np.int64) * 256 + data[unknown]
            for pair in np.unique(pairs).tolist():
                self._fill(pair // 256, pair % 256)
            after = self._table[states, data]
        return after

    def compact(self, state: int) -> int:
        """Forget what was learnt when it is much: the number of `state` afterwards."""
        if (
            len(self._states) <= limits.GRAMMAR_STATES_MAX // 4
            and len(self._nodes) <= limits.GRAMMAR_NODES_MAX // 4
        ):
            return state
        kept, nodes = self._states[state], self._nodes
        self.generation += 1
        self._clear()
        leaves = []
        for leaf in kept.leaves:
            places = []
            while leaf != _NOWHERE:
                place, leaf, _ = nodes[leaf]
                places.append(place)
            for place in reversed(places):
                leaf = self._node(place, leaf)
            leaves.append(leaf)
        return self._state(tuple(sorted(leaves)), kept.may_end, kept.pending)

    def _fill(self, number: int, byte: int) -> int:
        """Work out one transition and note it."""
        state = self._states[number]
        self.spend(len(state.leaves) + 1)
        pending = state.pending + bytes([byte])
        span = _code_points(pending)
        if span is None:
            after = DEAD
        elif span[0] == span[1]:
            after = self._advance(state.leaves, span[0])
        else:
            leaves = tuple(leaf for leaf in state.leaves if self._reaches(leaf, *span))
            after = self._state(leaves, False, pending) if leaves else DEAD
        self._table[number, byte] = after
        return after

    def _advance(self, leaves: Iterable[int], code_point: int) -> int:
        matched = tuple(leaf for leaf in leaves if self._reaches(leaf, code_point, code_point))
        if not matched:
            return DEAD
        after = self._closures.get(matched)
        if after is None:
            nodes = [self._nodes[leaf] for leaf in matched]
            moved = [self._node(place + 1, up) for place, up, _ in nodes]
            leaves, may_end = self._close(moved)
            after = self._state(leaves, may_end, b"") if leaves or may_end else DEAD
            self._closures[matched] = after
        return after

    def _reaches(self, leaf: int, low: int, high: int) -> bool:
        """Whether the leaf's character may be one of these."""
        ranges = self._elements[self._nodes[leaf][0]]
        assert isinstance(ranges, tuple)
        index = bisect_right(ranges[0], high) - 1
        return index >= 0 and ranges[1][index] >= low

    def _close(self, nodes: list[int]) -> tuple[tuple[int, ...], bool]:
        """Enter rules and leave them until a character comes; the leaves, and if it may end."""
        waiting, seen = nodes, set()
        leaves: list[int] = []
        may_end = False
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            if len(seen) > limits.GRAMMAR_READINGS_MAX:
                raise bad_grammar("too many ways to read the same text")
            place, up, depth = self._nodes[number]
            element = self._elements[place]
            if isinstance(element, tuple):
                leaves.append(number)
            elif element is not None:
                # At the end of a rule there is nothing to come back for.
                back = up if self._elements[place + 1] is None else self._node(place + 1, up)
                if depth < limits.GRAMMAR_STACK_MAX:
                    waiting += [self._node(start, back) for start in self._starts[element]]
            elif up == _NOWHERE:
                may_end = True
            else:
                waiting.append(up)
        self.spend(len(seen))
        return tuple(sorted(leaves)), may_end

    def spend(self, elements: int) -> None:
        """Count work, which the caller forgives as time goes by."""
        self.work += elements
        if self.work > limits.GRAMMAR_WORK_MAX:
            raise bad_grammar("too much to look at for a token")

    def _node(self, place: int, up: int) -> int:
        number = self._node_numbers.get((place, up))
        if number is None:
            number = len(self._nodes)
            if number >= limits.GRAMMAR_NODES_MAX:
                raise bad_grammar("too many ways to read the text")
            depth = 0 if up == _NOWHERE else self._nodes[up][2] + 1
            self._nodes.append((place, up, depth))
            self._node_numbers[place, up] = number
        return number

    def _state(self, leaves: tuple[int, ...], may_end: bool, pending: bytes) -> int:
        state = _State(leaves, may_end, pending)
        number = self._state_numbers.get(state)
        if number is None:
            number = len(self._states)
            if number >= limits.GRAMMAR_STATES_MAX:
                raise bad_grammar("too many states")
            if number == len(self._table):
                more = np.full_like(self._table, UNKNOWN)
                self._table = np.concatenate([self._table, more])
            self._states.append(state)
            self._state_numbers[state] = number
        return number


def _flat(element: Characters | int) -> _Ranges | int:
    if isinstance(element, int):
        return element
    return [first for first, _ in element.ranges], [last for _, last in element.ranges]


def _code_points(data: bytes) -> tuple[int, int] | None:
    """The first and last character whose UTF-8 begins with these bytes; None for none.

    NUL is none: as in llama.cpp, no text has it.
    """
    lead = data[0]
    if 0 < lead < 0x80:
        return lead, lead
    length = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4
    if not 0xC2 <= lead < 0xF5 or any(byte & 0xC0 != 0x80 for byte in data[1:]):
        return None
    value = lead & (0x7F >> length)
    for byte in data[1:]:
        value = value << 6 | byte & 0x3F
    missing = 6 * (length - len(data))
    low = max(value << missing, _LEAST[length])
    high = min(((value + 1) << missing) - 1, 0x10FFFF)
    if _SURROGATES[0] <= low and high <= _SURROGATES[1]:
        return None
    return (low, high) if low <= high else None
