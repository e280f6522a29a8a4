"""The mutants can still be made: their text is there once, and their tests exist.

Whether they are caught takes minutes: `python -m tests.mutants`.
"""

import ast
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made(mutant: Mutant) -> None:
    """Once in its file, and what comes out is Python that differs."""
    source = (ROOT / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    changed = source.replace(mutant.old, mutant.new)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    assert mutant.tests
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_mutants_have_names_of_their_own() -> None:
    """`--only` finds one."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
