"""Reads what a GGUF file says of itself, without loading the model.

Knows nothing of llama.cpp or processes. Every failure is EngineError `engine.bad_model`.
It refuses what makes llama.cpp abort: duplicate tokens, no or too many layers, a meaningless
epsilon. Rule: engine/README.md.
"""

import hashlib
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf

from engine.header import VOCABULARY, Header, Scalar, Value, read_header
from engine.interface import ModelInfo
from protocol import limits
from protocol.errors import EngineError

POOLING_RANK = 4
# What changes when a file does: device, inode, size in bytes, time of change in ns.
Fingerprint = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A file to serve, under `name` or, when that is "", the name that its header gives.

    One that is `required` and can't be served is an error; another one is a warning.
    """

    path: Path
    name: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A usable GGUF: what it offers, and whether it brings a chat template.

    `info.context_tokens` is the length that the model was trained for. `kv_token_bytes` is what
    attention remembers of one token in all `layers` (16-bit keys and values); `vocabulary` and
    `embedding` are the widths of the model's ends; `adapter_bytes` are loaded beside it.
    """

    path: Path
    info: ModelInfo
    has_chat_template: bool
    fingerprint: Fingerprint
    kv_token_bytes: int
    vocabulary: int
    embedding: int
    layers: int
    adapter_bytes: int = 0


def bad_model(path: Path, why: str) -> EngineError:
    """The error for a file that is no usable model: `<path>: why`, on one line."""
    return EngineError("engine.bad_model", f"{path}: {' '.join(why.split())[:160]}")


