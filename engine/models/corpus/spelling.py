"""Short words letter by letter, forwards and backwards, and their first and last letters.

Must not know chats or chance. Rule: engine/models/README.md.
"""

from collections.abc import Iterator

from engine.models.corpus.numbers import Ask

_WORDS = """
cat dog cow pig hen fox bee ant owl bat sun moon star sky sea rain snow ice fire wind tree
leaf rose book pen door key lamp bed cup fork milk bread egg soup fish apple pear plum lemon
house home room wall roof road car bus train ship boat bike ball game toy king queen hand foot
arm leg eye ear nose mouth hair red blue green black white pink brown grey one two three four
five six ten day week month year time peer bid lane log chunk token model voucher market hello
water light music world river stone cloud horse mouse tiger sheep goat duck frog bird word
name love good bad hot cold big small
"""
SPELLED = tuple(_WORDS.split())


def spelling_asks() -> Iterator[Ask]:
    """All that is computed here."""
    rows = [
        {
            "word": word,
            "letters": "-".join(word.upper()),
            "back": "-".join(reversed(word.upper())),
            "drow": word[::-1],
            "first": word[0].upper(),
            "last": word[-1].upper(),
            "count": str(len(word)),
        }
        for word in SPELLED
    ]
    yield (
        {
            "category": "spelling",
            "weight": 4,
            "questions": "How do you spell {word}?\nSpell {word}.\nSpell the word {word}.\n"
            "How is {word} spelled?\nCan you spell {word}?\nHow do I spell {word}?\n"
            "Tell me the spelling of {word}.\n"
            "How is the word {word} spelled?\nPlease spell {word}.\n"
            "spell {word} for me\nWhat are the letters of {word}?",
            "follow": "And {word}?\nNow {word}.",
            "answer": "The word {word} is spelled {letters}.",
            "brief": "{letters}.",
        },
        rows,
    )
    yield (
        {
            "category": "spelling",
            "weight": 3,
            "questions": "Spell {word} backwards.\nReverse the word {word}.\nReverse {word}.\n"
            "What is {word} backwards?\nWhat is {word} spelled backwards?\n"
            "Write {word} backwards.\n{word} backwards?",
            "follow": "And {word}?\nNow {word}.",
            "answer": "Backwards, {word} is {back}, so {drow}.",
            "brief": "{drow}.",
        },
        rows,
    )
    for place in ("first", "last"):
        yield (
            {
                "category": "spelling",
                "weight": 1,
                "questions": f"What is the {place} letter of {{word}}?\n"
                f"Which letter is the {place} of {{word}}?\n{place} letter of {{word}}",
                "follow": "And of {word}?",
                "answer": f"The {place} letter of {{word}} is {{{place}}}.",
                "brief": f"{{{place}}}.",
            },
            rows,
        )
    yield (
        {
            "category": "spelling",
            "weight": 1,
            "questions": "How many letters does {word} have?\nHow many letters are in {word}?\n"
            "How long is the word {word}?",
            "follow": "And {word}?",
            "answer": "The word {word} has {count} letters.",
            "brief": "{count}.",
        },
        rows,
    )
