"""The notebook reads the tables of a real run, cell by cell.

Source: simnet/notebooks/tables.ipynb.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simnet.cli import main
from tests.test_house import ROOT

NOTEBOOK = ROOT / "simnet" / "notebooks" / "tables.ipynb"


def test_every_cell_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the first one says: beside the run of `hello`; no output is kept in the file."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["run", "hello", "--out", "hello-run", "-q"]).exit_code == 0
    cells = [one for one in json.loads(NOTEBOOK.read_text())["cells"] if "outputs" in one]
    names: dict[str, object] = {}
    for cell in cells:
        assert cell["outputs"] == []
        exec("".join(cell["source"]), names)
    told = capsys.readouterr().out
    assert "the asker's group" in told
    assert "requesters: award " in told
    assert "times the chosen, in the median" in told
