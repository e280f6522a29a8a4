"""A chat's turns on the client, pruned to what the model can read. Pure.

How long a text is in the model's tokens only a provider knows: it is estimated from the last
receipt, and generously before there is one.
"""

from dataclasses import dataclass, field

from peer.client.answer import Answer
from protocol import limits

# Before any receipt: two bytes a token, as the market's first voucher has it.
_MILLITOKENS_PER_BYTE = 500
_TOKENS_PER_TURN = 8
# Turns differ: a tenth more than the last one measured.
_MARGIN_PERCENT = 110


@dataclass(slots=True)
class Conversation:
    """Turns of (role, content), the system's first; `context_tokens` 0 is not known."""

    system: str = ""
    context_tokens: int = 0
    turns: list[tuple[str, str]] = field(default_factory=list)
    pruned_turns: int = 0
    _millitokens_per_byte: int = _MILLITOKENS_PER_BYTE

    def prompt(self, question: str, max_tokens: int) -> list[dict[str, str]]:
        """The turns to send with a question; the oldest are forgotten where there is no room."""
        while self.turns and not self._fits(question, max_tokens):
            self.forget()
        return [{"role": role, "content": content} for role, content in self._all(question)]

    def forget(self) -> bool:
        """Drop the oldest question and its answer; False when there is none."""
        dropped = self.turns[:2]
        del self.turns[:2]
        self.pruned_turns += len(dropped)
        return bool(dropped)

    def add(self, question: str, answer: Answer) -> None:
        """Keep a question and its answer, and learn from the receipt how long texts are."""
        sent = _bytes(self._all(question))
        if answer.receipt is not None and sent:
            measured = answer.receipt["input_tokens"] * 1_000 // sent
            self._millitokens_per_byte = max(1, measured * _MARGIN_PERCENT // 100)
        self.turns += [("user", question), ("assistant", answer.text)]

    def clear(self) -> None:
        """Begin anew, with the same system message."""
        self.turns.clear()
        self.pruned_turns = 0

    def _all(self, question: str) -> list[tuple[str, str]]:
        first = [("system", self.system)] if self.system else []
        return [*first, *self.turns, ("user", question)]

    def _fits(self, question: str, max_tokens: int) -> bool:
        turns = self._all(question)
        if len(turns) > limits.CHAT_MESSAGES_MAX or _bytes(turns) > limits.PROMPT_BYTES_MAX // 2:
            return False
        if not self.context_tokens:
            return True
        tokens = _bytes(turns) * self._millitokens_per_byte // 1_000
        return tokens + _TOKENS_PER_TURN * len(turns) + max_tokens < self.context_tokens


def _bytes(turns: list[tuple[str, str]]) -> int:
    return sum(len(content.encode("utf-8", "replace")) for _, content in turns)
