"""How far regions are from each other: the table, jitter, and the classes of access links.

Round trips in ms between cloud regions as public monitors publish them, rounded; one way is half.
The 90th percentile of a round trip lies about 5 ms over its median, and more on the longest.
A matrix of one's own comes from a CSV file.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import ConfigError
from protocol.units import NS_PER_MS
from simnet.text_file import text_of

ROUND_TRIPS_MS: Final[dict[str, tuple[int, ...]]] = {
    "n-virginia": (6, 64, 17, 115, 70, 93, 112, 227, 194, 191, 219, 150, 200),
    "oregon": (64, 3, 61, 175, 118, 143, 155, 274, 257, 222, 161, 98, 141),
    "montreal": (17, 61, 4, 126, 69, 93, 106, 224, 197, 192, 215, 147, 198),
    "sao-paulo": (115, 175, 126, 3, 178, 205, 223, 338, 306, 301, 328, 259, 312),
    "dublin": (70, 118, 69, 178, 3, 27, 40, 159, 131, 126, 179, 202, 256),
    "frankfurt": (93, 143, 93, 205, 27, 4, 23, 155, 116, 129, 161, 227, 251),
    "stockholm": (112, 155, 106, 223, 40, 23, 3, 174, 136, 149, 181, 247, 271),
    "cape-town": (227, 274, 224, 338, 159, 155, 174, 4, 285, 273, 315, 357, 409),
    "uae": (194, 257, 197, 306, 131, 116, 136, 285, 3, 31, 91, 170, 181),
    "mumbai": (191, 222, 192, 301, 126, 129, 149, 273, 31, 3, 64, 134, 155),
    "singapore": (219, 161, 215, 328, 179, 161, 181, 315, 91, 64, 4, 71, 95),
    "tokyo": (150, 98, 147, 259, 202, 227, 247, 357, 170, 134, 71, 3, 106),
    "sydney": (200, 141, 198, 312, 256, 251, 271, 409, 181, 155, 95, 106, 4),
}

# An exponential's 90th percentile lies ln 5 = 1.61 means over its median.
JITTER_MEAN_NS: Final = round(5 * NS_PER_MS / 2 / math.log(5))
JITTER_STEPS: Final = 1 << 12
CSV_REGIONS_MAX: Final = 256  # a byte for each node's
ROUND_TRIP_MS_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Distances:
    """One-way medians in ns between regions, rows to columns."""

    regions: tuple[str, ...]
    one_way_ns: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class AccessLink:
    """A node's own link: rate both ways, what it adds to each way, loss of packets."""

    bits_per_s: int
    extra_ns: int
    loss_ppm: int


ACCESS_LINKS: Final[dict[str, AccessLink]] = {
    "fast": AccessLink(1_000_000_000, 0, 0),
    "standard": AccessLink(50_000_000, 0, 0),
    "home": AccessLink(50_000_000, 20 * NS_PER_MS, 1_000),
    "constrained": AccessLink(5_000_000, 0, 0),
    "bad": AccessLink(2_000_000, 500 * NS_PER_MS, 200_000),
}


def cloud_regions() -> Distances:
    """The table above."""
    return _from_round_trips(tuple(ROUND_TRIPS_MS), list(ROUND_TRIPS_MS.values()))


def _from_round_trips(names: tuple[str, ...], rows: Sequence[Sequence[float]]) -> Distances:
    one_way = tuple(tuple(round(ms * NS_PER_MS / 2) for ms in row) for row in rows)
    return Distances(names, one_way)


def read_matrix(path: Path) -> Distances:
    """Round trips in ms from a CSV file: a head line of names, then a line a region.

    The first cell of each line is the region's name. ConfigError names the line.
    """
    reader = csv.reader(text_of(path).splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise _expected(path, reader.line_num, f"comma-separated values: {error}") from error
    head, row = rows[0] if rows else (1, [])
    names = tuple(name.strip() for name in row[1:])
    if not 1 <= len(names) <= CSV_REGIONS_MAX or len(set(names)) != len(names):
        wanted = f"an empty cell, then 1 to {CSV_REGIONS_MAX} names, each once"
        raise _expected(path, head, wanted)
    if len(rows) != len(names) + 1:
        what = f"expected {len(names)} lines after the first, a region each, not {len(rows) - 1}"
        raise ConfigError("config.bad_value", f"{path}: {what}")
    table = []
    for name, (number, row) in zip(names, rows[1:], strict=True):
        wanted = f"{name!r} and {len(names)} round trips of 0 to {ROUND_TRIP_MS_MAX} ms"
        if row[0].strip() != name or len(row) != len(names) + 1:
            raise _expected(path, number, wanted)
        table.append([_round_trip_ms(cell, path, number, wanted) for cell in row[1:]])
    return _from_round_trips(names, table)


def _round_trip_ms(cell: str, path: Path, line: int, wanted: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value <= ROUND_TRIP_MS_MAX:
        raise _expected(path, line, f"{wanted}, not {cell.strip()[:40]!r}")
    return value


def _expected(path: Path, line: int, wanted: str) -> ConfigError:
    return ConfigError("config.bad_value", f"{path}: line {line}: expected {wanted}")


def median_ns(permille: int) -> int:
    """The median of the jitter that `jitter_table` draws."""
    return round(JITTER_MEAN_NS * permille / 1_000 * math.log(2))


def jitter_table(permille: int) -> list[int]:
    """Jitter in ns by a 12-bit draw: the quantiles of an exponential, scaled by `permille`."""
    mean_ns = JITTER_MEAN_NS * permille / 1_000
    steps = ((step + 0.5) / JITTER_STEPS for step in range(JITTER_STEPS))
    return [round(-mean_ns * math.log(1 - step)) for step in steps]
