"""Valid and just-invalid values of any dataclass of the protocol, from its annotations."""

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from msgspec import Meta

# Long values cost time and find little more; the bounds themselves have tests of their own.
TEXT_CHARS = 60
BINARY_BYTES = 120
ITEMS = 5


def _capped(least: int, most: int | None, cap: int) -> tuple[int, int]:
    return least, max(least, cap if most is None else min(most, cap))


def _scalars(hint: Any, meta: Meta) -> st.SearchStrategy[Any]:
    if hint is int:
        assert meta.ge is not None
        assert meta.le is not None
        low, high = int(meta.ge), int(meta.le)
        widths = (127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32)
        inside = [edge for edge in (low, *widths, high) if low <= edge <= high]
        return st.sampled_from(inside) | st.integers(low, high)
    if hint is str:
        low, high = _capped(meta.min_length or 0, meta.max_length, TEXT_CHARS)
        return st.text(min_size=low, max_size=high)
    assert hint is bytes, hint
    low, high = _capped(meta.min_length or 0, meta.max_length, BINARY_BYTES)
    return st.binary(min_size=low, max_size=high)


@cache
def values(hint: Any, meta: Meta | None = None) -> st.SearchStrategy[Any]:
    """Every value that the type allows, long ones cut short; built once a type."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, found = get_args(hint)
        return values(inner, found)
    if origin is Union or isinstance(hint, types.UnionType):
        return st.one_of(
            *(st.none() if arg is type(None) else values(arg) for arg in get_args(hint))
        )
    if origin is tuple:
        meta = meta or Meta()
        low, high = _capped(meta.min_length or 0, meta.max_length, ITEMS)
        return st.lists(values(get_args(hint)[0]), min_size=low, max_size=high).map(tuple)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return st.sampled_from(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint, include_extras=True)
        return st.builds(hint, **{field.name: values(hints[field.name]) for field in fields(hint)})
    assert meta is not None, f"{hint} has no bounds"
    return _scalars(hint, meta)


def smallest(hint: Any, meta: Meta | None = None) -> Any:
    """The least value of the type: the base that `edges` varies, with optional parts present."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, found = get_args(hint)
        return smallest(inner, found)
    if origin is Union or isinstance(hint, types.UnionType):
        return smallest(next(arg for arg in get_args(hint) if arg is not type(None)))
    if origin is tuple:
        least = (meta.min_length or 0) if meta else 0
        return (smallest(get_args(hint)[0]),) * max(1, least)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return min(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint, include_extras=True)
        return hint(**{field.name: smallest(hints[field.name]) for field in fields(hint)})
    assert meta is not None
    if hint is int:
        return meta.ge
    return ("a" if hint is str else b"a") * (meta.min_length or 0)


def _scalar_edges(hint: Any, meta: Meta) -> Iterator[tuple[str, Any, bool]]:
    if hint is int:
        assert isinstance(meta.ge, int)
        assert isinstance(meta.le, int)
        yield "least", meta.ge, True
        yield "most", meta.le, True
        yield "below", meta.ge - 1, False
        yield "above", meta.le + 1, False
        return
    unit: Any = "é" if hint is str else b"\xff"
    yield from _length_edges(unit, meta)


def _length_edges(unit: Any, meta: Meta) -> Iterator[tuple[str, Any, bool]]:
    least, most = meta.min_length or 0, meta.max_length
    assert most is not None, "everything from outside is bounded"
    yield "shortest", unit * least, True
    yield "longest", unit * most, True
    yield "too long", unit * (most + 1), False
    if least:
        yield "too short", unit * (least - 1), False


def edges(hint: Any, meta: Meta | None = None) -> Iterator[tuple[str, Any, bool]]:
    """(where, value, whether it is allowed) at every bound inside the type, one at a time."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, found = get_args(hint)
        yield from edges(inner, found)
    elif origin is Union or isinstance(hint, types.UnionType):
        yield "none", None, True
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        yield from edges(inner)
    elif origin is tuple:
        assert meta is not None, "an array has a bound"
        item = get_args(hint)[0]
        yield from _length_edges((smallest(item),), meta)
        for where, value, allowed in edges(item):
            yield f"[0] {where}", (value,), allowed
    elif isinstance(hint, type) and issubclass(hint, IntEnum):
        yield "least", min(hint), True
        yield "most", max(hint), True
        yield "unknown", 0, False
        yield "unknown", max(hint) + 1, False
    elif is_dataclass(hint) and isinstance(hint, type):
        base = smallest(hint)
        for name, inner in get_type_hints(hint, include_extras=True).items():
            for where, value, allowed in edges(inner):
                yield f"{name} {where}", replace(base, **{name: value}), allowed
    else:
        assert meta is not None
        yield from _scalar_edges(hint, meta)
