"""Values of the protocol as JSON, readable from any language, and back.

Dataclasses are objects by field name, bytes are `{"bin": "<hex>"}`, enums are their numbers.
"""

import types
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


def written(value: Any) -> list[str]:
    """The fields that are encoded: not optional ones at the end that say nothing."""
    names = [field.name for field in fields(value)]
    for field in reversed(fields(value)):
        if not field.metadata.get("optional") or getattr(value, field.name) != field.default:
            break
        names.pop()
    return names


def to_plain(value: Any) -> Any:
    """`value` in terms of JSON."""
    if is_dataclass(value):
        return {name: to_plain(getattr(value, name)) for name in written(value)}
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return int(value) if isinstance(value, IntEnum) else value


def from_plain(hint: Any, plain: Any) -> Any:
    """The value of type `hint` that `to_plain` gave."""
    origin = get_origin(hint)
    if origin is Annotated:
        return from_plain(get_args(hint)[0], plain)
    if origin is Union or isinstance(hint, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return None if plain is None else from_plain(inner, plain)
    if origin is tuple:
        return tuple(from_plain(get_args(hint)[0], item) for item in plain)
    if hint is bytes:
        return bytes.fromhex(plain["bin"])
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint, include_extras=True)
        return hint(**{name: from_plain(hints[name], item) for name, item in plain.items()})
    return hint(plain)
