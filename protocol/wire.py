"""Messages and records to bytes and back: msgpack, positional, one encoding each.

Encoding is `[type, field, field, ...]`; nested parts are arrays of their fields, without the
optional ones at the end that are at their defaults. `decode`
refuses whatever `encode` would not produce: both common msgpack decoders accept over-wide
integers, so canonical form is checked by encoding again. Rule: protocol/README.md.
"""

import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgpack  # type: ignore[import-untyped]
import msgspec

from protocol import limits
from protocol.errors import LocalError, RemoteError
from protocol.fields import OPTIONAL
from protocol.messages import BY_NUMBER, NUMBERS

Build = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one type travels: the checked positional type, and the way to and from it."""

    wire_type: Any
    to_wire: Build | None  # None: the value travels as it is
    from_wire: Build | None


def _plan_dataclass(cls: type) -> _Plan:
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cls)]
    plans = [_plan(hints[name]) for name in names]
    # All fields at once, then those few that do not travel as they are.
    read = attrgetter(*names)
    converters = [(at, plan.to_wire) for at, plan in enumerate(plans) if plan.to_wire]
    builders = [(at, plan.from_wire) for at, plan in enumerate(plans) if plan.from_wire]

    def to_wire(value: Any) -> tuple[Any, ...]:
        items: tuple[Any, ...] = read(value) if len(names) > 1 else (read(value),)
        if not converters:
            return items
        changed = list(items)
        for at, convert in converters:
            changed[at] = convert(changed[at])
        return tuple(changed)

    def from_wire(items: tuple[Any, ...]) -> Any:
        built = list(items)
        for at, build in builders:
            built[at] = build(built[at])
        return cls(*built)

    # A Struct rather than a tuple type: msgspec knows it once, and not anew each time.
    defaults = [field.default for field in fields(cls) if field.metadata == OPTIONAL]
    required = len(names) - len(defaults)
    shape: list[Any] = [(field, plan.wire_type) for field, plan in zip(names, plans, strict=True)]
    for index, default in enumerate(defaults, required):
        shape[index] += (default,)
    wire_type = msgspec.defstruct(cls.__name__, shape, array_like=True, forbid_unknown_fields=True)

    def shortened(value: Any) -> tuple[Any, ...]:
        items: tuple[Any, ...] = to_wire(value)
        end = len(items)
        while end > required and items[end - 1] == defaults[end - 1 - required]:
            end -= 1
        return items[:end]

    return _Plan(
        wire_type,
        shortened if defaults else to_wire,
        lambda items: from_wire(msgspec.structs.astuple(items)),
    )


def _plan_optional(hint: Any) -> _Plan:
    inner = [argument for argument in get_args(hint) if argument is not type(None)]
    assert len(inner) == 1, f"only X | None travels, not {hint}"
    plan = _plan(inner[0])

    def to_wire(value: Any) -> Any:
        return value if value is None or plan.to_wire is None else plan.to_wire(value)

    def from_wire(value: Any) -> Any:
        return value if value is None or plan.from_wire is None else plan.from_wire(value)

    return _Plan(plan.wire_type | None, to_wire, from_wire)


def _plan_sequence(hint: Any) -> _Plan:
    item = _plan(get_args(hint)[0])
    item_to, item_from = item.to_wire, item.from_wire
    wire_type = tuple[item.wire_type, ...]  # type: ignore[name-defined]
    if item_to is None or item_from is None:
        return _Plan(wire_type, None, None)
    return _Plan(
        wire_type,
        lambda items: tuple(map(item_to, items)),
        lambda items: tuple(map(item_from, items)),
    )


def _plan(hint: Any) -> _Plan:
    """The plan of a type: dataclass, X | None, tuple[X, ...], or a scalar with its bounds."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *metadata = get_args(hint)
        plan = _plan(inner)
        return _Plan(Annotated[plan.wire_type, *metadata], plan.to_wire, plan.from_wire)
    if is_dataclass(hint) and isinstance(hint, type):
        return _plan_dataclass(hint)
    if origin is Union or isinstance(hint, types.UnionType):
        return _plan_optional(hint)
    if origin is tuple:
        return _plan_sequence(hint)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return _Plan(hint, int, None)
    assert hint in (int, bytes, str, bool), f"{hint} does not travel"
    return _Plan(hint, None, None)


