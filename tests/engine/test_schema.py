"""JSON schemas as grammars: every text satisfies the schema, and what can't be held is refused.

Source: JSON Schema 2020-12.
"""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.automaton import DEAD, Automaton
from engine.constraint import compile_constraint
from engine.gbnf import parse_grammar
from engine.json_rules import JSON_OBJECT
from engine.schema import schema_to_gbnf
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ConstraintKind, OutputConstraint


def automaton_of(schema: Any) -> Automaton:
    return Automaton(parse_grammar(schema_to_gbnf(json.dumps(schema))))


def matches(automaton: Automaton, text: str) -> bool:
    automaton.work = 0
    state = automaton.read(automaton.start, text.encode())
    return state != DEAD and automaton.may_end(state)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 3},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"', 2]}, "maxItems": 2},
    },
    "required": ["name"],
}
TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {
                "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
                "value": {"type": "boolean"},
            },
            "required": ["left", "value"],
        }
    },
    "$ref": "#/$defs/tree",
}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        (True, ["1", '"a"', "[1, {}]", "null"], ["nul", "01", "1."]),
        ({"type": "string"}, ['""', '"☃\\n\\u00e9"'], ['"', '"\n"', '"\\ud800"', '"\\x"']),
        ({"type": "string", "minLength": 2}, ['"ab"', '"\\n\\u00e9☃"'], ['"a"', '"\\n"']),
        ({"type": "number"}, ["1", "-0.5e+10", "12.25"], [".5", "1.", "+1", "NaN", "1e"]),
        ({"type": ["integer", "null"]}, ["0", "-17", "null"], ["-0", "007", "1.5", "true"]),
        ({"type": "integer", "exclusiveMinimum": 1, "maximum": 3.5}, ["2", "3"], ["1", "4"]),
        ({"minimum": -5, "maximum": 0}, ["-5", "-1", "0"], ["-0", "-6", "1", "-05"]),
        ({"const": {"a": [1, "☃"]}}, ['{"a": [1, "☃"]}'], ["{}", '{"a": [1, "x"]}']),
        ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
        ({"type": "array", "items": {"type": "null"}}, ["[]", "[null, null]"], ["[1]", "[null,]"]),
        ({"items": True, "minItems": 2, "maxItems": 3}, ["[1, 2]", "[1, 2, 3]"], ["[1]", "[]"]),
        (
            {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "minItems": 1},
            ["[1]", "[1, 2]", "[1,2,3]", "[1,2,3,3]"],
            ["[]", "[2]", "[1,3]"],
        ),
        ({"prefixItems": [{"const": 1}], "items": False}, ["[]", "[1]"], ["[1, 1]", "[2]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "object"}, ["{}", '{"a": [1], "b": {}}'], ["[]", '{"a"}', "{1:2}"]),
        ({"additionalProperties": {"const": 1}}, ["{}", '{"x": 1}'], ['{"x": 2}']),
        ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
        (
            PERSON,
            ['{"name": "☃"}', '{"name":"ab","age":12}', '{"name": "a", "tags": ["b\\"", 2]}'],
            ["{}", '{"age": 1}', '{"name": ""}', '{"name": "a", "age": -1}', '{"name": "abcd"}'],
        ),
        (
            {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": False},
            ["{}", '{"a": 1}', '{"b": 2}', '{"a": 1, "b": 2}'],
            ['{"a": 1,}', '{, "b": 2}', '{"b": 2, "a": 1}', '{"a": 2}'],
        ),
        ({"required": ["x"]}, ['{"x": [true]}'], ["{}", '{"y": 1}']),
        (
            TREE,
            ['{"left": null, "value": true}', '{"left":{"left":null,"value":false},"value":true}'],
            ['{"left": true, "value": true}', '{"value": true}'],
        ),
        ({"allOf": [{"type": "null"}], "title": "nothing"}, ["null"], ["0"]),
        ({"properties": {'"\\': {}}, "required": ['"\\']}, ['{"\\"\\\\": 1}'], ['{"x": 1}']),
    ],
)
def test_a_schema_holds_exactly_such_texts(schema, yes, no):
    automaton = automaton_of(schema)
    assert [text for text in yes if not matches(automaton, text)] == []
    assert [text for text in no if matches(automaton, text)] == []


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "not JSON"),
        ('{"const": NaN}', "not JSON"),
        ('{"const": 1e999}', "too large"),
        ("[" * 30_000, "not JSON"),
        ("3", "an object or true"),
        ("false", "an object or true"),
        ('{"type": "text"}', "none of JSON's"),
        ('{"type": {}}', "none of JSON's"),
        ('{"type": "string", "pattern": "(a+)+b"}', "'pattern'"),
        ('{"type": "integer", "multipleOf": 2}', "'multipleOf'"),
        ('{"type": "number", "exclusiveMinimum": 0}', "'exclusiveMinimum'"),
        ('{"type": "number", "minimum": 0.5}', "integers here"),
        ('{"type": "integer", "minimum": 5, "maximum": 4}', "less than the minimum"),
        ('{"type": "integer", "minimum": 1e300}', "10^15"),
        ('{"type": "integer", "minimum": true}', "10^15"),
        ('{"type": "array", "uniqueItems": true}', "'uniqueItems'"),
        ('{"type": "string", "maxLength": 1e9}', "maxLength"),
        ('{"type": "string", "maxLength": 1000000000}', "maxLength"),
        ('{"type": "string", "minLength": -1}', "minLength"),
        ('{"type": "array", "minItems": 3, "maxItems": 2}', "less than"),
        ('{"items": false, "minItems": 1}', "too few"),
        ('{"oneOf": [{}]}', "'oneOf'"),
        ('{"not": {}}', "'not'"),
        ('{"anyOf": [], "title": "x"}', "list of schemas"),
        ('{"anyOf": [{}], "type": "string"}', "beside anyOf"),
        ('{"anyOf": [{}], "minLength": 1}', "'minLength'"),
        ('{"allOf": [{}, {}]}', "allOf of several"),
        ('{"enum": []}', "no value fits"),
        ('{"enum": 3}', "list of values"),
        ('{"const": "\\ud800"}', "surrogate"),
        ('{"$ref": "https://example.org/x"}', "another document"),
        ('{"$ref": "#/$defs/none"}', "leads nowhere"),
        ('{"$ref": "#"}', "begins with itself"),
        ('{"required": [1]}', "list of names"),
        ('{"required": ["a"], "additionalProperties": false}', "not allowed"),
        ('{"properties": []}', "is an object"),
        ('{"prefixItems": {}}', "list of schemas"),
        ('{"items": ' * 70 + "{}" + "}" * 70, "nested deeper"),
        (json.dumps({"enum": list(range(3_000))}), "parts"),
        (json.dumps({"anyOf": [{"type": "null"}] * 3_000}), "parts"),
        (json.dumps({"properties": {f"p{n}": {"maxLength": 999} for n in range(99)}}), "elements"),
    ],
)
def test_what_a_grammar_can_not_hold_is_refused_by_name(schema, why):
    """Never left out in silence; nor is anything read that is too large."""
    with pytest.raises(EngineError) as caught:
        compile_constraint(OutputConstraint(ConstraintKind.JSON_SCHEMA, schema))
    assert caught.value.code == "engine.bad_spec"
    assert why in caught.value.detail


