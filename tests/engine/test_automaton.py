"""Reading along a grammar: llama.cpp's own answers, whole UTF-8, and bounds on every cost."""

import codecs
import ctypes
import math
import random
from contextlib import nullcontext

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.automaton import DEAD, Automaton
from engine.constraint import Constraint, Pieces
from engine.gbnf import parse_grammar
from engine.grammar import Grammar
from engine.json_rules import JSON_OBJECT
from engine.native import NativeModel
from protocol import limits
from protocol.errors import EngineError

GRAMMARS = [
    JSON_OBJECT,
    'root ::= [a-z ]+ "." ("\\n" root)?',
    'root ::= ("the" | "then" | "them") " " [^aeiou]{2,5} | .*',
    'root ::= "(" root ")" root | [0-9]{1,3} | ""',
    'root ::= "☃"{1,3} [à-ü]* "日本" | [^\\x00-\\u07ff]+',
    'root ::= a b | b a\na ::= "a"* "x"?\nb ::= ("b" | "ab")+',
    'root ::= "e" root "e" | "t" root "t" | [a-z]',
]


def begins_text(data: bytes) -> bool:
    """Whether these bytes are UTF-8, perhaps cut in a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    # Python's decoder waits for the third byte of half a surrogate pair, which is no character.
    return not (len(data) > 1 and data[-2] == 0xED and data[-1] >= 0xA0)


def legal_by_llama_cpp(model: NativeModel, sampler: object, before: bytes) -> list[int]:
    """Without what llama.cpp lets pass: bytes that no text has, the names of control tokens as
    text, and an end inside a character."""
    size = model.vocabulary.size
    data = (llama_cpp.llama_token_data * size)(*((token, 0.0, 0.0) for token in range(size)))
    array = llama_cpp.llama_token_data_array(data, size, -1, False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    legal = [array.data[i].id for i in range(array.size) if array.data[i].logit > -math.inf]
    # A continuation byte fits exactly where a character is unfinished.
    ends = () if begins_text(before + b"\x80") else model.vocabulary.end_tokens
    pieces = model.vocabulary.pieces
    return [
        token
        for token in legal
        if token in ends or (pieces[token] and begins_text(before + pieces[token]))
    ]


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_legal_tokens_are_those_of_llama_cpp(model, grammar, seed):
    """Along random legal outputs, every token of the vocabulary at every step."""
    vocabulary, chance = model.vocabulary, random.Random(seed)
    pieces = Pieces(vocabulary.pieces, vocabulary.end_tokens)
    constraint = Constraint(parse_grammar(grammar), pieces)
    sampler = llama_cpp.llama_sampler_init_grammar(vocabulary._vocab, grammar.encode(), b"root")
    text = b""
    for _ in range(25):
        legal = np.flatnonzero(constraint.mask()).tolist()
        assert legal == legal_by_llama_cpp(model, sampler, text)
        assert legal == [token for token in range(vocabulary.size) if constraint.allows(token)]
        going_on = [token for token in legal if token not in vocabulary.end_tokens]
        assert constraint.must_end == (constraint.may_end and not going_on)
        if not going_on:
            break
        token = chance.choice(going_on)
        llama_cpp.llama_sampler_accept(sampler, token)
        constraint.take(token)
        text += vocabulary.pieces[token]
    llama_cpp.llama_sampler_free(sampler)


ANYTHING = Automaton(parse_grammar("root ::= .*"))


@given(st.binary(max_size=8) | st.text(max_size=4).map(lambda text: text.encode()))
def test_exactly_utf_8_is_read(data):
    """Reference: Python's decoder, but no NUL; a part of a character is read and is no end."""
    state = ANYTHING.read(ANYTHING.start, data)
    if b"\0" in data:
        assert state == DEAD
        return
    try:
        data.decode()
    except UnicodeDecodeError as error:
        whole = error.reason == "unexpected end of data" and error.end == len(data)
        assert (state != DEAD) == whole
        assert state == DEAD or not ANYTHING.may_end(state)
    else:
        assert state != DEAD
        assert ANYTHING.may_end(state)


@pytest.mark.parametrize("first", range(0xC0, 0x100))
def test_a_part_of_a_character_is_read_only_towards_one_that_may_come(first):
    automaton = Automaton(parse_grammar("root ::= [é-☃]"))
    state = automaton.step(automaton.start, first)
    reachable = {chr(code).encode()[0] for code in range(ord("é"), ord("☃") + 1)}
    assert (state != DEAD) == (first in reachable)


