"""What there is to know: questions, each with one answer, from the tables beside this file.

Must not know chats or chance. Rule: engine/models/README.md.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.models.corpus.numbers import Ask, Row, number_asks
from engine.models.corpus.spelling import spelling_asks


@dataclass(frozen=True, slots=True)
class Fact:
    """One answer and every way to ask for it.

    `group` joins the facts that a short follow-up question can move between; `follows` are
    those questions. `brief` is the answer in a word or two. `weight` is relative to the other
    facts of the category.
    """

    category: str
    group: int
    questions: tuple[str, ...]
    follows: tuple[str, ...]
    answer: str
    brief: str
    weight: float = 1.0


def lines(text: str) -> tuple[str, ...]:
    """The lines of a block of text, without the empty ones."""
    return tuple(line for line in text.split("\n") if line)


def with_articles(text: str) -> str:
    """`a owl` -> `an owl`; right for the words of these tables."""
    return re.sub(r"(\ba|^A) (?=[aeio])", r"\1n ", text)


def capital(text: str) -> str:
    """The text with its first letter large."""
    return text[:1].upper() + text[1:]


def fill(template: str, row: Row) -> str:
    """A template with a row's values; `{Name}` is `{name}` with a large first letter."""
    values = dict(row) | {capital(name): capital(value) for name, value in row.items()}
    return with_articles(template.format_map(values))


def first_sentence(text: str) -> str:
    """What a brief answer is when nothing shorter was written down."""
    return re.split(r"(?<=[.!?]) ", text, maxsplit=1)[0]


def ask_facts(group: int, ask: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Fact]:
    """One fact for each row."""
    for row in rows:
        answer = capital(fill(ask["answer"], row))
        yield Fact(
            ask["category"],
            group,
            tuple(capital(fill(line, row)) for line in lines(ask["questions"])),
            tuple(fill(line, row) for line in lines(ask.get("follow", ""))),
            answer,
            fill(ask.get("brief", ""), row) or first_sentence(answer),
            ask.get("weight", 1) / len(rows),
        )


def load(name: str) -> dict[str, Any]:
    """A table of this folder."""
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def checks(rows: list[Row]) -> Iterator[Ask]:
    """Whether a city is the capital of a country: right ones, and those of other countries."""
    for shift in range(6):
        yield (
            {
                "category": "countries",
                "weight": 0.6 if shift == 0 else 0.12,
                "questions": "Is {city} the capital of {country}?\n"
                "Is {city} {country}'s capital?\nIs the capital of {country} {city}?",
                "answer": "Yes, {city} is the capital of {country}."
                if shift == 0
                else "No, the capital of {country} is {capital}.",
                "brief": "No." if shift else "Yes.",
            },
            [
                dict(row) | {"city": other["capital"]}
                for row, other in zip(rows, rows[shift:] + rows[:shift], strict=True)
            ],
        )


def glossary_asks() -> Iterator[Ask]:
    """The project's words, and the questions about how it works."""
    book = load("glossary.toml")
    for term in book["term"]:
        rows = [
            {"a": name, "bare": re.sub(r"^(an?|the) ", "", name), "answer": term["answer"]}
            for name in term["names"]
        ]
        yield (
            {
                "category": "glossary",
                "questions": book["questions"],
                "follow": book["follow"],
                "answer": "{answer}",
            },
            rows,
        )
    for ask in book["ask"]:
        yield ask | {"category": "explanations"}, [{}]


def table_asks() -> Iterator[Ask]:
    """Every ask of every table, with its rows."""
    for name in ("countries.toml", "words.toml", "things.toml", "talk.toml"):
        book = load(name)
        for table in book.get("table", ()):
            rows: list[Row] = [
                dict(zip(table["columns"], line.split("|"), strict=True))
                for line in lines(table["rows"])
            ]
            for ask in table["ask"]:
                yield ask, rows
            if "capital" in table["columns"]:
                yield from checks(rows)
        for ask in book.get("ask", ()):
            yield ask, [{}]
    yield from glossary_asks()
    yield from number_asks()
    yield from spelling_asks()


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in the order of the files."""
    found: list[Fact] = []
    for group, (ask, rows) in enumerate(table_asks()):
        # The words of the glossary follow one another; talk does not.
        number = -1 if ask["category"] == "glossary" else group
        found += ask_facts(number, ask, rows)
    return tuple(found)
