"""The vocabulary of a loaded model: texts in, token numbers out, and back.

Lengths are checked, as the library trusts them. Must not know contexts or jobs.
Rule: engine/README.md.
"""

import ctypes
from typing import Any

import llama_cpp

from protocol.errors import EngineError

_short_calls = ctypes.PyDLL(llama_cpp.llama_cpp._lib._name)


def short_call(name: str) -> Any:
    """A function of the library that keeps the GIL while it runs."""
    typed = getattr(llama_cpp, name)
    function = getattr(_short_calls, name)
    function.argtypes, function.restype = typed.argtypes, typed.restype
    return function


_tokenize = short_call("llama_tokenize")
_token_to_piece = short_call("llama_token_to_piece")


class Vocabulary:
    """The tokeniser of a model; texts in, token numbers out, and back."""

    def __init__(self, model: Any) -> None:
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._buffer = ctypes.create_string_buffer(1024)
        numbers = range(self.size)
        self.pieces = [self._piece(token) for token in numbers]
        self.longest_piece_bytes = max(map(len, self.pieces), default=1) or 1
        self.end_tokens = frozenset(
            token for token in numbers if llama_cpp.llama_vocab_is_eog(self._vocab, token)
        )
        control = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        self.control_tokens = {
            self.name(token): token
            for token in numbers
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & control
        }
        self.control_tokens.pop("", None)
        bos = int(llama_cpp.llama_vocab_bos(self._vocab))
        self.begin_token = bos if bos >= 0 else None
        self.begins_texts = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))
        self.begin_text = self.name(bos)
        eos = int(llama_cpp.llama_vocab_eos(self._vocab))
        self.ends_texts = bool(llama_cpp.llama_vocab_get_add_eos(self._vocab)) and eos >= 0
        self.end_token = eos
        self.end_text = self.name(eos)

    def name(self, token: int) -> str:
        """A token as the vocabulary writes it; "" for a number that is none."""
        if not 0 <= token < self.size:
            return ""
        raw = llama_cpp.llama_vocab_get_text(self._vocab, token) or b""
        return str(raw.decode("utf-8", "replace"))

    def _piece(self, token: int) -> bytes:
        length = _token_to_piece(self._vocab, token, self._buffer, 1024, 0, False)
        return self._buffer.raw[: max(0, length)]

    def tokenize(self, text: str) -> list[int]:
        """The tokens of plain text: nothing in it becomes a control token."""
        raw = text.encode("utf-8")
        if not raw:
            return []
        room = len(raw) + 16
        for _ in range(2):
            tokens = (llama_cpp.llama_token * room)()
            count = _tokenize(self._vocab, raw, len(raw), tokens, room, False, False)
            if count >= 0:
                return list(tokens[:count])
            room = -count  # the buffer was too short, and this is what it needs
        raise EngineError("engine.bad_spec", "the text can't be made into tokens")
