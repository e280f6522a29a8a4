"""`simnet report`: one page that needs nothing else, drawn from the tables; CSV that equals them.

Source: simnet/README.md, "A report".
"""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from simnet.cli import main
from simnet.recording.recorder import Recorder
from simnet.recording.tables import TABLES
from simnet.reports import plots
from simnet.reports.report import BYTES_MAX
from simnet.reports.tables_read import RunTables, gini, hhi
from simnet.runs import directory as run_directory
from simnet.runs.runner import Run
from simnet.scenario import file as scenario_file
from simnet.simulation import Simulation

TINY = """
nodes = 12
duration_s = 20
[[providers]]
name = "cheap"
count = 3
[[providers]]
name = "dear"
count = 2
price_permille = 1500
[[requesters]]
count = 4
"""
# A model so slow that nobody can answer in time, and a node that dies.
HOPELESS = """
nodes = 12
duration_s = 10
[[models]]
work_permille = 1000000
[[requesters]]
count = 2
timeout_s = 5
[[providers]]
count = 2
"""


def ran(folder: Path, text: str, dies: int | None = None) -> Path:
    """The directory of a run of a scenario; node `dies` stops for good when it begins."""
    source = folder / "tiny.toml"
    source.write_text(text)
    scenario, out = scenario_file.load(source), folder / "out"
    out.mkdir()
    recorder = Recorder(out)

    def prepare(simulation: Simulation) -> None:
        if dies is not None:
            simulation.clock.after(1, simulation.crash, simulation.peers[dies])

    run_directory.begin(out, scenario, 1, source)
    summary = Run(scenario, 1, folder, recorder, prepare=prepare).go()
    recorder.close()
    run_directory.end(out, summary)
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run in which all goes well."""
    return ran(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run in which nothing does."""
    return ran(tmp_path_factory.mktemp("hopeless"), HOPELESS, dies=3)


