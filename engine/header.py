"""The header of a GGUF file: its fields and its list of tensors, read with bounds.

Read, not mapped: a file that is cut while a process has it mapped kills that process. Arrays
are stepped over; only short ones, and the vocabulary, are kept. Knows nothing of models.
Source: the GGUF specification, versions 2 and 3, little-endian. Rule: engine/README.md.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from protocol import limits

Scalar = int | float | bool | bytes
Value = Scalar | list[Scalar]

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DIMENSIONS_MAX: Final = 4
DEFAULT_ALIGNMENT: Final = 32
# The one long array that is looked into.
VOCABULARY: Final = "tokenizer.ggml.tokens"
CHUNK_BYTES: Final = 1024 * 1024

_SCALARS: Final = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_FORMATS: Final = {kind: struct.Struct(f"<{code}") for kind, code in _SCALARS.items()}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it; `end` is where its data ends in the file."""

    name: bytes
    kind: GGMLQuantizationType
    size_bytes: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says. Long arrays other than the vocabulary are missing from `fields`."""

    fields: Mapping[str, Value]
    tensors: tuple[Tensor, ...]


def read_header(path: Path) -> Header:
    """The header of the file at `path`. OSError; ValueError for what is no whole GGUF."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _read(_Stream(file, size), size)


class _Stream:
    """The file's bytes from the beginning, in order, as far as a header may go."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size
        self._bytes = b""
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._before + self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self._at + count > len(self._bytes):
            self._fill(count)
        start, self._at = self._at, self._at + count
        return self._bytes[start : self._at]

    def _fill(self, count: int) -> None:
        rest = self._bytes[self._at :]
        if count - len(rest) > self._left:
            raise ValueError("the file is truncated")
        if self.position + count > limits.GGUF_HEADER_BYTES_MAX:
            raise ValueError("the header is too long")
        more = self._file.read(min(self._left, max(CHUNK_BYTES, count - len(rest))))
        self._left -= len(more)
        self._before, self._at, self._bytes = self.position, 0, rest + more
        if len(self._bytes) < count:
            raise ValueError("the file is truncated")

    def scalar(self, kind: GGUFValueType) -> int | float | bool:
        """One number."""
        form = _FORMATS[kind]
        found: int | float | bool = form.unpack(self.take(form.size))[0]
        return found

    def number(self, form: struct.Struct) -> int:
        """One unsigned integer."""
        return int(form.unpack(self.take(form.size))[0])

    def text(self) -> bytes:
        """A length and as many bytes."""
        return self.take(self.number(_U64))


_U32: Final = _FORMATS[GGUFValueType.UINT32]
_U64: Final = _FORMATS[GGUFValueType.UINT64]


def _read(stream: _Stream, size: int) -> Header:
    if stream.take(len(MAGIC)) != MAGIC:
        raise ValueError("the magic is not GGUF")
    version = stream.number(_U32)
    if version not in VERSIONS:
        raise ValueError(f"GGUF version {version} is not supported")
    tensor_count, field_count = stream.number(_U64), stream.number(_U64)
    if field_count > limits.GGUF_FIELDS_MAX:
        raise ValueError("the header has too many fields")
    if not 0 < tensor_count <= limits.GGUF_TENSORS_MAX:
        raise ValueError("the header has no tensors or too many")
    fields: dict[str, Value] = {}
    seen: set[str] = set()
    for _ in range(field_count):
        key = stream.text().decode("utf-8")
        if key in seen:
            raise ValueError("a key occurs twice")
        seen.add(key)
        value = _value(stream, key)
        if value is not None:
            fields[key] = value
    shapes = [_shape(stream) for _ in range(tensor_count)]
    if len({name for name, *_ in shapes}) != len(shapes):
        raise ValueError("a tensor occurs twice")
    alignment = fields.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError("the alignment is not a power of two")
    begin = -(-stream.position // alignment) * alignment
    tensors = tuple(
        Tensor(name, kind, count, begin + offset + count) for name, kind, count, offset in shapes
    )
    if max(tensor.end for tensor in tensors) > size:
        raise ValueError("the file is truncated")
    return Header(fields, tensors)


def _value(stream: _Stream, key: str) -> Value | None:
    """A field's value; None for an array that is not kept."""
    kind = GGUFValueType(stream.number(_U32))
    if kind == GGUFValueType.STRING:
        return stream.text()
    if kind != GGUFValueType.ARRAY:
        return stream.scalar(kind)
    item, count = GGUFValueType(stream.number(_U32)), stream.number(_U64)
    if item == GGUFValueType.ARRAY:
        raise ValueError("an array of arrays")
    if count > limits.GGUF_ARRAY_ITEMS_MAX:
        raise ValueError("the header has too many items")
    if item == GGUFValueType.STRING:
        keeps = key == VOCABULARY
        texts: list[Scalar] = []
        for _ in range(count):
            text = stream.text()
            if keeps:
                texts.append(text)
        return texts if keeps else None
    raw = stream.take(_FORMATS[item].size * count)
    if count > limits.GGUF_BLOCKS_MAX:
        return None
    return list(struct.unpack(f"<{count}{_SCALARS[item]}", raw))


def _shape(stream: _Stream) -> tuple[bytes, GGMLQuantizationType, int, int]:
    """A tensor's name, type, size in bytes and offset in the data."""
    name = stream.text()
    count = stream.number(_U32)
    if count > DIMENSIONS_MAX:
        raise ValueError("a tensor has too many dimensions")
    dimensions = [stream.number(_U64) for _ in range(count)]
    kind = GGMLQuantizationType(stream.number(_U32))
    block, block_bytes = GGML_QUANT_SIZES[kind]
    size_bytes = math.prod(dimensions) * block_bytes // block
    return name, kind, size_bytes, stream.number(_U64)