def read_and_look(grammar: Grammar, letters: str) -> None:
    """Read 300 letters, and at each try every byte that could follow."""
    automaton = Automaton(grammar)
    state = automaton.start
    for index in range(300):
        automaton.work = 0
        state = automaton.step(state, ord(letters[index % len(letters)]))
        assert state != DEAD
        for byte in range(256):
            automaton.step(state, byte)


@pytest.mark.parametrize(
    ("grammar", "letters"),
    [
        ('root ::= "a" root "b" | "a" root "c" | "x"', "a"),
        ('root ::= (a | b | c)*\na ::= "x" a? "y"\nb ::= "x" b? "z"\nc ::= "x" c? c? "w"', "x"),
        ("root ::= " + " | ".join(f'"{number}"' for number in range(5_000)), "1"),
        ("root ::= " + "[a-z]* " * 800 + "[0-9]", "abcdefgh"),
    ],
)
def test_an_ambiguous_grammar_ends_in_an_error_and_soon(grammar, letters):
    """llama.cpp takes minutes or all memory for a few tokens of the first."""
    with pytest.raises(EngineError) as caught:
        read_and_look(parse_grammar(grammar), letters)
    assert caught.value.code == "engine.bad_spec"


def test_work_is_counted_for_a_token(monkeypatch):
    monkeypatch.setattr(limits, "GRAMMAR_WORK_MAX", 50)
    automaton = Automaton(parse_grammar("root ::= [a-z]{500}"))
    with pytest.raises(EngineError, match="for a token"):
        automaton.read(automaton.start, b"a" * 100)
    automaton.work = 0
    assert automaton.read(automaton.start, b"aaa") != DEAD


@pytest.mark.parametrize(("forgiven", "is_read"), [(1_000, True), (50, False)])
def test_work_may_not_go_on_at_every_token(model, monkeypatch, forgiven, is_read):
    """Each token of this grammar has a state of its own, whose mask has to be worked out."""
    monkeypatch.setattr(limits, "GRAMMAR_WORK_MAX", 4_000)
    monkeypatch.setattr(limits, "GRAMMAR_WORK_PER_TOKEN", forgiven)
    pieces = Pieces(model.vocabulary.pieces, model.vocabulary.end_tokens)
    constraint = Constraint(parse_grammar("root ::= [a-z]{500}"), pieces)
    for _ in range(4):
        constraint.mask()
        constraint.take(97)
    with nullcontext() if is_read else pytest.raises(EngineError, match="for a token"):
        for _ in range(200):
            constraint.mask()
            constraint.take(97)


def test_what_nests_too_deep_is_not_legal():
    automaton = Automaton(parse_grammar('root ::= "(" root ")" | "x"'))
    state = automaton.start
    depth = 0
    while (deeper := automaton.step(state, ord("("))) != DEAD:
        state, depth = deeper, depth + 1
    assert limits.GRAMMAR_STACK_MAX // 2 <= depth <= limits.GRAMMAR_STACK_MAX


def test_forgetting_changes_nothing(monkeypatch):
    """A table that is rebuilt at every token reads as one that is kept."""
    text = '{"a": [1, {"b": "☃\\n"}, -2.5e3], "c": {"d": {"e": []}}}'.encode()
    kept, forgetful = (Automaton(parse_grammar(JSON_OBJECT)) for _ in range(2))
    one, two = kept.start, forgetful.start
    sizes = []
    for byte in text:
        one, two = kept.step(one, byte), forgetful.step(two, byte)
        monkeypatch.setattr(limits, "GRAMMAR_STATES_MAX", 4)
        monkeypatch.setattr(limits, "GRAMMAR_NODES_MAX", 100_000)
        two = forgetful.compact(two)
        monkeypatch.undo()
        sizes.append(len(forgetful._states))
        reads = [
            [other for other in range(256) if automaton.step(state, other) != DEAD]
            for automaton, state in ((kept, one), (forgetful, two))
        ]
        assert reads[0] == reads[1]
        assert kept.may_end(one) == forgetful.may_end(two)
    assert max(sizes) < 10
    assert kept.may_end(one)
