"""simnet/README.md says what is so: its tables, commands and scenario tables are the code's.

Source: the page itself.
"""

import re

from simnet.cli import main
from simnet.recording.tables import TABLES
from simnet.scenario import Scenario
from tests.test_house import ROOT

PAGE = (ROOT / "simnet" / "README.md").read_text()


def test_every_table_and_its_columns_are_on_the_page() -> None:
    """In their order."""
    for name, columns in TABLES.items():
        assert f"| `{name}` | {', '.join(column for column, _, _ in columns)} |" in PAGE


def test_every_command_is_on_the_page() -> None:
    """With all of its options."""
    for name, command in main.commands.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `simnet {name}"))
        for option in command.params:
            flags = [flag for flag in option.opts if flag.startswith("--")]
            assert not flags or flags[0] in row or flags[0] == "--json", (name, flags)


def test_every_table_of_a_scenario_is_on_the_page() -> None:
    """And no other."""
    told = set(re.findall(r"`\[\[?([a-z]+)\]?\]`", PAGE))
    first = PAGE.partition("| top |")[2].partition("\n")[0]
    single = {"name", "description", *re.findall(r"`([a-z_]+)`", first)}
    assert told == set(Scenario.__struct_fields__) - single


def test_every_module_has_its_place_on_the_page() -> None:
    """So that one finds it."""
    diagram = PAGE.partition("## How it is built")[2]
    modules = [path.stem for path in sorted((ROOT / "simnet").glob("*.py"))]
    small = ("__init__", "extra", "peer")
    assert [name for name in modules if name not in diagram and name not in small] == []
