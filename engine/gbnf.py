"""Reads a grammar in GBNF, llama.cpp's notation, into rules that are bounded in every way.

A grammar comes from anybody. llama.cpp's own parser crashes on deep nesting and writes out
`"a"{5,2}` until memory ends, so it never sees one. Everything wrong is EngineError
`engine.bad_spec`. References to tokens (`<...>`) are not supported. Pure.
Source: grammars/README.md of llama.cpp. Rule: engine/README.md.
"""

import re

from engine.grammar import (
    CODE_POINT_MAX,
    Alternative,
    Characters,
    Element,
    Grammar,
    bad_grammar,
    complement,
    merge,
    refuse_left_recursion,
)
from protocol import limits
from protocol.errors import EngineError

ROOT = "root"
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_REPETITION = re.compile(r"\{[ \t]*([0-9]{1,9})[ \t]*(?:(,)[ \t]*([0-9]{1,9})?[ \t]*)?\}")
_ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([trn\\"\[\]]))')
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}


def parse_grammar(text: str) -> Grammar:
    """The rules of a grammar, those of groups and repetitions among them."""
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._names: dict[str, int] = {}
        self._rules: list[list[Alternative] | None] = []
        self._elements = 0

    def parse(self) -> Grammar:
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            self._rule()
        if ROOT not in self._names:
            raise bad_grammar("there is no rule named root")
        for name, number in self._names.items():
            if self._rules[number] is None:
                raise bad_grammar(f"rule {name[:40]} is used and not defined")
        rules = tuple(tuple(rule or ()) for rule in self._rules)
        refuse_left_recursion(rules)
        return Grammar(rules, self._names[ROOT])

    def _rule(self) -> None:
        number = self._reference()
        if self._rules[number] is not None:
            raise self._wrong("a rule is defined twice")
        self._skip(_SPACE)
        if not self._text.startswith("::=", self._at):
            raise self._wrong("::= expected")
        self._at += 3
        self._skip(_SPACE_AND_LINES)
        self._rules[number] = self._alternatives(0)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            raise self._wrong("unexpected character")
        self._skip(_SPACE_AND_LINES)

    def _alternatives(self, depth: int) -> list[Alternative]:
        if depth > limits.GRAMMAR_NESTING_MAX:
            raise bad_grammar(f"nested deeper than {limits.GRAMMAR_NESTING_MAX}")
        found = [self._sequence(depth)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(depth))
        self._count(len(found))
        return found

    def _sequence(self, depth: int) -> Alternative:
        found: list[Element] = []
        item = 0  # where the last item begins, which a repetition is about
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter in "*+?{":
                if item == len(found):
                    raise self._wrong("nothing to repeat")
                found[item:] = self._repeated(found[item:], *self._bounds())
            else:
                elements = self._item(letter, depth)
                if elements is None:
                    break
                item = len(found)
                found += elements
                self._count(len(elements))
            self._skip(_SPACE_AND_LINES if depth else _SPACE)
        return tuple(found)

    def _item(self, letter: str, depth: int) -> list[Element] | None:
        """What begins here, or None where the sequence ends."""
        if letter == '"':
            return self._literal()
        if letter == "[":
            return [self._class()]
        if letter == ".":
            self._at += 1
            return [Characters(((0, CODE_POINT_MAX),))]
        if letter == "(":
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            group = self._alternatives(depth + 1)
            if not self._text.startswith(")", self._at):
                raise self._wrong(") expected")
            self._at += 1
            return [self._add(group)]
        if _NAME.match(letter):
            return [self._reference()]
        if letter in "<!":
            raise self._wrong("references to tokens are not supported")
        return None

    def _reference(self) -> int:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._wrong("a rule's name expected")
        self._at = match.end()
        if match[0] not in self._names:
            self._names[match[0]] = len(self._rules)
            self._rules.append(None)
        return self._names[match[0]]

    def _literal(self) -> list[Element]:
        self._at += 1
        found: list[Element] = []
        while not self._text.startswith('"', self._at):
            code = self._character()
            found.append(Characters(((code, code),)))
        self._at += 1
        return found

    def _class(self) -> Characters:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges = []
        while not self._text.startswith("]", self._at):
            first = last = self._character()
            if (
                self._text.startswith("-", self._at)
                and self._text[self._at + 1 : self._at + 2] != "]"
            ):
                self._at += 1
                last = self._character()
            if last < first:
                raise self._wrong("a range that ends before it begins")
            ranges.append((first, last))
            self._count(1)
        self._at += 1
        merged = merge(ranges)
        return Characters(complement(merged) if negated else merged)

    def _character(self) -> int:
        if self._at >= len(self._text):
            raise self._wrong("unexpected end")
        if self._text[self._at] != "\\":
            self._at += 1
            return ord(self._text[self._at - 1])
        match = _ESCAPE.match(self._text, self._at)
        if match is None:
            raise self._wrong("unknown escape")
        self._at = match.end()
        if match[4]:
            return ord(_ESCAPED.get(match[4], match[4]))
        return int(match[1] or match[2] or match[3], 16)

    def _bounds(self) -> tuple[int, int | None]:
        """The least and the greatest number of a repetition; None for no end."""
        letter = self._text[self._at]
        if letter != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
        match = _REPETITION.match(self._text, self._at)
        if match is None:
            raise self._wrong("a repetition is written {2}, {2,} or {2,5}")
        self._at = match.end()
        least = int(match[1])
        most = int(match[3]) if match[3] else None if match[2] else least
        if max(least, most or 0) > limits.GRAMMAR_REPETITIONS_MAX:
            raise bad_grammar(f"more than {limits.GRAMMAR_REPETITIONS_MAX} repetitions")
        if most is not None and most < least:
            raise self._wrong("a repetition that ends before it begins")
        return least, most

    def _repeated(self, item: list[Element], least: int, most: int | None) -> list[Element]:
        """An item written out: copies, then a rule that calls itself or a chain of rules."""
        if len(item) > 1:
            item = [self._add([tuple(item)])]
        self._count(least)
        if most is None:
            number = len(self._rules)
            return item * least + [self._add([(*item, number), ()])]
        rest: list[Element] = []
        for _ in range(most - least):
            rest = [self._add([(*item, *rest), ()])]
        return item * least + rest

    def _add(self, alternatives: list[Alternative]) -> int:
        self._count(sum(map(len, alternatives)) + len(alternatives))
        self._rules.append(alternatives)
        return len(self._rules) - 1

    def _count(self, elements: int) -> None:
        self._elements += elements
        if self._elements > limits.GRAMMAR_ELEMENTS_MAX:
            raise bad_grammar(f"more than {limits.GRAMMAR_ELEMENTS_MAX} elements")

    def _skip(self, space: re.Pattern[str]) -> None:
        match = space.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _wrong(self, why: str) -> EngineError:
        line = self._text.count("\n", 0, self._at) + 1
        return bad_grammar(f"line {line}: {why}")
