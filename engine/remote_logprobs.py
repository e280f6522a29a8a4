"""Log-probabilities as OpenAI-compatible servers stream them, in the form of the engine's own.

Pure. Chat answers name each token with its bytes; the older text answers have columns, and
tokens as text only. Source: OpenAI API reference, "Chat completions" and "Completions".
Rule: engine/README.md, "Remote".
"""

from typing import Annotated

import msgspec

from protocol import limits
from protocol.fields import TokenChance, TokenLogprob

MICRO = 1_000_000


class Chance(msgspec.Struct):
    """A token; `bytes` where its text is not whole characters."""

    token: str = ""
    logprob: float | None = None
    bytes: list[Annotated[int, msgspec.Meta(ge=0, le=255)]] | None = None


class Scored(Chance):
    """A token that came, with those in its place."""

    top_logprobs: list[Chance] | None = None


class Logprobs(msgspec.Struct):
    """Either form: `content` of a chat's chunk, or a text's columns."""

    content: list[Scored] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


def read_logprobs(said: Logprobs, alternatives: int) -> tuple[TokenLogprob, ...]:
    """The tokens of one chunk that have a number, each with at most `alternatives`."""
    return tuple(
        TokenLogprob(
            _chance(scored),
            tuple(_chance(each) for each in scored.top_logprobs or () if _is_told(each))[
                :alternatives
            ],
        )
        for scored in said.content or _rows(said)
        if _is_told(scored)
    )


def _rows(said: Logprobs) -> list[Scored]:
    """A text's columns as chat tokens; what the shorter column lacks is left out."""
    tops = said.top_logprobs or [None] * len(said.tokens or ())
    return [
        Scored(token, logprob, None, _best(top or {}))
        for token, logprob, top in zip(
            said.tokens or (), said.token_logprobs or (), tops, strict=False
        )
    ]


def _best(top: dict[str, float]) -> list[Chance]:
    ranked = sorted(top.items(), key=lambda item: -item[1])
    return [Chance(token, logprob) for token, logprob in ranked]


def _is_told(chance: Chance) -> bool:
    return chance.logprob is not None


def _chance(chance: Chance) -> TokenChance:
    assert chance.logprob is not None
    piece = bytes(chance.bytes) if chance.bytes else chance.token.encode("utf-8", "replace")
    micro = min(0.0, max(chance.logprob * MICRO, float(limits.LOGPROB_MICRO_MIN)))
    return TokenChance(piece[: limits.TOKEN_BYTES_MAX], round(micro))
