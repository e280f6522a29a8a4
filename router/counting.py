"""How many tokens a provider counts for a text, against what others count for as much of it.

A requester has no tokenizer of the model, but it has the bytes: all providers of one model make
about as many tokens of them. Integers; pure. Rule: router/README.md, "Counts".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import limits

MILLI: Final = 1_000
# What is beyond this is not counted as others do: texts differ more than tokenizers' versions.
TOLERATED_MILLI: Final = 1_200
FACTOR_MILLI_MAX: Final = 8_000
# One text says this much at most, however long: texts of one kind and language are alike.
TEXT_BYTES_COUNTED: Final = 1_024
# Evidence that is taken as given, as others count: a few odd texts prove nothing.
PRIOR_BYTES: Final = 4 * 1_024
# Who has this much has a say in what is usual, and of so many at least the median is taken.
ENOUGH_BYTES: Final = 4 * 1_024
PROVIDERS_MIN: Final = 3
# With so many, two that lie are no majority of the lower median: then nobody is tried for it.
PROVIDERS_WANTED: Final = 4
# What is beyond this pushes out what was before.
BYTES_KEPT: Final = 64 * 1_024
# A template's own text around a prompt, as so many bytes of it.
PROMPT_EXTRA_BYTES: Final = 128


@dataclass(slots=True)
class Counted:
    """Tokens that were billed, in 1/1000, for so many bytes of text."""

    tokens_milli: int = 0
    text_bytes: int = 0

    def add(self, tokens: int, text_bytes: int) -> None:
        """One more text; one without tokens, or tokens without text, say nothing here."""
        if not tokens or not text_bytes:
            return
        counted = min(text_bytes, TEXT_BYTES_COUNTED)
        self.tokens_milli += tokens * MILLI * counted // text_bytes
        self.text_bytes += counted
        if self.text_bytes > BYTES_KEPT:
            self.tokens_milli = self.tokens_milli * BYTES_KEPT // self.text_bytes
            self.text_bytes = BYTES_KEPT

    def factor_milli(self, usual_milli: int) -> int:
        """How many times `usual_milli` tokens a KiB were counted, in 1/1000: 1000 while that is
        within what is tolerated, or not known."""
        if not usual_milli or not self.text_bytes:
            return MILLI
        prior_milli = usual_milli * PRIOR_BYTES
        expected_milli = prior_milli + usual_milli * self.text_bytes
        factor = (prior_milli + self.tokens_milli * 1_024) * MILLI // expected_milli
        return min(FACTOR_MILLI_MAX, factor) if factor > TOLERATED_MILLI else MILLI


def usual_milli(counts: Sequence[Counted]) -> int:
    """Tokens a KiB of text, in 1/1000: the lower median of those that have enough text; 0 where
    too few have. A minority that counts otherwise does not move it past the others."""
    ratios = sorted(
        counted.tokens_milli * 1_024 // counted.text_bytes
        for counted in counts
        if counted.text_bytes >= ENOUGH_BYTES
    )
    return ratios[(len(ratios) - 1) // 2] if len(ratios) >= PROVIDERS_MIN else 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Of tokens read and of tokens made: a provider's factors, in 1/1000, 1000 being as others
    count; or what is usual, in 1/1000 of a token a KiB, 0 being unknown."""

    input_milli: int = MILLI
    output_milli: int = MILLI


AS_OTHERS: Final = Counts()
UNKNOWN: Final = Counts(0, 0)


def output_tokens_most(text_bytes: int, stop: Sequence[str]) -> int:
    """More tokens than a text of so many bytes can have been.

    A token is a byte of text at least. Some have none: those that end a turn or are never shown,
    the bytes of a character that is not whole yet, and what may become a stop string or was one.
    """
    hidden = max((len(text.encode()) for text in stop), default=0)
    return text_bytes + hidden + limits.EMPTY_TOKENS_MAX


def input_tokens_most(text_bytes: int, messages: int) -> int:
    """More tokens than a prompt can have: a token is a byte of it at least, or the template's,
    which may say much on its own."""
    own = limits.PROMPT_EXTRA_TOKENS_MAX + limits.MESSAGE_EXTRA_TOKENS_MAX * messages
    return text_bytes + own
