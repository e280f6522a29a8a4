"""What protocol/README.md must say, taken from the code: tables of fields, codes and limits.

`python -m tests.protocol.readme` prints it all, to copy from when a test says that the page is
behind. Meanings are written by hand and only checked to be there.
"""

import ast
import re
import types
from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from enum import IntEnum
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from protocol import (
    bundle,
    channel,
    envelope,
    fields,
    job,
    lane,
    limits,
    machine,
    messages,
    records,
)
from protocol.errors import CODES

ROOT: Final = Path(__file__).parent.parent.parent
PAGE: Final = ROOT / "protocol" / "README.md"
DIAGRAMS: Final[dict[str, Any]] = {
    "Channel": channel.CHANNEL_TRANSITIONS,
    "Lane": lane.LANE_TRANSITIONS,
    "Job": job.JOB_TRANSITIONS,
}
PARTS: Final = (
    fields.Strategy,
    fields.RequestFilter,
    fields.ChatMessage,
    fields.Prompt,
    fields.OutputConstraint,
    fields.LogitBias,
    fields.GenerationParameters,
    fields.TokenChance,
    fields.TokenLogprob,
    fields.ChannelTerms,
    fields.LaneClaim,
    fields.GenerationProfile,
    fields.Cheque,
    fields.ChannelOpen,
    fields.SignedHead,
    fields.DepositOrder,
    fields.WitnessSignature,
    bundle.ReceiptEvidence,
    bundle.ReceiptPage,
    bundle.RaiseEvidence,
    bundle.BackingEvidence,
    bundle.CloseEvidence,
    bundle.SettlementBundle,
)
ENUMS: Final = (
    fields.InferenceType,
    fields.FinishReason,
    fields.ConstraintKind,
    fields.Outcome,
    fields.AwardRole,
)


def number(value: int) -> str:
    """A bound as people read it: 2^63 - 1, 10^15, 131,072."""
    for bits in (63, 32):
        if value == 2**bits - 1:
            return f"2^{bits} - 1"
    return "10^15" if value == 10**15 else f"{value:,}"


def _range(least: int, most: int) -> str:
    return number(least) if least == most else f"{number(least)}..{number(most)}"


def type_text(hint: Any, meta: Meta | None = None) -> str:
    """A type as the page names it."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, found = get_args(hint)
        return type_text(inner, found)
    if origin is Union or isinstance(hint, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return f"{type_text(inner)} or null"
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, IntEnum)):
        return hint.__name__
    assert meta is not None
    if hint is int:
        assert isinstance(meta.ge, int)
        assert isinstance(meta.le, int)
        return f"int {_range(meta.ge, meta.le)}"
    assert meta.max_length is not None
    lengths = _range(meta.min_length or 0, meta.max_length)
    if origin is tuple:
        return f"array {lengths} of {type_text(get_args(hint)[0])}"
    return f"{'text' if hint is str else 'bytes'} {lengths}"


def rows(cls: type) -> list[tuple[str, str]]:
    """The fields of a dataclass in order, with their types."""
    hints = get_type_hints(cls, include_extras=True)
    optional = {field.name for field in dataclass_fields(cls) if field.metadata.get("optional")}
    return [
        (f"`{name}`", f"{'optional ' if name in optional else ''}{type_text(hint)}")
        for name, hint in hints.items()
    ]


def dataclass_tables() -> dict[str, list[tuple[str, str]]]:
    """Heading of the page -> the first two columns of the table under it."""
    found = {
        f"{numbered} {cls.__name__}": rows(cls) for numbered, cls in messages.BY_NUMBER.items()
    }
    found |= {f"Part {cls.__name__}": rows(cls) for cls in PARTS}
    found |= {f"Record {n} {cls.__name__}": rows(cls) for n, cls in records.RECORDS.items()}
    return found | {"Fields of the envelope": rows(envelope.Envelope)}


def enum_tables() -> dict[str, list[tuple[str, str]]]:
    """As `dataclass_tables`: number and name."""
    return {
        f"Numbers of {cls.__name__}": [(str(item.value), f"`{item.name}`") for item in cls]
        for cls in ENUMS
    }


def diagrams() -> dict[str, str]:
    """Heading -> the Mermaid block under it."""
    return {f"{name} states": machine.diagram(table) for name, table in DIAGRAMS.items()}


def raised() -> Iterator[tuple[str, bool]]:
    """Every (code, offence) that protocol/ and router/ can hold against a peer."""
    for folder in ("protocol", "router"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                called, code = ast.unparse(node.func), ""
                if called == "RemoteError" and isinstance(node.args[0], ast.Constant):
                    code = str(node.args[0].value)
                elif called == "apply" and len(node.args) == 4:
                    code = str(ast.literal_eval(node.args[3]))
                if code:
                    keywords = {
                        keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords
                    }
                    yield code, keywords.get("penalize", "True") == "True"


def code_rows() -> list[tuple[str, str, str]]:
    """Code, whether it is held against the peer, meaning."""
    offences: dict[str, set[bool]] = {}
    for code, offence in raised():
        offences.setdefault(code, set()).add(offence)
    words = {frozenset((True,)): "yes", frozenset((False,)): "no", frozenset(): "-"}
    return [
        (f"`{code}`", words.get(frozenset(offences.get(code, ())), "either"), meaning)
        for code, meaning in CODES.items()
    ]


def limit_value(name: str) -> str:
    """A constant of protocol.limits as the page writes it: ns as seconds or ms."""
    value: int = getattr(limits, name)
    if name.endswith("_NS") or "_NS_" in name:
        return f"{value // 10**9:,} s" if value % 10**9 == 0 else f"{value // 10**6} ms"
    return number(value)


def table_after(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its two head lines."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.M | re.S)
    assert match is not None, f"the page has no heading {heading!r}"
    after = dropwhile(lambda line: not line.startswith("|"), match[1].splitlines())
    lines = list(takewhile(lambda line: line.startswith("|"), after))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _print(heading: str, head: tuple[str, ...], body: list[tuple[str, ...]]) -> None:
    print(f"\n#### {heading}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in body:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print every table and diagram, with room for the meanings."""
    for heading, body in dataclass_tables().items():
        _print(heading, ("field", "type", "meaning"), [(*row, "") for row in body])
    for heading, body in enum_tables().items():
        _print(heading, ("number", "name", "meaning"), [(*row, "") for row in body])
    for heading, text in diagrams().items():
        print(f"\n### {heading}\n\n```mermaid\n{text}\n```")
    _print("Table of codes", ("code", "offence", "meaning"), [*code_rows()])


if __name__ == "__main__":
    main()