def report(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    result = CliRunner().invoke(main, ["report", *arguments])
    return result.exit_code, result.stdout, result.stderr


class Page(HTMLParser):
    """What a page refers to, and the ids that it gives."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.add(tag)
        told = {name: value or "" for name, value in attrs}
        self.links += [told[name] for name in ("src", "href", "xlink:href") if name in told]
        if "id" in told:
            self.ids.append(told["id"])


def test_the_page_needs_nothing_but_itself(tiny: Path, tmp_path: Path) -> None:
    """No script, nothing fetched, under 2 MB; well-formed drawings, no id twice."""
    target = tmp_path / "page.html"
    status, told, _ = report(str(tiny), "--out", str(target), "--json")
    assert status == 0
    text = target.read_text()
    assert json.loads(told)["bytes"] == len(text.encode()) < BYTES_MAX
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) == len(plots.draw(RunTables(tiny))[0]) >= 8
    for drawing in drawings:
        head = '<svg xmlns:xlink="http://www.w3.org/1999/xlink" '
        ElementTree.fromstring(drawing.replace("<svg ", head, 1))


def test_a_report_is_the_same_each_time(tiny: Path, tmp_path: Path) -> None:
    """So that it can be compared."""
    for name in ("1", "2"):
        assert report(str(tiny), "--out", str(tmp_path / name))[0] == 0
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_every_plot_can_be_a_file(tiny: Path, tmp_path: Path) -> None:
    """PNG and SVG, one for each drawing on the page."""
    names = {plot.name for plot in plots.draw(RunTables(tiny))[0]}
    for kind, head in (("png", b"\x89PNG"), ("svg", b"<svg xmlns=")):
        status, _, _ = report(str(tiny), "--out", str(tmp_path / "page"), "--plots", kind)
        assert status == 0
        files = {path.stem: path for path in (tmp_path / "plots").glob(f"*.{kind}")}
        assert set(files) == names
        assert all(path.read_bytes().startswith(head) for path in files.values())
        for path in files.values() if kind == "svg" else ():
            ElementTree.parse(path)


def test_csv_says_what_the_tables_say(tiny: Path) -> None:
    """Every table, with its header, row by row."""
    status, _, _ = report(str(tiny), "--csv")
    assert status == 0
    run = RunTables(tiny)
    for name, columns in TABLES.items():
        with (tiny / "csv" / f"{name}.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        assert head == [column for column, _, _ in columns]
        values = [[str(value) for value in run[name][column].tolist()] for column in head]
        assert rows == [list(row) for row in zip(*values, strict=True)], name


def test_what_fails_is_drawn_against_what_is_down(hopeless: Path) -> None:
    """And what there is no data for is named."""
    drawn, missing = plots.draw(RunTables(hopeless))
    told = {plot.name: plot.caption for plot in drawn}
    asked = RunTables(hopeless).summary["requests"]
    assert f"{asked} of {asked} requests failed, {asked} of them with " in told["failures"]
    assert "8.3 % of the watched nodes were down" in told["failures"]
    assert {one.name for one in missing} >= {"shares", "revenue"}
    assert report(str(hopeless))[0] == 0
    page = (hopeless / "report.html").read_text()
    assert "This run has no data for: latencies, shares, revenue, exposure." in page


def test_adversaries_stand_beside_the_honest(tmp_path: Path) -> None:
    """Their groups are named in the table of nodes, and red in the drawing."""
    text = TINY + '[[adversaries]]\nkind = "vanish"\ngroup = "dear"\n'
    run = RunTables(ran(tmp_path, text))
    told = dict(zip(run.groups.tolist(), run["nodes"]["adversary"].tolist(), strict=True))
    assert told == {"": "", "cheap": "", "dear": "vanish", "requesters": ""}
    plot = next(plot for plot in plots.draw(run)[0] if plot.name == "revenue")
    assert plot.caption.endswith(" Red: adversaries.")
    honest, red = (bar.get_facecolor() for bar in plot.drawn.axes[0].patches)
    assert honest != red


def test_revenue_is_the_jobs(tiny: Path) -> None:
    """What providers earned is what was paid."""
    run = RunTables(tiny)
    assert run.revenue_ucr.sum() == run.summary["paid_ucr"] > 0
    assert len(run.revenue_ucr) == 5


def test_what_comes_from_a_run_is_escaped(hopeless: Path, tmp_path: Path) -> None:
    """A directory may be somebody else's."""
    summary = json.loads((hopeless / "summary.json").read_text())
    summary["faults"] = ["<script>alert(1)</script>"]
    other = tmp_path / "other"
    other.mkdir()
    for path in hopeless.glob("*.*"):
        (other / path.name).write_bytes(path.read_bytes())
    (other / "summary.json").write_text(json.dumps(summary))
    assert report(str(other))[0] == 0
    page = (other / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_what_is_no_run_is_said_in_one_line(tmp_path: Path) -> None:
    """Not there, not ended, without tables: status 2, and what to do."""
    empty = str(tmp_path)
    for (status, _, error), what in (
        (report(empty + "/none"), "holds no run"),
        (report(empty), "holds no run"),
    ):
        assert (status, error.count("\n")) == (2, 1)
        assert error.startswith("simnet: config.unreadable: ")
        assert what in error
    (tmp_path / "run.json").write_text("{}")
    assert "has not ended" in report(empty)[2]
    (tmp_path / "summary.json").write_text("{}")
    assert "without --no-tables" in report(empty)[2]


@pytest.mark.parametrize(
    ("amounts", "index", "unequal"),
    [
        ([5], 10_000, 0.0),
        ([1, 1, 1, 1], 2_500, 0.0),
        ([0, 0, 0, 8], 10_000, 0.75),
        ([0, 0], 0, 0.0),
    ],
)
def test_hhi_and_gini(amounts: list[int], index: int, unequal: float) -> None:
    """A monopoly, perfect equality, one of four has all, nobody has anything."""
    assert hhi(np.array(amounts)) == index
    assert gini(np.array(amounts)) == pytest.approx(unequal)


def test_two_runs_are_compared(tiny: Path, hopeless: Path, tmp_path: Path) -> None:
    """What was set otherwise, the figures that both have, and a page; a run equals itself."""

    def compare(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["compare", *arguments])
        return result.exit_code, result.stdout

    page = tmp_path / "page.html"
    status, told = compare(str(tiny), str(hopeless), "--out", str(page), "--json")
    found = json.loads(told)
    assert status == 0
    assert found["set"]["duration_s"] == ["20", "10"]
    assert found["set"]["providers.dear.price_permille"] == ["1500", "-"]
    assert found["figures"]["requests done, %"] == [100, 0]
    assert "<svg" in page.read_text()
    assert "https:" not in page.read_text()
    status, told = compare(str(tiny), str(tiny))
    assert status == 0
    assert told
    assert all(line.endswith("  =") for line in told.splitlines())
    assert compare(str(tiny), str(tmp_path))[0] == 2
