"""A GGUF file taken apart, to be put together again with anything wrong in it.

Writes what it is told, lies about counts and lengths included; the reader under test is another.
"""

import os
import struct
import tempfile
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.models.gguf_writer import Shape, write_model
from engine.models.tokenizer import learn, words
from tests.engine.babbler import noise

STRING, ARRAY = 8, 9
FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
ALIGNMENT = 32
TINY_NAME = "tiny"
TINY = Shape(
    vocabulary=272,
    dimension=32,
    layers=1,
    heads=2,
    key_heads=1,
    feed_forward=32,
    context_tokens=256,
)


@dataclass
class Field:
    """A key and its value; `item` is the kind of an array's items, `count` its claimed length."""

    key: bytes
    kind: int
    value: Any
    item: int = 0
    count: int | None = None


@dataclass
class TensorInfo:
    """One entry of the list of tensors."""

    name: bytes
    dimensions: list[int]
    kind: int
    offset: int


@dataclass
class Parts:
    """A whole file. Counts that are not None are written instead of the true ones."""

    version: int
    fields: list[Field]
    tensors: list[TensorInfo]
    data: bytes
    field_count: int | None = None
    tensor_count: int | None = None
    magic: bytes = b"GGUF"
    order: str = "<"
    extra: bytes = field(default=b"")

    def named(self, key: str) -> Field:
        """The field of a key."""
        return next(one for one in self.fields if one.key == key.encode())

    def set(self, key: str, value: Any) -> "Parts":
        """Itself, with another value of a key."""
        self.named(key).value = value
        return self

    def without(self, key: str) -> "Parts":
        """Itself, without a key."""
        self.fields.remove(self.named(key))
        return self

    def to_bytes(self) -> bytes:
        """The file."""
        order = self.order
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        field_count = len(self.fields) if self.field_count is None else self.field_count
        out = [self.magic, _pack("I", self.version, order)]
        out += [_pack("Q", tensor_count, order), _pack("Q", field_count, order)]
        for one in self.fields:
            out += [_text(one.key, order), _pack("I", one.kind, order), _value(one, order)]
        for tensor in self.tensors:
            out += [_text(tensor.name, order), _pack("I", len(tensor.dimensions), order)]
            out += [_pack("Q", size, order) for size in tensor.dimensions]
            out += [_pack("I", tensor.kind, order), _pack("Q", tensor.offset, order)]
        header = b"".join(out) + self.extra
        return header + bytes(-len(header) % ALIGNMENT) + self.data


def _pack(form: str, value: Any, order: str) -> bytes:
    """A number as it should be, or the nearest nonsense that has its size."""
    try:
        return struct.pack(order + form, value)
    except (struct.error, OverflowError, TypeError):
        number = value if isinstance(value, int) else 0
        size = struct.calcsize(form)
        return (number % 2 ** (8 * size)).to_bytes(size, "little" if order == "<" else "big")


def _text(text: bytes, order: str) -> bytes:
    return _pack("Q", len(text), order) + text


def _plain(kind: int, value: Any, order: str) -> bytes:
    if kind == STRING:
        return _text(value if isinstance(value, bytes) else repr(value).encode(), order)
    if kind not in FORMATS:
        return b"????"
    return _pack(FORMATS[kind], value, order)


def _value(one: Field, order: str) -> bytes:
    if one.kind != ARRAY:
        return _plain(one.kind, one.value, order)
    items = one.value if isinstance(one.value, list) else [one.value]
    count = len(items) if one.count is None else one.count
    head = _pack("I", one.item, order) + _pack("Q", count, order)
    return head + b"".join(_plain(one.item, item, order) for item in items)


class _Cursor:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 4

    def number(self, form: str) -> Any:
        size = struct.calcsize(form)
        (found,) = struct.unpack_from("<" + form, self.raw, self.at)
        self.at += size
        return found

    def text(self) -> bytes:
        length = self.number("Q")
        self.at += length
        return self.raw[self.at - length : self.at]

    def plain(self, kind: int) -> Any:
        return self.text() if kind == STRING else self.number(FORMATS[kind])


def take_apart(raw: bytes) -> Parts:
    """The parts of a good file."""
    cursor = _Cursor(raw)
    version, tensor_count, field_count = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    fields = []
    for _ in range(field_count):
        key, kind = cursor.text(), cursor.number("I")
        if kind == ARRAY:
            item, count = cursor.number("I"), cursor.number("Q")
            fields.append(Field(key, kind, [cursor.plain(item) for _ in range(count)], item))
        else:
            fields.append(Field(key, kind, cursor.plain(kind)))
    tensors = []
    for _ in range(tensor_count):
        name, dimensions = cursor.text(), [cursor.number("Q") for _ in range(cursor.number("I"))]
        tensors.append(TensorInfo(name, dimensions, cursor.number("I"), cursor.number("Q")))
    begin = cursor.at + -cursor.at % ALIGNMENT
    return Parts(version, fields, tensors, raw[begin:])


@cache
def _tiny_bytes() -> bytes:
    """A whole model of 40 KB with random weights: small enough to be loaded by the hundred."""
    tokenizer = learn(
        Counter(words("the cat sat on the mat and the dog ran " * 3)), TINY.vocabulary
    )
    with tempfile.TemporaryDirectory(prefix="peerd-tiny-") as home:
        path = Path(home) / "tiny.gguf"
        write_model(
            path,
            name=TINY_NAME,
            description="made by tests/engine/gguf_parts.py",
            shape=TINY,
            vocabulary=tokenizer.vocabulary,
            merges=tokenizer.merges,
            tensors={
                name: np.ones(size, np.float32) if len(size) == 1 else noise(name, size, 2**-7)
                for name, size in TINY.tensors().items()
            },
        )
        return path.read_bytes()


@cache
def _tiny_parts() -> Parts:
    return take_apart(_tiny_bytes())


def tiny() -> Parts:
    """The parts of the tiny model, to be changed freely."""
    return deepcopy(_tiny_parts())


def write(path: Path, parts: Parts) -> Path:
    """The file of these parts at `path`, as a new file each time."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(parts.to_bytes())
    return path
