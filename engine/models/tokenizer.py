"""Byte-level BPE as llama.cpp's "gpt2" tokeniser with the "gpt-2" pre-tokeniser does it.

Learnt from text; digits are never merged, so a number is its digits. A test holds `encode` to
llama.cpp's own tokens. Must not know models or training. Rule: engine/models/README.md.
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")

# How GPT-2 cuts text into words before it merges, for ASCII; see `words`.
WORD = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | frozenset(
    map(chr, range(0x2000, 0x200B))
)


@cache
def stand_in(character: str) -> str:
    """An ASCII character of the same kind: letter, number, space or other."""
    if character in SPACES:
        return character if character in " \t\n\v\f\r" else "\t"
    if character.isascii():
        # \x1c to \x1f are spaces to Python and to nobody else.
        return character if character.isprintable() else "!"
    return {"L": "z", "N": "0"}.get(unicodedata.category(character)[0], "!")


def words(text: str) -> list[str]:
    """The text cut where no merge may reach across; joined, it is the text again."""
    shadow = "".join(map(stand_in, text))
    return [text[match.start() : match.end()] for match in WORD.finditer(shadow)]


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in the order of the bytes."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


def merge(parts: list[str], left: str, right: str) -> list[str]:
    """The symbols with each adjacent (left, right) made one."""
    merged: list[str] = []
    for symbol in parts:
        # What was just merged is longer than `left`, so it is never merged twice in a pass.
        if merged and merged[-1] == left and symbol == right:
            merged[-1] = left + right
        else:
            merged.append(symbol)
    return merged


class Tokenizer:
    """Texts to token numbers: the 256 bytes, then the merges in their order, then control."""

    def __init__(self, merges: list[tuple[str, str]]) -> None:
        self.merges = merges
        symbols = byte_symbols()
        self._bytes = symbols
        self.vocabulary = [*symbols, *(left + right for left, right in merges), *CONTROL_TOKENS]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._numbers = {symbol: number for number, symbol in enumerate(self.vocabulary)}
        self._known: dict[str, list[int]] = {}
        self.end_of_text, self.turn, self.end, self.pad = (
            self._numbers[name] for name in CONTROL_TOKENS
        )

    def _encode_word(self, word: str) -> list[int]:
        parts = [self._bytes[byte] for byte in word.encode("utf-8")]
        while len(parts) > 1:
            ranked = [(self._ranks.get(pair, len(self._ranks)), pair) for pair in pairwise(parts)]
            rank, (left, right) = min(ranked)
            if rank == len(self._ranks):
                break
            parts = merge(parts, left, right)
        return [self._numbers[part] for part in parts]

    def encode(self, text: str) -> list[int]:
        """The tokens of plain text; nothing in it becomes a control token."""
        found: list[int] = []
        for word in words(text):
            if word not in self._known:
                self._known[word] = self._encode_word(word)
            found += self._known[word]
        return found

    def chat(self, turns: tuple[tuple[str, str], ...]) -> tuple[list[int], list[bool]]:
        """A chat as the template writes it, and which of its tokens the assistant says.

        What the assistant says ends with the end token; the newline after it is not said.
        """
        tokens: list[int] = []
        said: list[bool] = []
        newline = self.encode("\n")
        for role, text in turns:
            head = [self.turn, *self.encode(f"{role}\n")]
            body = [*self.encode(f"{role}\n{text}")[len(head) - 1 :], self.end]
            tokens += head + body + newline
            assistant = role == "assistant"
            said += [False] * len(head) + [assistant] * len(body) + [False] * len(newline)
        return tokens, said


def learn(counts: Counter[str], size: int) -> Tokenizer:
    """A vocabulary of `size` tokens, control tokens included, from words and their counts."""
    symbols = byte_symbols()
    digits = frozenset("0123456789")
    parts = {word: [symbols[byte] for byte in word.encode("utf-8")] for word in counts}
    merges: list[tuple[str, str]] = []
    while len(merges) < size - len(symbols) - len(CONTROL_TOKENS):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(parts[word]):
                pairs[pair] += count
        candidates = (pair for pair in pairs if not digits & {*pair[0], *pair[1]})
        left, right = min(candidates, key=lambda pair: (-pairs[pair], pair))
        merges.append((left, right))
        parts = {
            word: merge(held, left, right) if left in held else held
            for word, held in parts.items()
        }
    return Tokenizer(merges)
