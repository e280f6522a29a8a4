"""How fast an award's answer came, by the payer's clock. Pure."""

from dataclasses import dataclass
from typing import Final

from router.auction import NS_MILLI_TOKENS

# Fewer tokens behind the first chunk say nothing about speed.
_TOKENS_MIN: Final = 8


@dataclass(slots=True)
class Pace:
    """When an award went out, and its first and last chunks came; times in ns, 0 for not yet."""

    awarded_at_ns: int = 0
    first_at_ns: int = 0
    first_tokens: int = 0
    last_at_ns: int = 0
    last_tokens: int = 0

    def saw(self, output_tokens: int, now_ns: int) -> None:
        """A chunk came, with so many tokens in all."""
        if not self.first_at_ns:
            self.first_at_ns, self.first_tokens = now_ns, output_tokens
        self.last_at_ns, self.last_tokens = now_ns, output_tokens

    @property
    def ttft_ns(self) -> int:
        """From award to first chunk; 0 when none came."""
        return max(1, self.first_at_ns - self.awarded_at_ns) if self.first_at_ns else 0

    @property
    def tokens_per_s_milli(self) -> int:
        """From the first chunk to the last; 0 when there were too few tokens to tell."""
        tokens, took_ns = self.last_tokens - self.first_tokens, self.last_at_ns - self.first_at_ns
        if tokens < _TOKENS_MIN or took_ns <= 0:
            return 0
        return tokens * NS_MILLI_TOKENS // took_ns