def fingerprint(path: Path) -> Fingerprint:
    """What changes when the file does. EngineError `engine.bad_model`."""
    try:
        status = path.stat()
    except OSError as error:
        raise bad_model(path, error.strerror or "unreadable") from None
    except ValueError:
        raise bad_model(path, "no name that a file can have") from None
    if not stat.S_ISREG(status.st_mode):
        raise bad_model(path, "not a regular file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def hash_file(path: Path, mark: Fingerprint) -> bytes:
    """SHA-256 of a file, which is read whole. OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_model(
    path: Path,
    *,
    name: str = "",
    digest: Callable[[Path, Fingerprint], bytes] = hash_file,
) -> ModelFile:
    """Check and describe the GGUF at `path`, under `name` or its own; hashed by `digest`.

    Blocking: call it from a thread. EngineError `engine.bad_model`.
    """
    mark = fingerprint(path)
    if mark[2] == 0:
        raise bad_model(path, "the file is empty")
    try:
        header = _Facts(read_header(path))
        header.check()
        info = ModelInfo(
            name=name or slug(header.text("general.name")) or slug(path.stem) or "model",
            digest=digest(path, mark),
            context_tokens=header.architecture_number("context_length"),
            quantization=header.quantization(),
            size_bytes=mark[2],
            embeds=header.embeds(),
        )
        sizes = (
            header.kv_token_bytes(),
            header.vocabulary(),
            header.embedding(),
            header.layers(),
        )
    except OSError as error:
        raise bad_model(path, error.strerror or "unreadable") from None
    # The reader is fed by whoever made the file: it fails in every way that parsing can.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise bad_model(path, _reason(error)) from None
    has_template = "tokenizer.chat_template" in header.fields
    return ModelFile(path, info, has_template, mark, *sizes)


class _Facts:
    """What a model's header says, and whether llama.cpp survives it."""

    def __init__(self, header: Header) -> None:
        self.fields = header.fields
        self.tensors = header.tensors

    def value(self, key: str) -> Value | None:
        """The value of a field, or None."""
        return self.fields.get(key)

    def text(self, key: str) -> str:
        """The value of a text field; "" when it is absent or something else."""
        value = self.value(key)
        return value.decode("utf-8") if isinstance(value, bytes) else ""

    def architecture_number(self, key: str) -> int:
        """A whole number >= 1 of the architecture's own fields, such as context_length."""
        value = self.value(f"{self.text('general.architecture')}.{key}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{key} is missing or not a positive number")
        return value

    def check(self) -> None:
        """ValueError for what llama.cpp does not survive."""
        architecture = self.text("general.architecture")
        if not architecture:
            raise ValueError("general.architecture is missing")
        if self.value("split.count") not in (None, 0, 1):
            raise ValueError("the model is split into several files; merge them first")
        if self.value(f"{architecture}.attention.causal") is False:
            raise ValueError("it is an encoder, which writes nothing; such models are not served")
        self.architecture_number("context_length")
        self.architecture_number("embedding_length")
        if self.architecture_number("block_count") > limits.GGUF_BLOCKS_MAX:
            raise ValueError("block_count is too large")
        epsilon = self.value(f"{architecture}.attention.layer_norm_rms_epsilon")
        if epsilon is not None and not (isinstance(epsilon, float) and 0 <= epsilon < 1):
            raise ValueError("layer_norm_rms_epsilon is not a small positive number")
        tokens = self._tokens()
        if len(set(tokens)) != len(tokens):
            raise ValueError("the vocabulary has duplicate tokens")

    def _tokens(self) -> list[Scalar]:
        tokens = self.value(VOCABULARY)
        if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], bytes):
            raise ValueError("the vocabulary is missing")
        return tokens

    def embeds(self) -> bool:
        """Whether each token of a text has a hidden state that vectors are made of.

        Not where states are kept instead of tokens, in halves that read and write, in rankers.
        """
        architecture = self.text("general.architecture")
        states = (f"{architecture}.ssm.conv_kernel", f"{architecture}.wkv.head_size")
        ranks = self.value(f"{architecture}.pooling_type") == POOLING_RANK
        return not (ranks or architecture.startswith("t5") or any(map(self.value, states)))

    def embedding(self) -> int:
        """The width of the hidden state."""
        return self.architecture_number("embedding_length")

    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._tokens())

    def layers(self) -> int:
        """How many layers there are."""
        return self.architecture_number("block_count")

    def kv_token_bytes(self) -> int:
        """Keys and values of one token in all layers, at 16 bits; from above where layers
        differ in kind."""
        layers = self.layers()
        heads = self._heads("attention.head_count", layers, [1] * layers)
        key_heads = self._heads("attention.head_count_kv", layers, heads)
        width = max(1, self.embedding() // max(1, *heads))
        total = 0
        for part in ("key_length", "value_length"):
            length = self.value(f"{self.text('general.architecture')}.attention.{part}")
            total += sum(key_heads) * (length if isinstance(length, int) else width)
        return min(2 * total, limits.GGUF_KV_TOKEN_BYTES_MAX)

    def _heads(self, key: str, layers: int, otherwise: list[int]) -> list[int]:
        """Heads of each layer: one number for all, or one for each."""
        value = self.value(f"{self.text('general.architecture')}.{key}")
        if value is None:
            return otherwise
        heads = [int(one) for one in value] if isinstance(value, list) else [int(value)] * layers
        if not heads or min(heads) < 0:
            raise ValueError(f"{key} is not a number of heads")
        return heads

    def quantization(self) -> str:
        """The name of general.file_type ("F16", "Q4_K_M", ...), or the largest tensor's."""
        number = self.value("general.file_type")
        try:
            name = gguf.LlamaFileType(number).name
        except ValueError:
            name = max(self.tensors, key=lambda tensor: tensor.size_bytes).kind.name
        return str(name).removeprefix("MOSTLY_").removeprefix("ALL_")


def slug(name: str) -> str:
    """Lower case letters, digits, dots, dashes and underscores: fit to be typed."""
    typed = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.")
    return typed[: limits.MODEL_NAME_CHARS_MAX]


def _reason(error: BaseException) -> str:
    if isinstance(error, UnicodeError):
        return "a text in the header is not UTF-8"
    if isinstance(error, ValueError) and error.args:
        return str(error.args[0])
    return f"broken header ({type(error).__name__})"
