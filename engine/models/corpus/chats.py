"""Chats made of facts: turns, follow-ups, system prompts, and the ways in which people type.

Everything comes from the seed. Must not know tokens or training. Rule: engine/models/README.md.
"""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from engine.models.corpus.facts import Fact, facts, lines, load
from engine.models.corpus.spelling import SPELLED

# How often each kind of question comes, relative to the others.
SHARES = {
    "capitals": 18,
    "countries": 12,
    "arithmetic": 18,
    "counting": 8,
    "units": 8,
    "spelling": 10,
    "glossary": 15,
    "explanations": 8,
    "opposites": 4,
    "calendar": 6,
    "colours": 2,
    "animals": 5,
    "things": 4,
    "grammar": 4,
    "facts": 3,
    "talk": 12,
    "refusals": 22,
    "names": 2,
    "repeats": 2,
}
TURNS = (1, 2, 3, 4, 6, 10)
TURN_SHARES = (50, 22, 14, 8, 4, 2)
FOLLOW_SHARE = 0.4
SYSTEM_SHARE = 0.3
BRIEF_SHARE = 0.06

VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat that ends with the assistant's turn: (role, text) in order."""

    turns: tuple[tuple[str, str], ...]


@cache
def by_category() -> dict[str, tuple[list[Fact], list[float]]]:
    """The facts of each category with their weights."""
    found: dict[str, tuple[list[Fact], list[float]]] = {}
    for fact in facts():
        known, weights = found.setdefault(fact.category, ([], []))
        known.append(fact)
        weights.append(fact.weight)
    return found


@cache
def by_group() -> dict[int, list[Fact]]:
    """The facts that can be reached by a follow-up question from one another."""
    found = defaultdict(list)
    for fact in facts():
        if fact.follows:
            found[fact.group].append(fact)
    return found


@cache
def phrases() -> dict[str, list[str]]:
    """What chats are put together from, by name."""
    return load("phrases.toml")


def phrase(rng: random.Random, name: str) -> str:
    """One of the phrases of a name."""
    return rng.choice(phrases()[name])


def invented(rng: random.Random) -> str:
    """A name that nothing has."""
    parts = (phrase(rng, "onsets") + rng.choice(VOWELS) for _ in range(rng.randint(1, 3)))
    return "".join(parts) + phrase(rng, "endings")


def refusal(rng: random.Random) -> tuple[str, str]:
    """A question that so small a model can't answer, and its saying so."""
    questions, answers = load_refusals()
    question, answer = questions[rng.randrange(len(questions))]
    values = {name: rng.choice(pieces) for name, pieces in refusal_pieces().items()}
    nonsense = invented(rng)
    values["nonsense"] = nonsense.capitalize() if rng.random() < 0.6 else nonsense
    while "{big}" in question:
        question = question.replace("{big}", str(rng.randint(21, rng.choice((99, 99_999)))), 1)
    return question.format_map(values), answers[answer]


@cache
def load_refusals() -> tuple[list[tuple[str, int]], list[str]]:
    """Templates of questions with the number of their answer, and the answers."""
    book = load("refusals.toml")
    asks = [(line, ask["answer"]) for ask in book["ask"] for line in lines(ask["questions"])]
    return asks, book["answers"]


@cache
def refusal_pieces() -> dict[str, tuple[str, ...]]:
    """What the templates of refused questions are filled with."""
    return {name: lines(text) for name, text in load("refusals.toml")["pieces"].items()}


def reworded(question: str, rng: random.Random) -> str:
    """Another way to ask, made from the question's own words."""
    match = re.fullmatch(r"(What|Which|Who) (is|are) (.+)\?", question)
    if match is None:
        return question
    word, verb, rest = match.groups()
    if word == "What" and rest.startswith("the ") and rng.random() < 0.5:
        return phrase(rng, "the_forms").format(rest)
    return phrase(rng, "clause_forms").format(f"{word.lower()} {rest} {verb}")


