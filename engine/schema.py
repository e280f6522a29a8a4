"""From a JSON schema to a grammar in GBNF whose every text satisfies it.

What a grammar can't hold is refused by its name, so nothing need be checked afterwards. The
grammar may allow less than the schema: properties come in the schema's order and only those that
it names, integers have up to 16 digits. A schema comes from anybody: its size, nesting and counts
are bounded. Everything wrong is EngineError `engine.bad_spec`. Pure.
Source: JSON Schema 2020-12. Rule: engine/README.md.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from engine.digits import integers, numbers
from engine.json_rules import JSON_RULES
from protocol import limits
from protocol.errors import EngineError

# They say something to people, or where things are.
_ANNOTATIONS = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default"}
    | {"examples", "example", "deprecated", "readOnly", "writeOnly", "format", "type"}
)
_KEYWORDS = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_ALONE = ("$ref", "anyOf", "allOf")


def bad_schema(why: str) -> EngineError:
    """The error for a schema that can't be used."""
    return EngineError("engine.bad_spec", f"schema: {why}")


def schema_to_gbnf(text: str) -> str:
    """The grammar of a schema."""
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise bad_schema("it is not JSON") from None
    try:
        return _Writer(schema).write()
    except RecursionError:
        raise bad_schema("a value is nested too deep") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _literal(value: Any) -> str:
    """The GBNF literal of a value's JSON text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise bad_schema("a number is too large") from None
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise bad_schema("half of a surrogate pair")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Writer:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: list[str] = []
        self._references: dict[str, str] = {}
        self._depth = 0
        self._left = limits.SCHEMA_NODES_MAX

    def write(self) -> str:
        root = self._visit(self._schema)
        return "\n".join([f"root ::= {root}", *self._rules]) + "\n" + JSON_RULES

    def _rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name} ::= {body}")
        return name

    def _spend(self, nodes: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise bad_schema(f"more than {limits.SCHEMA_NODES_MAX} parts")

    def _visit(self, schema: Any) -> str:
        """The name of a rule for a schema."""
        self._spend(1)
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise bad_schema("a schema is an object or true")
        self._depth += 1
        if self._depth > limits.SCHEMA_NESTING_MAX:
            raise bad_schema(f"nested deeper than {limits.SCHEMA_NESTING_MAX}")
        name = self._combined(schema) or self._typed(schema)
        self._depth -= 1
        return name

    def _combined(self, schema: dict[str, Any]) -> str:
        """A schema that is made of others, or of values; "" when it is neither."""
        for keyword in _ALONE:
            if keyword not in schema:
                continue
            self._refuse_others(schema, {keyword})
            if "type" in schema:
                raise bad_schema(f"type beside {keyword} is not supported")
            value = schema[keyword]
            if keyword == "$ref":
                return self._reference(value)
            if not isinstance(value, list) or not value:
                raise bad_schema(f"{keyword} is a list of schemas")
            if keyword == "allOf" and len(value) > 1:
                raise bad_schema("allOf of several schemas is not supported")
            return self._rule(" | ".join([self._visit(part) for part in value]))
        for keyword in ("const", "enum"):
            if keyword in schema:
                self._refuse_others(schema, {keyword})
                return self._values(
                    schema, [schema["const"]] if keyword == "const" else schema[keyword]
                )
        return ""

    def _values(self, schema: dict[str, Any], values: Any) -> str:
        if not isinstance(values, list):
            raise bad_schema("enum is a list of values")
        self._spend(len(values))
        types = self._types(schema)
        fitting = [
            value for value in values if not types or any(_is(value, name) for name in types)
        ]
        if not fitting:
            raise bad_schema("no value fits")
        return self._rule(" | ".join(map(_literal, fitting)))

    def _reference(self, pointer: Any) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise bad_schema("$ref to another document is not supported")
        if pointer not in self._references:
            target = self._schema
            for part in pointer[1:].split("/")[1:]:
                key = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(target, dict) or key not in target:
                    raise bad_schema("$ref leads nowhere")
                target = target[key]
            # Named before it is visited, so that it may refer to itself.
            name = self._references[pointer] = f"d{len(self._references)}"
            self._rules.append(f"{name} ::= {self._visit(target)}")
        return self._references[pointer]

    def _types(self, schema: dict[str, Any]) -> list[str]:
        types = schema.get("type", [])
        types = types if isinstance(types, list) else [types]
        for name in types:
            if not isinstance(name, str) or name not in _KEYWORDS:
                raise bad_schema("a type is none of JSON's")
        return types

    def _typed(self, schema: dict[str, Any]) -> str:
        types = (
            self._types(schema)
            or [name for name, keywords in _KEYWORDS.items() if keywords & schema.keys()][:1]
        )
        known = set[str]().union(*(_KEYWORDS[name] for name in types))
        self._refuse_others(schema, known)
        if not types:
            return "value"
        makers: dict[str, Callable[[dict[str, Any]], str]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": integers,
            "number": numbers,
            "boolean": lambda _: "boolean",
            "null": lambda _: "null",
        }
        return self._rule(" | ".join([makers[name](schema) for name in types]))

    def _refuse_others(self, schema: dict[str, Any], known: set[str]) -> None:
        for keyword in schema:
            if keyword not in known and keyword not in _ANNOTATIONS:
                raise bad_schema(f"{keyword[:40]!r} is not supported here")

    def _count(self, schema: dict[str, Any], keyword: str) -> int | None:
        value = schema.get(keyword)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= limits.GRAMMAR_REPETITIONS_MAX:
            raise bad_schema(f"{keyword} is not in 0..{limits.GRAMMAR_REPETITIONS_MAX}")
        return value

    def _repeat(self, schema: dict[str, Any], least: str, most: str) -> tuple[int, str]:
        low, high = self._count(schema, least) or 0, self._count(schema, most)
        if high is not None and high < low:
            raise bad_schema(f"{most} is less than {least}")
        return low, "" if high is None else str(high)

    def _string(self, schema: dict[str, Any]) -> str:
        low, high = self._repeat(schema, "minLength", "maxLength")
        return f'"\\"" char{{{low},{high}}} "\\""'

    def _array(self, schema: dict[str, Any]) -> str:
        first = schema.get("prefixItems", [])
        if not isinstance(first, list):
            raise bad_schema("prefixItems is a list of schemas")
        low, high = self._repeat(schema, "minItems", "maxItems")
        items = [self._visit(part) for part in first]
        more = schema.get("items", True)
        if more is False:
            if len(items) < low:
                raise bad_schema("items: false and too few prefixItems")
            most = len(items)
        else:
            most = -1
        most = min(most, int(high)) if high and most >= 0 else int(high) if high else most
        rest = "" if more is False else self._visit(more)
        return self._items(items, rest, low, most)

    def _items(self, items: list[str], rest: str, low: int, most: int) -> str:
        """Those items in order, then `rest`; `low` to `most` (-1: any number) together."""
        if most >= 0:
            items = items[:most]
        body = ""
        if rest and (most < 0 or most > len(items)):
            least = max(0, low - len(items))
            end = "" if most < 0 else str(most - len(items))
            body = f'("," ws {rest} ws){{{least},{end}}}'
            if not items:
                end = "" if most < 0 else str(most - 1)
                body = f'{rest} ws ("," ws {rest} ws){{{max(0, low - 1)},{end}}}'
                return f'"[" ws ({body}){"" if low else "?"} "]"'
        for index in range(len(items) - 1, -1, -1):
            comma = '"," ws ' if index else ""
            body = self._rule(f"{comma}{items[index]} ws {body}")
            if index >= low:
                body = f"({body})?"
        return f'"[" ws {body} "]"'

    def _object(self, schema: dict[str, Any]) -> str:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        more = schema.get("additionalProperties", True)
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise bad_schema("properties is an object, required a list")
        self._spend(len(required))
        if not all(isinstance(name, str) for name in required):
            raise bad_schema("required is a list of names")
        others = [name for name in dict.fromkeys(required) if name not in properties]
        if not properties and not others:
            return self._map(more)
        if others and more is False:
            raise bad_schema("a required property is not allowed")
        members = [
            (name, self._visit(part), name in required) for name, part in properties.items()
        ]
        members += [(name, self._visit(more), True) for name in others]
        return f'"{{" ws {self._members(members)} "}}"'

    def _map(self, more: Any) -> str:
        if more is False:
            return '"{" ws "}"'
        member = f'string ws ":" ws {self._visit(more)} ws'
        return f'"{{" ws ({member} ("," ws {member})*)? "}}"'

    def _members(self, members: list[tuple[str, str, bool]]) -> str:
        """Members in order, those not required present or not, commas between those present."""
        tail, heads = "", []
        for name, rule, is_required in reversed(members):
            member = f'{_literal(name)} ws ":" ws {rule} ws'
            heads.append(f"{member} {tail}")
            if is_required:
                heads = heads[-1:]
            later = f'"," ws {member}' if is_required else f'("," ws {member})?'
            tail = self._rule(f"{later} {tail}")
        nothing = not any(is_required for _, _, is_required in members)
        return f"({' | '.join(reversed(heads))}){'?' if nothing else ''}"


def _is(value: Any, name: str) -> bool:
    """Whether a JSON value is of a type by JSON Schema's name for it."""
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, int | float):
        return name == "number" or (
            name == "integer" and math.isfinite(value) and value == int(value)
        )
    names = {str: "string", dict: "object", list: "array", type(None): "null"}
    return names[type(value)] == name
