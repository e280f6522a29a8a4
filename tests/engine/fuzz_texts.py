"""Texts, grammars and schemas for the fuzz: usual ones, broken ones, and known bombs."""

import json
import random
from typing import Any

ODDITIES = (
    "<|im_start|>system\n",
    "<|im_end|>",
    "</s>",
    "\0",
    "\u202e",
    "\ufeff",
    "👩‍👩‍👧‍👦",
    "e\u0301" * 9,
    "日本語",
    "{{ messages }}{% for x in range(9**9) %}",
    " " * 50,
    "\n\r\t\x0b",
    "~",
    "\U0010ffff",
)
BOMBS = (
    'root ::= "a"{5,2}',
    'root ::= "a"{999999999}',
    "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000 + " ",
    "root ::= " + "|".join(['"a"'] * 8_000),
    'root ::= "a" root "b" | "a" root "c" | "x" root | ""',
    "root ::= root",
    'root ::= (("a"*)*)*',
    'root ::= ([a-z]{1000}){1000} "\\x00"',
    "root ::= [a-z ]* " * 1 + "[a-z ]* " * 900,
    "root ::= [^\\x00-\\U0010FFFF]",
    "root ::= .* .* .* .* .*",
    'root ::= "☃"* | ([a-z] | [b-y] | [c-x] | [d-w] root)+',
)
KEYWORDS: tuple[tuple[str, Any], ...] = (
    ("pattern", "(a+)+$"),
    ("minLength", 10**9),
    ("maxLength", 3),
    ("minItems", 999),
    ("maximum", 1e308),
    ("minimum", -3),
    ("multipleOf", 0),
    ("$ref", "#"),
    ("$ref", "#/a/b"),
    ("enum", []),
    ("enum", ["\ud800", 1, None]),
    ("const", {"a": [1.5]}),
    ("additionalProperties", False),
    ("required", ["x", "y"]),
    ("anyOf", [{"type": "null"}, {"$ref": "#"}]),
    ("type", ["string", "object"]),
    ("type", 5),
)


def text(chance: random.Random, size: int) -> str:
    """Words, oddities and noise, up to about so many characters."""
    parts: list[str] = []
    while chance.random() < 0.95 and sum(map(len, parts)) < size:
        parts.append(
            chance.choice(
                [
                    "word ",
                    "Hello, ",
                    chance.choice(ODDITIES) if chance.random() < 0.3 else "how ",
                    chr(chance.choice([chance.randrange(128), chance.randrange(0x2FFF)])),
                    "x" * chance.choice([1, size]) if chance.random() < 0.1 else "are ",
                ]
            )
        )
    if chance.random() < 0.03:
        parts.append(chance.choice(["\ud83c", "\udcff"]))
    return "".join(parts)


def grammar(chance: random.Random) -> str:
    """A known bomb, a random grammar, or a random one with letters changed."""
    if chance.random() < 0.2:
        return chance.choice(BOMBS)
    names = [f"r{number}" for number in range(chance.randint(0, 4))]
    rules = [f"{name} ::= {expression(chance, names, 3)}" for name in ["root", *names]]
    found = "\n".join(rules)
    for _ in range(chance.choice([0] * 8 + [1, 4])):
        at = chance.randrange(len(found))
        found = found[:at] + chance.choice('()[]{}|"\\*+?.^-\n\0~<a0☃') + found[at + 1 :]
    return found


def expression(chance: random.Random, names: list[str], depth: int) -> str:
    """Alternatives of sequences of items, some repeated."""
    items = []
    for _ in range(chance.randint(1, 4)):
        item = chance.choice(
            [
                '"' + chance.choice(["a", "the ", "☃", '\\"', "{", "\\x41", "b"]) + '"',
                chance.choice(["[a-z ]", "[^a]", "[0-9]", ".", "[\\n\\t]", "[à-ü☃]"]),
                chance.choice(names) if names else "[a-f]",
                f"({expression(chance, names, depth - 1)})" if depth else '"."',
            ]
        )
        items.append(item + chance.choice(["", "", "", "*", "+", "?", "{3}", "{0,40}", "{2,}"]))
        items.append(chance.choice(["", "", "", "|"]))
    return " ".join(items[:-1])


def schema(chance: random.Random) -> str:
    """A random schema, most often valid; sometimes cut off or nested without end."""
    if chance.random() < 0.05:
        return '{"items": ' * 5_000
    found = json.dumps(subschema(chance, 3))
    return found[: chance.randrange(len(found))] if chance.random() < 0.05 else found


def subschema(chance: random.Random, depth: int) -> dict[str, Any]:
    """One of the usual types, with a keyword that may or may not fit."""
    kind = chance.choice(["object", "array", "string", "integer", "number", "boolean", "null"])
    found: dict[str, Any] = {"type": kind}
    if kind == "object" and depth:
        names = ["name", "x", 'quo"te', "☃", "y"][: chance.randint(1, 5)]
        found["properties"] = {name: subschema(chance, depth - 1) for name in names}
        found["required"] = [name for name in names if chance.random() < 0.6]
    elif kind == "array" and depth:
        found["items"] = subschema(chance, depth - 1)
        found["maxItems"] = chance.randint(0, 4)
    elif kind == "string":
        found["maxLength"] = chance.randint(0, 20)
    elif kind == "integer":
        found["minimum"] = chance.randint(-1_000, 1_000)
    if chance.random() < 0.1:
        keyword, value = chance.choice(KEYWORDS)
        found[keyword] = value
    return found
