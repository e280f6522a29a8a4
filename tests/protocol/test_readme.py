"""The wire specification says what the code does: fields, types, bounds, codes, states, limits.

Source: protocol/README.md against the dataclasses and tables themselves. When one fails,
`python -m tests.protocol.readme` prints what the page should hold.
"""

import re
from pathlib import Path

import pytest

from protocol import limits, messages, signing
from tests.protocol import readme
from tests.protocol.test_signing import FIXED_BYTES
from tests.vectors.make import THINGS

PAGE = readme.PAGE.read_text()
LAYOUT_NAMES = {name: name.removesuffix("_bytes").replace("_", " ") for name in FIXED_BYTES}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [*readme.dataclass_tables().items(), *readme.enum_tables().items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_field_is_in_its_table(heading: str, expected: list[tuple[str, str]]) -> None:
    """Names, order, types and bounds of every message, part, record and enum; and a meaning."""
    found = readme.table_after(PAGE, heading)
    assert [tuple(row[:2]) for row in found] == expected
    assert all(len(row) == 3 and row[2] for row in found), "every field has a meaning"


def test_there_are_no_tables_of_what_does_not_exist() -> None:
    """A message, part or record that is gone leaves the page too."""
    known = readme.dataclass_tables().keys() | readme.enum_tables().keys()
    pattern = r"^#### ((?:\d+|Part|Record \d+|Numbers of) \w+)$"
    headings = re.findall(pattern, PAGE, re.M)
    assert len(headings) == len(set(headings))
    assert set(headings) == known - {"Fields of the envelope"}


@pytest.mark.parametrize(("heading", "diagram"), readme.diagrams().items())
def test_the_diagrams_are_those_of_the_tables(heading: str, diagram: str) -> None:
    """Generated, by protocol.machine.diagram."""
    assert f"#### {heading}\n\n```mermaid\n{diagram}\n```\n" in PAGE


def test_the_codes_are_those_of_the_table() -> None:
    """Every code, its meaning, and whether any line of protocol/ or router/ holds it against a
    peer, in the order of protocol.errors."""
    found = [tuple(row) for row in readme.table_after(PAGE, "Table of codes")]
    assert found == readme.code_rows()


def test_the_limits_are_those_of_the_code() -> None:
    """Values as `readme.limit_value` writes them, and every limit that the text names is there."""
    table = readme.table_after(PAGE, "Limits")
    assert table == [[row[0], readme.limit_value(row[0].strip("`"))] for row in table]
    listed = {row[0].strip("`") for row in table}
    named = {name for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", PAGE) if hasattr(limits, name)}
    assert named == listed


def test_the_layouts_are_those_that_are_signed() -> None:
    """One row a layout, with its length in bytes; every domain tag is named."""
    rows = {row[0].strip("`"): int(row[2]) for row in readme.table_after(PAGE, "Signatures")}
    expected = {LAYOUT_NAMES[name]: length for name, length in FIXED_BYTES.items()}
    assert rows == {**expected, "envelope": 88}
    assert all(hasattr(signing, name) for name in FIXED_BYTES)
    section = PAGE.partition("### Domain tags")[2].partition("### Channel id")[0]
    assert set(THINGS) <= set(re.findall(r"`([a-z ]+)`", section.replace("\n", " ")))


def test_protocol_ids_are_those_that_the_adapter_speaks() -> None:
    """Read from the adapter's source, as text: these tests run without the network."""
    folder = Path(readme.ROOT, "peer", "libp2p_adapter")
    source = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    assert 'f"/peerd/{settings.network}/requests/1"' in source
    assert "`/peerd/NETWORK/requests/1`" in PAGE
    assert 'f"/peerd/{self._network}/{name}/1.0.0"' in source
    for name in ("job", "bid", "peers"):
        assert f'"{name}"' in source
        assert f"`/peerd/NETWORK/{name}/1.0.0`" in PAGE
    assert '("/meshsub/1.1.0",)' in source
    assert "`/meshsub/1.1.0`" in PAGE


def test_links_inside_the_page_lead_somewhere() -> None:
    """Every #anchor is a heading, every file exists."""
    headings = re.findall(r"^#+ (.+)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (readme.PAGE.parent / target).exists(), target


def test_the_front_page_names_every_message() -> None:
    """With its number, and none that is not."""
    front = Path(readme.ROOT, "README.md").read_text().partition("| wire | numbers |")[2]
    told = re.findall(r"([A-Z][A-Za-z]+) ([0-9]+)", front.partition("\n\n")[0])
    assert {(name, int(number)) for name, number in told} == {
        (kind.__name__, number) for kind, number in messages.NUMBERS.items()
    }
