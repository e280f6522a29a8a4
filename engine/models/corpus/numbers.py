"""Small arithmetic, counting and units, computed.

Must not know chats or chance. Rule: engine/models/README.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# A row gives names their values; an ask has templates, and the rows that fill them.
Row = Mapping[str, str]
Ask = tuple[Mapping[str, Any], Sequence[Row]]

_WORDS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen twenty
"""
WORDS = tuple(_WORDS.split())

OPERATIONS = (
    ("plus", "+", "What do {a} and {b} make?\nAdd {a} and {b}.\nWhat is the sum of {a} and {b}?"),
    ("minus", "-", "Take {b} from {a}.\nSubtract {b} from {a}.\nWhat is {a} less {b}?"),
    ("times", "*", "Multiply {a} by {b}.\nWhat is the product of {a} and {b}?\n{a} x {b}"),
)
QUESTIONS = """
What is {a} {word} {b}?
What's {a} {word} {b}?
How much is {a} {word} {b}?
{a} {word} {b}?
{a} {word} {b}
{a} {sign} {b}
{a} {sign} {b} =
{a}{sign}{b}
What is {a} {sign} {b}?
Calculate {a} {word} {b}.
Compute {a} {sign} {b}.
Tell me what {a} {word} {b} is.
Can you work out {a} {word} {b}?
Solve {a} {word} {b}.
{a} {word} {b} makes what?
What does {a} {word} {b} make?
What do I get for {a} {sign} {b}?
How much does {a} {word} {b} make?
Give me the result of {a} {word} {b}.
If I have {a} {word} {b}, how much is it?
"""
UNITS = (
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("tons", "kilograms", 1000),
    ("litres", "millilitres", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("dozen", "pieces", 12),
    ("credits", "ucr", 1_000_000),
)


def result(a: int, word: str, b: int) -> int:
    """The value of `a word b`."""
    return {"plus": a + b, "minus": a - b, "times": a * b}[word]


def pairs(word: str) -> list[tuple[int, int]]:
    """The small numbers that an operation is learnt for."""
    if word == "times":
        return [(a, b) for a in range(13) for b in range(13)]
    if word == "minus":
        return [(a, b) for a in range(21) for b in range(a + 1)]
    return [(a, b) for a in range(21) for b in range(21)]


def sums() -> Iterator[Ask]:
    """Sums, differences and products, in digits and in words."""
    for word, sign, more in OPERATIONS:
        rows = [{"a": str(a), "b": str(b), "c": str(result(a, word, b))} for a, b in pairs(word)]
        ask = {
            "category": "arithmetic",
            "weight": 4,
            "questions": QUESTIONS.replace("{word}", word).replace("{sign}", sign) + more,
            "follow": f"And {{a}} {word} {{b}}?\nand {{a}} {sign} {{b}}?\n{{a}} {sign} {{b}}?",
            "answer": f"{{a}} {word} {{b}} is {{c}}.",
            "brief": "{c}.",
        }
        yield ask, rows
        spoken = [
            {"p": WORDS[a], "q": WORDS[b], "a": str(a), "b": str(b), "c": str(result(a, word, b))}
            for a, b in pairs(word)
            if a <= 12 and b <= 12
        ]
        yield (
            ask
            | {
                "weight": 1,
                "questions": f"What is {{p}} {word} {{q}}?\nHow much is {{p}} {word} {{q}}?\n"
                f"{{p}} {word} {{q}}",
                "follow": f"And {{p}} {word} {{q}}?",
            },
            spoken,
        )


def counting() -> Iterator[Ask]:
    """What comes before and after, even and odd, bigger and smaller, counting up and down."""
    near = [{"n": str(n), "next": str(n + 1), "before": str(n - 1)} for n in range(1, 61)]
    for key, word in (("next", "after"), ("before", "before")):
        yield (
            {
                "category": "counting",
                "weight": 2,
                "questions": f"What number comes {word} {{n}}?\nTell me the number {word} {{n}}.\n"
                f"Which number comes {word} {{n}}?\nWhich number is {word} {{n}}?\n"
                f"What comes {word} {{n}}?\nWhat is the number {word} {{n}}?\n"
                f"number {word} {{n}}",
                "follow": f"And {word} {{n}}?",
                "answer": f"The number {word} {{n}} is {{{key}}}.",
                "brief": f"{{{key}}}.",
            },
            near,
        )
    parity = [{"n": str(n), "kind": "odd" if n % 2 else "even"} for n in range(61)]
    yield (
        {
            "category": "counting",
            "weight": 1,
            "questions": "Is {n} even or odd?\nIs {n} odd or even?\n"
            "Is the number {n} even or odd?",
            "follow": "And {n}?\nWhat about {n}?",
            "answer": "{n} is {kind}.",
            "brief": "{Kind}.",
        },
        parity,
    )
    compared = [
        {"a": str(a), "b": str(b), "more": str(max(a, b)), "less": str(min(a, b))}
        for a in range(0, 40, 3)
        for b in range(1, 41, 4)
        if a != b
    ]
    for key, word in (("more", "bigger"), ("more", "larger"), ("less", "smaller")):
        yield (
            {
                "category": "counting",
                "weight": 0.5,
                "questions": f"Which is {word}, {{a}} or {{b}}?\nWhat is {word}: {{a}} or {{b}}?\n"
                f"Is {{a}} or {{b}} {word}?",
                "answer": f"{{{key}}} is {word}.",
                "brief": f"{{{key}}}.",
            },
            compared,
        )
    ranges = []
    for a in range(1, 12):
        for b in (*range(a + 2, a + 11), *range(max(1, a - 9), a - 1)):
            step = 1 if b > a else -1
            listed = [str(n) for n in range(a, b + step, step)]
            ranges.append({"a": str(a), "b": str(b), "list": ", ".join(listed)})
    yield (
        {
            "category": "counting",
            "weight": 2,
            "questions": "Count from {a} to {b}.\nCan you count from {a} to {b}?\n"
            "Please count from {a} to {b}.\ncount from {a} to {b}\n"
            "List the numbers from {a} to {b}.",
            "follow": "And from {a} to {b}?\nNow from {a} to {b}.",
            "answer": "{list}.",
        },
        ranges,
    )


def units() -> Iterator[Ask]:
    """How many of a small unit are in some of a large one."""
    for large, small, factor in UNITS:
        one = large if large in ("dozen",) else large.removesuffix("s")
        rows = []
        for n in range(1, 13):
            name = one if n == 1 else large
            rows.append({"n": str(n), "large": name, "small": small, "total": str(n * factor)})
        yield (
            {
                "category": "units",
                "weight": 1,
                "questions": "How many {small} are in {n} {large}?\n"
                "How many {small} are {n} {large}?\nHow many {small} is {n} {large}?\n"
                "How many {small} are there in {n} {large}?\nHow many {small} make {n} {large}?\n"
                "What number of {small} do {n} {large} have?\n"
                "Convert {n} {large} to {small}.\n{n} {large} are how many {small}?\n"
                "{n} {large}, how many {small}?\nConvert {n} {large} into {small}.\n"
                "What is {n} {large} in {small}?\nExpress {n} {large} in {small}.\n"
                "{n} {large} in {small}\n{n} {large} to {small}?",
                "follow": "And {n} {large}?\nAnd in {n} {large}?",
                "answer": "{n} {large} make {total} {small}."
                if large != "dozen"
                else "{n} dozen are {total} pieces.",
                "brief": "{total} {small}.",
            },
            rows,
        )


def number_asks() -> Iterator[Ask]:
    """All that is computed here."""
    yield from sums()
    yield from counting()
    yield from units()
