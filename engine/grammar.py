"""A grammar as rules: the one form that texts in GBNF and JSON schemas are brought to.

Pure. Rule: engine/README.md.
"""

from dataclasses import dataclass

from protocol.errors import EngineError

CODE_POINT_MAX = 0x10FFFF


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of these inclusive ranges of code points: sorted, disjoint."""

    ranges: tuple[tuple[int, int], ...]


# A character, or the number of a rule.
Element = Characters | int
Alternative = tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """Alternatives by rule; no rule begins with itself."""

    rules: tuple[tuple[Alternative, ...], ...]
    root: int


def bad_grammar(why: str) -> EngineError:
    """The error for a grammar that can't be used."""
    return EngineError("engine.bad_spec", f"grammar: {why}")


def merge(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same code points in sorted ranges that do not touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Every code point that is not in these sorted ranges."""
    found = []
    first = 0
    for low, high in ranges:
        if low > first:
            found.append((first, low - 1))
        first = high + 1
    if first <= CODE_POINT_MAX:
        found.append((first, CODE_POINT_MAX))
    return tuple(found)


def refuse_left_recursion(rules: tuple[tuple[Alternative, ...], ...]) -> None:
    """EngineError `engine.bad_spec` for a rule that begins with itself: it would never read."""
    empty = _may_be_empty(rules)
    entered: list[list[int]] = []
    for rule in rules:
        first = []
        for alternative in rule:
            for element in alternative:
                if isinstance(element, Characters):
                    break
                first.append(element)
                if element not in empty:
                    break
        entered.append(first)
    # Rules that no cycle leads to fall away one after another; what stays is in or behind one.
    waits = [len(first) for first in entered]
    users: list[list[int]] = [[] for _ in rules]
    for number, first in enumerate(entered):
        for element in first:
            users[element].append(number)
    free = [number for number, count in enumerate(waits) if not count]
    left = len(rules)
    while free:
        left -= 1
        for user in users[free.pop()]:
            waits[user] -= 1
            if not waits[user]:
                free.append(user)
    if left:
        raise bad_grammar("a rule begins with itself")


def _may_be_empty(rules: tuple[tuple[Alternative, ...], ...]) -> set[int]:
    """The rules that match no text at all, found from the innermost outwards."""
    users: dict[int, list[tuple[int, int]]] = {}
    missing: list[list[int]] = []
    found: list[int] = []
    for number, rule in enumerate(rules):
        missing.append([len(alternative) for alternative in rule])
        for index, alternative in enumerate(rule):
            for element in alternative:
                if not isinstance(element, Characters):
                    users.setdefault(element, []).append((number, index))
        if 0 in missing[number]:
            found.append(number)
    empty = set(found)
    while found:
        for number, index in users.get(found.pop(), ()):
            missing[number][index] -= 1
            if not missing[number][index] and number not in empty:
                empty.add(number)
                found.append(number)
    return empty
