"""The simulator's own code keeps the rules that make a seed decide everything.

Source: simnet/README.md. The checks are those of the cores, tested in tests/test_house.py.
"""

import ast
from pathlib import Path

import pytest

from tests.test_house import ROOT, core_faults, imported

HOUSE = ROOT / "simnet"
# The tiers above run daemons in trio's tasks, and one of them by the wall clock; sweeps carry
# whole runs to other processes and machines.
ABOVE = {HOUSE / "tiers", HOUSE / "sweeps"}
SIMNET = [p for p in sorted(HOUSE.rglob("*.py")) if ABOVE.isdisjoint(p.parents)]
# Time and chance of the machine: for people who wait, and for finding memory and files.
LOOKS_OUT = [p for p in SIMNET if HOUSE / "cli" in p.parents or HOUSE / "runs" in p.parents]
LOOKS_OUT.append(HOUSE / "disk.py")
OUTSIDE = ("time", "random", "secrets", "os", "datetime", "uuid", "threading")


@pytest.mark.parametrize("path", SIMNET, ids=lambda path: str(path.relative_to(HOUSE)))
def test_no_order_of_a_set_and_no_chance(path: Path) -> None:
    """Sets are not iterated, `hash` and `id` not asked, no task runs beside another."""
    assert core_faults(path.name, path.read_text()) == []


@pytest.mark.parametrize(
    "path",
    [path for path in SIMNET if path not in LOOKS_OUT],
    ids=lambda path: str(path.relative_to(HOUSE)),
)
def test_what_happens_in_a_run_sees_no_clock_and_no_machine(path: Path) -> None:
    """Only what waits for the run, or sums it up, does."""
    names = imported(ast.parse(path.read_text()), frozenset())
    assert [name for name in names if name.partition(".")[0] in OUTSIDE] == []