def test_json_takes_no_text():
    with pytest.raises(EngineError, match="takes no text"):
        compile_constraint(OutputConstraint(ConstraintKind.JSON, "{}"))


BOUNDS = st.integers(-(10**15), 10**15) | st.integers(-2_000, 2_000)


@given(st.tuples(BOUNDS, BOUNDS).map(sorted), BOUNDS)
def test_an_integers_range_is_exact(bounds, value):
    """The ends and their neighbours, and any other."""
    low, high = bounds
    automaton = automaton_of({"type": "integer", "minimum": low, "maximum": high})
    for number in (low - 1, low, low + 1, high - 1, high, high + 1, value, 0):
        assert matches(automaton, str(number)) == (low <= number <= high)


@given(
    st.tuples(st.integers(-300, 300), st.integers(-300, 300)).map(sorted),
    st.decimals(-400, 400, places=2).map(lambda value: value + 0),  # -0 becomes 0
)
def test_a_numbers_range_is_exact(bounds, value):
    low, high = bounds
    automaton = automaton_of({"type": "number", "minimum": low, "maximum": high})
    for text in (str(value), str(low), f"{high}.0", f"{high}.01", f"{low}.5"):
        assert matches(automaton, text) == (low <= float(text) <= high), text


def random_text(automaton: Automaton, chance: random.Random) -> str | None:
    """A random walk over ASCII until the text may end; None when it is long."""
    state, text = automaton.start, ""
    while len(text) < 2_000:
        automaton.work = 0
        if automaton.may_end(state) and (automaton.must_end(state) or chance.random() < 0.5):
            return text
        letters = [byte for byte in range(128) if automaton.step(state, byte) != DEAD]
        closing = [byte for byte in letters if chr(byte) in '"}],:0']
        byte = chance.choice(closing if closing and chance.random() < 0.7 else letters)
        state, text = automaton.step(state, byte), text + chr(byte)
    return None


@pytest.mark.parametrize("grammar", [JSON_OBJECT, schema_to_gbnf(json.dumps(PERSON))])
def test_every_text_is_json(grammar):
    automaton, read = Automaton(parse_grammar(grammar)), 0
    for seed in range(60):
        text = random_text(automaton, random.Random(seed))
        if text is not None:
            assert isinstance(json.loads(text), dict)
            read += 1
    assert read > 30


def test_nesting_at_its_bound_is_read():
    deep = limits.SCHEMA_NESTING_MAX - 1
    schema = '{"items": ' * deep + '{"const": 1}' + "}" * deep
    automaton = Automaton(parse_grammar(schema_to_gbnf(schema)))
    assert matches(automaton, "[" * deep + "1" + "]" * deep)
