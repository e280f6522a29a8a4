"""Scenario files: TOML in, checked key by key; TOML out, with a comment on each key.

An error names the file, the line, the key and what was expected there.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec
from msgspec.structs import replace

from protocol.errors import ConfigError
from simnet.scenario import Scenario
from simnet.scenario.misfits import Where, fitting_degree, misfits
from simnet.scenario.named_files import NamedFiles
from simnet.text_file import text_of

READY: Final = Path(__file__).parent.parent / "scenarios"
FILE_BYTES_MAX: Final = 1 << 20


# --- finding -----------------------------------------------------------------------------------


def ready() -> dict[str, Path]:
    """The scenarios that come with the package, by name."""
    return {path.stem: path for path in sorted(READY.glob("*.toml"))}


def find(name: str) -> Path:
    """The file of a ready scenario, or the path as it is given. ConfigError when there is none."""
    path = ready().get(name) or Path(name)
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, ready(), 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(
        "config.unreadable", f"there is no scenario {name!r}; {hint}see: simnet list"
    )


# --- reading -----------------------------------------------------------------------------------


def load(
    path: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    files: NamedFiles | None = None,
    said: Mapping[str, str] | None = None,
) -> Scenario:
    """The scenario in a file, with values set by key. ConfigError: what is wrong, and where.

    The files that it names are read too, from beside it unless `files` has another place. `said`
    is how a person gave each of the changes.
    """
    text = text_of(path, FILE_BYTES_MAX)
    changes = changes or {}
    said = {key: f"--set {key}" for key in changes} | dict(said or {})
    source = _Source(path, text, said)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        told = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ConfigError("config.syntax", f"{path}: {told}") from error
    content.setdefault("name", path.stem)
    for key, value in changes.items():
        _change(content, key, value, said[key])
    try:
        scenario = msgspec.convert(content, Scenario)
    except msgspec.ValidationError as error:
        raise source.fault(*_explain(str(error))) from error
    topology = scenario.topology
    if "degree" not in content.get("topology", ()):
        degree = fitting_degree(topology, scenario.nodes)
        scenario = replace(scenario, topology=replace(topology, degree=degree))
    for where, what in misfits(scenario):
        raise source.fault(where, what, "config.bad_value")
    for where, found in (files or NamedFiles(path.parent)).faults(scenario):
        raise source.fault(where, found.detail, found.code)
    return scenario


def parse(data: bytes) -> Scenario:
    """The scenario that `write` wrote."""
    return msgspec.convert(tomllib.loads(data.decode()), Scenario)


def _change(content: dict[str, Any], key: str, value: Any, said: str) -> None:
    """Set `table.key`; in a list of tables, in all, or by `table.name.key` in the one so named."""
    *path, last = key.split(".")
    places: list[dict[str, Any]] = [content]
    for number, part in enumerate(path):
        inner: list[dict[str, Any]] = []
        for place in places:
            if number and place.get("name") == part and part not in place:
                inner.append(place)
                continue
            # Who sells and who asks is there with defaults when the file leaves it out.
            several = number == 0 and part in ("models", "providers", "requesters")
            found = place.setdefault(part, [{}] if several else {})
            inner += found if isinstance(found, list) else [found]
        following = path[number + 1] if number + 1 < len(path) else ""
        named = [one for one in inner if isinstance(one, dict) and one.get("name") == following]
        places = named or [one for one in inner if isinstance(one, dict)]
        if not places:
            raise ConfigError("config.unknown_key", f"{said}: {part} is no table")
    for place in places:
        place[last] = value


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a scenario comes from: a file's text, and keys that were set, as they were said."""

    path: Path
    text: str
    said: Mapping[str, str]

    def fault(self, where: Where, what: str, code: str) -> ConfigError:
        """What is wrong at a key: of the file, or as it was set."""
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
        key = key.lstrip(".")
        names = [part for part in where if isinstance(part, str)]
        for given, told in self.said.items():
            parts = given.split(".")
            one_of_several = parts[:1] + parts[2:] if len(parts) > 2 else parts
            shared = min(len(parts), len(names))
            if names and (parts[:shared] == names[:shared] or one_of_several == names):
                deeper = "" if names in (parts, one_of_several) else f"{key}: "
                return ConfigError(code, f"{told}: {deeper}{what}")
        among = f" (with {', '.join(self.said.values())})" if self.said else ""
        line = line_of(self.text, where)
        return ConfigError(code, f"{self.path}:{line}: {key or 'the file'}: {what}{among}")