def typed(question: str, rng: random.Random) -> str:
    """The question as somebody types it: lower case, no question mark, a greeting, a slip."""
    if rng.random() < 0.2:
        question = reworded(question, rng)
    if rng.random() < 0.3:
        question = re.sub(r"\bthe (?=[UNCP])", "", question)
    if rng.random() < 0.12:
        question = phrase(rng, "openings") + question[:1].lower() + question[1:]
    elif rng.random() < 0.1:
        question = phrase(rng, "openings") + question
    if rng.random() < 0.3:
        question = question.lower()
    elif rng.random() < 0.03:
        question = question.upper()
    chance = rng.random()
    if chance < 0.3:
        question = question.rstrip("?.!")
    elif chance < 0.36:
        question = question.rstrip("?.!") + rng.choice(("??", " ?", "!", "...", "?!", "."))
    elif chance < 0.42:
        question += phrase(rng, "closings")
    if rng.random() < 0.03 and len(question) > 8:
        spot = rng.randrange(1, len(question) - 1)
        # A slip in a digit would be another question.
        if not any(map(str.isdigit, question[spot - 1 : spot + 2])):
            question = question[:spot] + question[spot + 1 :]
    return question


def named(rng: random.Random) -> list[tuple[str, str]]:
    """The user's name, told and asked for, or only asked for."""
    name = phrase(rng, "names")
    asked = phrase(rng, "asked")
    if rng.random() < 0.3:
        return [(asked, "You have not told me your name.")]
    greeting = f"Nice to meet you, {name}! What would you like to know?"
    told = (phrase(rng, "told").format(name), greeting)
    if rng.random() < 0.3:
        return [told]
    between = [one_fact(rng, pick_category(rng))[:2]] if rng.random() < 0.5 else []
    return [told, *between, (asked, f"Your name is {name}.")]


def repeated(rng: random.Random) -> tuple[str, str]:
    """Some words to say again."""
    words = " ".join(rng.choice(SPELLED) for _ in range(rng.randint(1, 5)))
    return phrase(rng, "repeats").format(words), words


def pick_category(rng: random.Random) -> str:
    """A category of the tables, by its share."""
    known = [name for name in SHARES if name in by_category()]
    return rng.choices(known, [SHARES[name] for name in known])[0]


def one_fact(rng: random.Random, category: str) -> tuple[str, str, Fact]:
    """Question, answer and fact of a category."""
    known, weights = by_category()[category]
    fact = rng.choices(known, weights)[0]
    return rng.choice(fact.questions), fact.answer, fact


def exchanges(rng: random.Random, count: int, brief: bool) -> list[tuple[str, str]]:
    """About `count` questions with their answers; some follow from the one before."""
    found: list[tuple[str, str]] = []
    last: Fact | None = None
    while len(found) < count:
        if last is not None and last.follows and rng.random() < FOLLOW_SHARE:
            last = rng.choice(by_group()[last.group])
            found.append((rng.choice(last.follows), last.brief if brief else last.answer))
            continue
        category = rng.choices(list(SHARES), list(SHARES.values()))[0]
        last = None
        if category == "refusals":
            found.append(refusal(rng))
        elif category == "names":
            found += named(rng)
        elif category == "repeats":
            found.append(repeated(rng))
        else:
            question, _, last = one_fact(rng, category)
            found.append((question, last.brief if brief else last.answer))
    return found


def conversations(seed: int) -> Iterator[Conversation]:
    """Chats without end, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        chance = rng.random()
        brief = chance < BRIEF_SHARE
        turns: list[tuple[str, str]] = []
        if brief:
            turns.append(("system", phrase(rng, "brief_systems")))
        elif chance < BRIEF_SHARE + SYSTEM_SHARE:
            turns.append(("system", phrase(rng, "system_heads") + phrase(rng, "system_tails")))
        for question, answer in exchanges(rng, rng.choices(TURNS, TURN_SHARES)[0], brief):
            turns += [("user", typed(question, rng)), ("assistant", answer)]
        yield Conversation(tuple(turns))


def raw_texts(seed: int) -> Iterator[str]:
    """Plain text without end, for completions: answers in a row, in pieces of 1,200 letters."""
    rng = random.Random(seed)
    while True:
        answers = [one_fact(rng, pick_category(rng))[1] for _ in range(40)]
        yield " ".join(answers)[:1200]


def digest(count: int = 2000, seed: int = 1) -> str:
    """A fingerprint of the corpus: SHA-256 of its first chats and texts, hexadecimal."""
    mixed = hashlib.sha256()
    for chat in islice(conversations(seed), count):
        mixed.update(repr(chat.turns).encode())
    for text in islice(raw_texts(seed), count // 20):
        mixed.update(text.encode())
    return mixed.hexdigest()
