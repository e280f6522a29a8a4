"""Ranges of numbers as GBNF: the texts of exactly the numbers from a minimum to a maximum.

A range is cut where the first digits differ: 37 to 512 is 37-39, 40-99, 100-499, 500-509,
510-512. Pure. Rule: engine/README.md.
"""

import math
from collections.abc import Iterator
from typing import Any

from protocol.errors import EngineError

# JSON readers agree on integers up to 2**53: 16 digits. A bound has one less, so it is exact.
DIGITS_MAX = 16
BOUND_MAX = 10**15
_FRACTION = '("." [0-9]{1,16})?'
_NO_FRACTION = '("." "0"{1,16})?'


def integers(schema: dict[str, Any]) -> str:
    """Integers within minimum, maximum and the exclusive two. EngineError `engine.bad_spec`."""
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    lows = [math.ceil(low)] if low is not None else []
    lows += [math.floor(above) + 1] if above is not None else []
    highs = [math.floor(high)] if high is not None else []
    highs += [math.ceil(below) - 1] if below is not None else []
    if not lows and not highs:
        return "integer"
    end = 10**DIGITS_MAX - 1
    return _signed(max(lows, default=-end), min(highs, default=end), "", "")


def numbers(schema: dict[str, Any]) -> str:
    """Numbers within a minimum and a maximum that are integers. EngineError `engine.bad_spec`."""
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    if low is None and high is None:
        return "number"
    end = 10**DIGITS_MAX - 1
    low, high = -end if low is None else low, end if high is None else high
    if low != int(low) or high != int(high):
        raise EngineError("engine.bad_spec", "schema: bounds of numbers are integers here")
    return _signed(int(low), int(high), _FRACTION, _NO_FRACTION)


def _bound(schema: dict[str, Any], keyword: str) -> int | float | None:
    value = schema.get(keyword)
    if value is None:
        return None
    if type(value) not in (int, float) or not -BOUND_MAX <= value <= BOUND_MAX:
        raise EngineError("engine.bad_spec", f"schema: {keyword} is no number within 10^15")
    return value  # type: ignore[no-any-return]  # checked above


def _signed(low: int, high: int, inside: str, at_end: str) -> str:
    """Numbers from low to high: `inside` follows an integer, `at_end` the last one."""
    if low > high:
        raise EngineError("engine.bad_spec", "schema: the maximum is less than the minimum")
    found = []
    if high >= 0:
        found.append(_unsigned(max(low, 0), high, inside, at_end))
    if low < 0:
        # Between -1 and 0 there are fractions only.
        nearest = max(-high, 0 if inside else 1)
        found.append('"-" (' + _unsigned(nearest, -low, inside, at_end) + ")")
    return " | ".join(found)


def _unsigned(low: int, high: int, inside: str, at_end: str) -> str:
    """Numbers from low >= 0 to high: with any fraction below `high`, with none at it."""
    if not inside:
        return f"({' | '.join(_cut(low, high))})"
    end = f'"{high}" {at_end}'
    if low == high:
        return end
    return f"({' | '.join(_cut(low, high - 1))}) {inside} | {end}"


def _cut(low: int, high: int) -> Iterator[str]:
    """The integers from low >= 0 to high, one expression for each number of digits."""
    while low <= high:
        last = min(high, 10 ** len(str(low)) - 1)
        yield _same_length(str(low), str(last))
        low = last + 1


def _same_length(low: str, high: str) -> str:
    rest = len(low) - 1
    if low == high:
        return f'"{low}"'
    if not rest:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return f'"{low[0]}" ({_same_length(low[1:], high[1:])})'
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        parts.append(f'"{first}" ({_same_length(low[1:], "9" * rest)})')
        first += 1
    tail = ""
    if high[1:] != "9" * rest:
        tail = f'"{last}" ({_same_length("0" * rest, high[1:])})'
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}] [0-9]{{{rest}}}")
    return " | ".join([*parts, tail] if tail else parts)
