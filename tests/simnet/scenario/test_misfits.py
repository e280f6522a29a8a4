"""Sizes and names that do not fit each other, and files that a scenario names.

Source: simnet/README.md, "Scenarios".
"""

from pathlib import Path

import pytest

from protocol.errors import ConfigError
from simnet.scenario.file import load

WRONG = {
    "degree, twenty nodes": (
        "[topology]\ndegree = 30",
        ":3: topology.degree: expected at most 19, of 20",
    ),
    "an odd number of ends": (
        "nodes = 21\n[topology]\ndegree = 3",
        ":4: topology.degree: expected an even degree * nodes for random-regular",
    ),
    "half of a neighbour": (
        "[topology]\nkind = 'watts-strogatz'\ndegree = 3",
        ":4: topology.degree: expected an even number of 2 or more",
    ),
    "nobody to link to": (
        "[topology]\nkind = 'barabasi-albert'\ndegree = 1",
        ":4: topology.degree: expected an even number of 2 or more",
    ),
    "hubs alone": (
        "[topology]\nkind = 'star'\nhubs = 20",
        ":4: topology.hubs: expected at most 19",
    ),
    "an internet of six": (
        "nodes = 6\n[[providers]]\ncount = 1\n[[requesters]]\ncount = 1\n"
        "[topology]\nkind = 'internet'",
        ":8: topology.kind: expected 7 nodes or more",
    ),
    "offered, not kept": (
        "[gossip]\nhistory = 2",
        ":2: gossip.history_offered: expected at most history, 2",
    ),
    "grey before silent": (
        "[gossip.scoring]\ngraylist_threshold = -1",
        ":3: gossip.scoring.graylist_threshold: expected at most gossip_threshold, -10.0",
    ),
    "a window after the end": (
        "[[requesters]]\nbid_window_ms = 1000\ntimeout_s = 1",
        ":3: requesters[0].bid_window_ms: expected less than timeout_s, 1 s",
    ),
    "a hedge after the end": (
        "[[requesters]]\nhedge_percent = 200\nhedge_floor_ms = 60_000",
        ":4: requesters[0].hedge_floor_ms: expected less than timeout_s, 60 s",
    ),
    "a median over all": (
        "[[requesters]]\n[requesters.output_tokens]\nmedian = 9\nmax = 8",
        ":3: requesters[0].output_tokens: expected median <= max, not 9 and 8",
    ),
    "one name, two groups": (
        "[[requesters]]\nname = 'providers'",
        ":2: requesters: each needs a name of its own",
    ),
    "a model twice": (
        "[[providers]]\nmodels = ['small', 'small']",
        ":3: providers[0].models: expected each model once",
    ),
    "after the end": (
        "[[faults]]\nkind = 'crash'\nat_s = 30",
        ":4: faults[0].at_s: expected less than duration_s, 30",
    ),
    "more than there are": (
        "[[faults]]\nkind = 'crash'\ngroup = 'requesters'\nnodes = 9",
        ":5: faults[0].nodes: expected at most 8",
    ),
    "one side": (
        "[[faults]]\nkind = 'partition'\nnodes = 20",
        ":4: faults[0].nodes: expected less than 20: there are two sides",
    ),
    "bridges alone": (
        "[[faults]]\nkind = 'partition'\nshape = 'bridge'\nnodes = 2\nbridges = 20",
        ":6: faults[0].bridges: expected less than nodes, 20",
    ),
    "too late to roll back": (
        "[[adversaries]]\nkind = 'rollback'\ngroup = 'providers'\nat_s = 40",
        ":5: adversaries[0].at_s: expected less than duration_s, 30",
    ),
    "nobody's eclipse": (
        "nodes = 30\n[[adversaries]]\nkind = 'eclipse'\nvictims = ''",
        ":5: adversaries[0].victims: there is no ''; there are providers, requesters",
    ),
    "more victims than members": (
        "nodes = 30\n[[adversaries]]\nkind = 'eclipse'\nvictim_nodes = 9",
        ":5: adversaries[0].victim_nodes: expected at most 8, as many as requesters has",
    ),
    "a number that fills a page": ("nodes = " + "9" * 6_000, ": "),
    "a hall of mirrors": ("x = " + "[" * 20_000, ": nested too deep"),
}
GRAPH, MATRIX, TRACE = (
    "[topology]\nkind = '{}'\npath = 'it'",
    "[latency]\nmatrix = 'it'",
    "[[requesters]]\narrivals = 'trace'\ntrace = 'it'",
)
EDGES, GML = GRAPH.format("edges"), GRAPH.format("gml")
FILES = {
    "no graph": (GML, None, ":4: topology.path: ", "it: No such file"),
    "no matrix": (MATRIX, None, ":3: latency.matrix: ", "it: No such file"),
    "no trace": (TRACE, None, ":4: requesters[0].trace: ", "it: No such file"),
    "a folder": (EDGES.replace("'it'", "'.'"), None, ":4: topology.path: ", "expected a file"),
    "a NUL": (EDGES.replace("'it'", '"\\u0000"'), None, ":4: topology.path: ", "null"),
    "no text": (EDGES, b"0 1\n\xff", ":4: topology.path: ", "it: line 2: expected UTF-8"),
    "a half edge": (
        EDGES,
        b"0 1\n2\n",
        ":4: topology.path: ",
        "it: line 2: expected two node numbers from 0 to 19, not '2'",
    ),
    "a node of elsewhere": (EDGES, b"0 20", ":4: ", "it: line 1: expected two node numbers"),
    "no list": (GML, b"graph [\n node 1\n", ":4: ", "it: expected a GML graph: line 3: expected"),
    "two kinds of ids": (GML, b'graph [ node [ id 1 ] node [ id "a" ] ]', ":4: ", "of one kind"),
    "a line too few": (MATRIX, b",a,b\na,1,2\n", ":3: ", "it: expected 2 lines after the first"),
    "no number": (
        MATRIX,
        b",a\n\na,x\n",
        ":3: latency.matrix: ",
        "it: line 3: expected 'a' and 1 round trips of 0 to 60000 ms, not 'x'",
    ),
    "no number at all": (MATRIX, b",a\na,nan\n", ":3: ", "it: line 2: expected 'a'"),
    "another region": (
        MATRIX + "\nregions = {dublin = 1}",
        b",a\na,1\n",
        ":4: latency.regions: there is no 'dublin' in ",
        "it; there are a",
    ),
    "back in time": (TRACE, b"at_s\n2\n1\n", ":4: ", "it: line 3: expected at_s[,input_tokens"),
    "never": (TRACE, b"inf\n", ":4: ", "it: line 1: expected at_s"),
    "a cell for ever": (TRACE, b'"' + b"a" * 140_000, ":4: ", "it: line 1: expected at_s"),
    "another model": (
        TRACE,
        b"1,5,5,large\n",
        ":4: requesters[0].trace: ",
        "it: line 1: expected a model of small, not 'large'",
    ),
}


