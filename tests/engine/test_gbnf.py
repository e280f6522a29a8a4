"""GBNF: what its notation means, and that no text is read without bounds. Source: llama.cpp."""

import pytest

from engine.automaton import DEAD, Automaton
from engine.gbnf import parse_grammar
from protocol import limits
from protocol.errors import EngineError


def matches(grammar: str, text: str) -> bool:
    automaton = Automaton(parse_grammar(grammar))
    state = automaton.read(automaton.start, text.encode())
    return state != DEAD and automaton.may_end(state)


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        ('root ::= "ab"', ["ab"], ["", "a", "abc", "AB"]),
        ('root ::= "a" | "b" "c"', ["a", "bc"], ["b", "ac"]),
        ('root ::= "ab"*', ["", "ab", "abab"], ["a", "aba"]),
        ('root ::= "a"+ "b"?', ["a", "aab"], ["", "b", "abb"]),
        ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
        ('root ::= "a"{2,}', ["aa", "a" * 9], ["a"]),
        ('root ::= "a"{1,3} "b"', ["ab", "aaab"], ["b", "aaaab"]),
        ('root ::= "a"{0}', [""], ["a"]),
        ('root ::= ("a" | "b" "c"){2}', ["aa", "abc", "bcbc"], ["a", "ab"]),
        ("root ::= [a-cx] [^a-c]", ["ad", "x☃", "b\n"], ["aa", "dd", "a"]),
        (r'root ::= [\]a-] "\x41\u2603\U0001F389\"\\\n"', ['-A☃🎉"\\\n'], ["b"]),
        ("root ::= . .", ["☃🎉", "a\n"], ["a", "abc"]),
        ('root ::= a b\na ::= "x" # comment\nb ::= "y" | a', ["xy", "xx"], ["x"]),
        ('root ::= (\n"a"\n|\n"b" )\n\n# end', ["a", "b"], ["ab"]),
        ('root ::= "a" |\n "b"', ["a", "b"], []),
        ('root ::= "(" root ")" | ""', ["", "(())"], ["(", "())"]),
        ('root ::= "a" root | "b"', ["b", "a" * 2_000 + "b"], ["a"]),
        ('root ::= [a-z]* "." | [0-9]*', [".", "az.", "", "12"], ["1.", "az"]),
        ('root ::= ""', [""], ["a"]),
    ],
)
def test_a_grammar_matches_what_its_notation_says(grammar, yes, no):
    assert [text for text in yes if not matches(grammar, text)] == []
    assert [text for text in no if matches(grammar, text)] == []


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "no rule named root"),
        ('roots ::= "a"', "no rule named root"),
        ("root ::= other", "used and not defined"),
        ('root ::= "a"\nroot ::= "b"', "line 2: a rule is defined twice"),
        ("root", "::= expected"),
        ('root := "a"', "::= expected"),
        ('root ::= "a', "unexpected end"),
        ("root ::= [a", "unexpected end"),
        ('root ::= "\\', "unknown escape"),
        ('root ::= "\\q"', "unknown escape"),
        ('root ::= "\\xZ1"', "unknown escape"),
        ("root ::= [z-a]", "ends before it begins"),
        ('root ::= ("a"', ") expected"),
        ('root ::= "a")', "unexpected character"),
        ("root ::= *", "nothing to repeat"),
        ("root ::= (*)", "nothing to repeat"),
        ('root ::= "" *', "nothing to repeat"),
        ('root ::= "a"{', "a repetition is written"),
        ('root ::= "a"{-1}', "a repetition is written"),
        ('root ::= "a"{,5}', "a repetition is written"),
        ('root ::= "a"{5,2}', "ends before it begins"),
        ('root ::= "a"{1001}', "more than 1000 repetitions"),
        ('root ::= "a"{0,999999999}', "more than 1000 repetitions"),
        ('root ::= "a"{9999999999}', "a repetition is written"),
        ("root ::= <[12]>", "references to tokens"),
        ("root ::= \0", "unexpected character"),
        ("::=", "a rule's name expected"),
        ("root ::= root", "begins with itself"),
        ('root ::= root "a" | "b"', "begins with itself"),
        ('root ::= a "x"\na ::= b | "y"\nb ::= "z"? root', "begins with itself"),
        ('root ::= ("a"*)*', "begins with itself"),
        ("root ::= " + "(" * 51 + '"a"' + ")" * 51, "nested deeper than 50"),
        ("root ::= " + "(" * 20_000, "nested deeper than 50"),
        ("root ::= " + '"a"{1000} ' * 70, "more than 65536 elements"),
        ('root ::= ("ab"{1000} | "c"{0,1000}){30}' * 1 + ' "d"{1000}' * 70, "elements"),
        ("root ::= " + "|" * 66_000, "more than 65536 elements"),
    ],
)
def test_what_is_wrong_or_too_large_is_refused(grammar, why):
    """Each of these makes llama.cpp's own parser return nothing, crash or eat all memory."""
    with pytest.raises(EngineError) as caught:
        parse_grammar(grammar)
    assert caught.value.code == "engine.bad_spec"
    assert why in caught.value.detail


def test_a_repetition_of_a_repetition_is_counted_once():
    """(x{1000}){1000} is two thousand elements and a million characters."""
    text = 'root ::= ("ab"{1000}){1000}'
    automaton = Automaton(parse_grammar(text))
    state = automaton.read(automaton.start, b"ab" * 1_500)
    assert state != DEAD
    assert automaton.read(state, b"a") != DEAD
    assert automaton.read(state, b"b") == DEAD


def test_nesting_at_its_bound_is_read():
    deep = limits.GRAMMAR_NESTING_MAX
    assert matches("root ::= " + "(" * deep + '"a"' + ")" * deep, "a")