def _explain(message: str) -> tuple[Where, str, str]:
    """msgspec's message as (where, what was expected, code)."""
    what, _, at = message.partition(" - at `")
    where: Where = ()
    for name, number, entry in re.findall(r"\.([^.\[`]+)|\[(\d+)\]|(\[\.\.\.\])", at):
        where = (*where, int(number) if number else name) if not entry else where
    unknown = re.match(r"Object contains unknown field `(.+)`", what)
    if unknown:
        name = unknown[1]
        close = difflib.get_close_matches(name, _keys_at(where), 1, 0.5)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(_keys_at(where))}"
        return (*where, name), f"there is no such key; {hint}", "config.unknown_key"
    missing = re.match(r"Object missing required field `(.+)`", what)
    if missing:
        return where, f"the key {missing[1]} is missing", "config.bad_value"
    if what.startswith("Invalid enum value"):
        choices = ", ".join(map(repr, _choices_at(where)))
        return (
            where,
            f"{what[len('Invalid enum value ') :]}: expected {choices}",
            "config.bad_value",
        )
    if what.startswith("Invalid value") and where[-1:] == ("kind",):
        tags = [repr(one.__struct_config__.tag) for one in get_args(_type_at(where[:-1]))]
        told = what[len("Invalid value ") :]
        return where, f"{told}: expected {', '.join(tags)}", "config.bad_value"
    return where, what[0].lower() + what[1:].replace("`", ""), "config.bad_value"


def _type_at(where: Where) -> Any:
    """The annotated type of a key, through tables and lists of tables."""
    kind: Any = Scenario
    for part in where:
        kind = _bare(kind)
        if isinstance(part, int):
            kind = get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kind = get_type_hints(kind, include_extras=True).get(part, str)
        else:
            kind = get_args(kind)[-1] if get_args(kind) else str
    return _bare(kind)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _keys_at(where: Where) -> list[str]:
    kind = _type_at(where)
    kinds = get_args(kind) or (kind,)  # a table of several kinds
    names = [name for one in kinds for name in getattr(one, "__struct_fields__", ())]
    return list(dict.fromkeys(names))


def _choices_at(where: Where) -> tuple[Any, ...]:
    kind = _type_at(where)
    choices = get_args(kind)
    return choices if choices and isinstance(choices[0], str) else get_args(choices[0])


def line_of(text: str, where: Where) -> int:
    """The line of a key, or else of the last table on the way to it; 1 when there is none."""
    names = [part for part in where if isinstance(part, str)]
    numbers = [part for part in where if isinstance(part, int)]
    table: list[str] = []
    best, seen, best_depth = 1, -1, -1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*(\[\[?)\s*([\w.\"-]+)\s*\]\]?", line)
        if header:
            table = header[2].replace('"', "").split(".")
            if header[1] == "[[" and names and table == names[:1]:
                seen += 1
            path = table
        else:
            key = re.match(r"\s*([\w\"'.-]+)\s*=", line)
            if not key:
                continue
            path = table + key[1].replace('"', "").replace("'", "").split(".")
        if numbers and names[:1] == table[:1] and seen != numbers[0]:
            continue
        if path == names[: len(path)] and len(path) > best_depth:
            best, best_depth = number, len(path)
    return best


# --- writing -----------------------------------------------------------------------------------


def write(scenario: Scenario, *, comments: bool) -> str:
    """The whole scenario as TOML, every key with its value; `load` gives the same back."""
    return "\n".join(_table(Scenario, scenario, (), comments)).strip() + "\n"


def _table(kind: Any, value: Any, where: tuple[str, ...], comments: bool) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    later: list[tuple[str, Any]] = []
    if kind.__struct_config__.tag is not None:
        yield f"{kind.__struct_config__.tag_field} = {_scalar(kind.__struct_config__.tag)}"
    for name in kind.__struct_fields__:
        item = getattr(value, name)
        tables = isinstance(item, tuple) and item and isinstance(item[0], msgspec.Struct)
        if (
            isinstance(item, msgspec.Struct)
            or tables
            or (item == () and name in ("gpus", "faults", "adversaries"))
        ):
            later.append((name, item))
            continue
        meaning = _meaning(hints[name])
        if comments and meaning:
            yield f"# {meaning}"
        yield f"{name} = {_scalar(item)}"
    for name, item in later:
        path = (*where, name)
        for one in item if isinstance(item, tuple) else (item,):
            brackets = ("[[", "]]") if isinstance(item, tuple) else ("[", "]")
            yield ""
            if comments and type(one).__doc__:
                yield f"# {type(one).__doc__}"
            yield f"{brackets[0]}{'.'.join(path)}{brackets[1]}"
            yield from _table(type(one), one, path, comments)


def _meaning(hint: Any) -> str:
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    return ""


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_scalar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return json.dumps(value)