def refused(path: Path, text: str) -> str:
    """What is said of a scenario."""
    path.write_text(f"# a comment\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.detail


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_named_by_place_and_expectation(name: str, tmp_path: Path) -> None:
    """Never run as something else than was asked for."""
    text, told = WRONG[name]
    assert refused(tmp_path / "w.toml", text).startswith(f"{tmp_path / 'w.toml'}{told}")


@pytest.mark.parametrize("name", FILES)
def test_a_named_file_is_read_with_the_scenario(name: str, tmp_path: Path) -> None:
    """Both files are named, the key of one and the line of the other."""
    text, content, where, told = FILES[name]
    if content is not None:
        (tmp_path / "it").write_bytes(content)
    said = refused(tmp_path / "w.toml", text)
    assert said.startswith(f"{tmp_path / 'w.toml'}{where}")
    assert told in said


def test_a_degree_that_is_left_out_fits_the_nodes(tmp_path: Path) -> None:
    """The usual one, or what so few nodes can have."""
    path = tmp_path / "few.toml"
    for kind, nodes, degree in (
        ("random-regular", 30, 16),
        ("random-regular", 8, 7),
        ("watts-strogatz", 8, 6),
    ):
        groups = "[[providers]]\ncount = 1\n[[requesters]]\ncount = 1\n"
        path.write_text(f"nodes = {nodes}\n{groups}[topology]\nkind = '{kind}'\n")
        assert load(path).topology.degree == degree


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("nodess", 1, "--set nodess: there is no such key; did you mean nodes?"),
        ("gossip.degre", 1, "--set gossip.degre: there is no such key; did you mean degree?"),
        ("providers.providers.count", 0, "--set providers.providers.count: expected int >= 1"),
        ("gossip", {"degre": 1}, "--set gossip: gossip.degre: there is no such key; did you"),
        ("nodes.x", 1, "--set nodes.x: nodes is no table"),
    ],
)
def test_a_wrong_change_is_blamed_on_the_change(
    key: str, value: object, told: str, tmp_path: Path
) -> None:
    """Not on a line of the file that is right."""
    path = tmp_path / "right.toml"
    path.write_text("nodes = 20\n[[providers]]\nname = 'providers'\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {key: value})
    assert caught.value.detail.startswith(told)


def test_a_change_that_fits_nothing_else_is_named_beside_what_it_does_not_fit(
    tmp_path: Path,
) -> None:
    """The line is the file's, the cause may not be."""
    path = tmp_path / "right.toml"
    path.write_text("nodes = 20\n")
    with pytest.raises(ConfigError, match=r"right.toml:1: nodes: 14 .* 20 \(with --set providers"):
        load(path, {"providers.count": 14})