_PLANS: Final[dict[type, _Plan]] = {}  # one per dataclass of the project: bounded by the code


def _plan_of(cls: type) -> _Plan:
    plan = _PLANS.get(cls)
    if plan is None:
        plan = _PLANS[cls] = _plan_dataclass(cls)
    return plan


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _check(positional: Any, wire_type: Any) -> Any:
    """`positional` as `wire_type`, bounds checked. msgspec.ValidationError.

    `builtin_types`: else msgspec takes text for bytes and decodes it as base64.
    """
    return msgspec.convert(positional, wire_type, builtin_types=(bytes,))


def encode_fields(value: Any) -> bytes:
    """The canonical bytes of a dataclass without a type number: parts, records, what is hashed.

    Raises LocalError `wire.unencodable` when a field breaks its bounds.
    """
    plan = _plan_of(type(value))
    assert plan.to_wire is not None
    try:
        positional = plan.to_wire(value)
        _check(positional, plan.wire_type)
        return _pack(positional)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        raise LocalError("wire.unencodable", f"{type(value).__name__}: {error}") from error


def encode(value: Any) -> bytes:
    """The canonical bytes of a message: `[type, field, ...]`, at most FRAME_BYTES_MAX.

    Raises LocalError `wire.unencodable` when a field breaks its bounds or the whole is too long.
    """
    plan = _plan_of(type(value))
    assert plan.to_wire is not None
    try:
        positional = plan.to_wire(value)
        _check(positional, plan.wire_type)
        data = _pack((NUMBERS[type(value)], *positional))
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        raise LocalError("wire.unencodable", f"{type(value).__name__}: {error}") from error
    if len(data) > limits.FRAME_BYTES_MAX:
        raise LocalError("wire.unencodable", f"{type(value).__name__} of {len(data)} bytes")
    return data


def _unpack(data: bytes, bytes_max: int) -> Any:
    if len(data) > bytes_max:
        raise RemoteError("wire.oversized", f"{len(data)} > {bytes_max} bytes")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            max_array_len=limits.ARRAY_ITEMS_MAX,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
        )
    except msgpack.OutOfData as error:
        raise RemoteError("wire.truncated") from error
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        if "incomplete" in str(error):
            raise RemoteError("wire.truncated") from error
        raise RemoteError("wire.malformed", type(error).__name__) from error


def _to_wire(value: Any) -> Any:
    """What a checked value travels as, not checked again."""
    to_wire = _plan_of(type(value)).to_wire
    assert to_wire is not None
    return to_wire(value)


def _build(cls: type, positional: Any) -> Any:
    plan = _plan_of(cls)
    assert plan.from_wire is not None
    try:
        return plan.from_wire(_check(positional, plan.wire_type))
    except msgspec.ValidationError as error:
        raise RemoteError("wire.bad_field", f"{cls.__name__}: {error}") from error


def decode_fields(cls: type, data: bytes, bytes_max: int = limits.FRAME_BYTES_MAX) -> Any:
    """The inverse of `encode_fields` for a known dataclass; errors as `decode`."""
    positional = _unpack(data, bytes_max)
    value = _build(cls, positional)
    if _pack(_to_wire(value)) != data:
        raise RemoteError("wire.not_canonical", cls.__name__)
    return value


def decode(data: bytes, bytes_max: int = limits.FRAME_BYTES_MAX) -> Any:
    """The message in `data`, which must be exactly what `encode` gives.

    Raises RemoteError: `wire.oversized`, `wire.truncated`, `wire.malformed`,
    `wire.unknown_type`, `wire.bad_field`, `wire.not_canonical`.
    """
    items = _unpack(data, bytes_max)
    if not isinstance(items, tuple) or not items or type(items[0]) is not int:
        raise RemoteError("wire.malformed", "not an array that starts with a type number")
    if not 0 < items[0] <= limits.TYPE_NUMBER_MAX:
        raise RemoteError("wire.malformed", "the type number is out of range")
    cls = BY_NUMBER.get(items[0])
    if cls is None:
        # A newer version's message is no offence: penalising it would split the network.
        raise RemoteError("wire.unknown_type", str(items[0])[:20], penalize=False)
    value = _build(cls, items[1:])
    if _pack((items[0], *_to_wire(value))) != data:
        raise RemoteError("wire.not_canonical", cls.__name__)
    return value
