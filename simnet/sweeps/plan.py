"""What a sweep runs: points (named changes of a scenario) times seeds.

From flags (`--set key=v1,v2`: every combination) or from a file with chosen points:

    scenario = "auction"
    seeds = "1..3"
    [set]                                    # for all points
    "requesters.use_offers" = false
    [[points]]
    name = "a short window"
    set = { "requesters.bid_window_ms" = 200 }
"""

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from protocol.errors import ConfigError
from simnet.scenario import Scenario
from simnet.scenario import file as scenario_file
from simnet.scenario.named_files import NamedFiles

RUNS_MAX: Final = 10_000
Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One scenario of a sweep, and what it changes."""

    name: str
    changes: Changes
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a sweep runs; `beside` is where the scenario's paths start."""

    name: str
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    beside: Path


class _Chosen(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    changes: dict[str, Any] = msgspec.field(name="set")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    scenario: str
    seeds: str = "1..3"
    changes: dict[str, Any] = msgspec.field(name="set", default_factory=dict)
    points: list[_Chosen] = msgspec.field(default_factory=list)


def read(target: str, sets: Iterable[str], seeds: str | None) -> Plan:
    """The plan of a scenario's name, its file, or a file with points. ConfigError."""
    path = scenario_file.find(target)
    chosen = _File(str(path))
    text = path.read_text("utf-8", "replace")
    if re.search(r"(?m)^scenario\s*=", text):
        try:
            chosen = msgspec.convert(tomllib.loads(text), _File)
        except (ValueError, RecursionError) as error:
            raise ConfigError("config.bad_value", f"{path}: {error}") from error
        beside = path.parent / chosen.scenario
        path = beside if beside.is_file() else scenario_file.find(chosen.scenario)
    axes = [parse_set(one) for one in sets]
    flags, files = {key: f"--set {key}" for key, _ in axes}, NamedFiles(path.parent)
    fixed = [(point.name, point.changes) for point in chosen.points] or [("", {})]
    points = []
    for name, changes in fixed:
        for values in itertools.product(*(values for _, values in axes)):
            swept = dict(zip((key for key, _ in axes), values, strict=True))
            told = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in swept.items())
            whole = {**chosen.changes, **changes, **swept}
            label = ", ".join(filter(None, (name, told))) or path.stem
            said = {key: flags.get(key, f"{target}: set {key}") for key in whole}
            scenario = scenario_file.load(path, whole, files=files, said=said)
            points.append(Point(label, changes | swept, scenario))
    if len({point.name for point in points}) != len(points):
        raise ConfigError("config.bad_value", "two points have one name")
    numbers = parse_seeds(seeds or chosen.seeds)
    if len(points) * len(numbers) > RUNS_MAX:
        raise ConfigError("config.too_large", f"more than {RUNS_MAX} runs")
    return Plan(path.stem, tuple(points), numbers, path.parent)


def parse_set(text: str) -> tuple[str, list[Any]]:
    """`key=v1,v2` as the key and its values: TOML's, or else bare words."""
    key, equals, told = text.partition("=")
    if not equals or not key.strip() or not told.strip():
        raise ConfigError("config.bad_value", f"--set {text}: expected key=value[,value...]")
    try:
        values = list(tomllib.loads(f"values = [{told}]")["values"])
    except (ValueError, RecursionError):
        values = [word.strip() for word in told.split(",")]
    return key.strip(), values


def parse_seeds(text: str) -> tuple[int, ...]:
    """`1..5` or `1,2,9` or both, as numbers; ConfigError for anything else."""
    found: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not re.fullmatch(r"\d{1,18}", first) or (dots and not re.fullmatch(r"\d{1,18}", last)):
            raise ConfigError("config.bad_value", f"seeds {text!r}: expected 1..5 or 1,2,9")
        low, high = int(first), int(last or first)
        if high - low >= RUNS_MAX:
            raise ConfigError("config.too_large", f"more than {RUNS_MAX} runs")
        found += range(low, high + 1)
    if not found or len({*found}) != len(found):
        raise ConfigError("config.bad_value", f"seeds {text!r}: none, or one twice")
    return tuple(found)
