"""Scenario files: what is wrong is named by file, line, key and what was expected.

Source: simnet/README.md, "Scenarios".
"""

from pathlib import Path

import pytest

from protocol.errors import ConfigError
from simnet.scenario import Scenario
from simnet.scenario.file import load, ready, write

FAULTS = [
    ("nodes = 'a'", "config.bad_value", ":2: nodes: expected int, got str"),
    ("nodes = 1", "config.bad_value", ":2: nodes: expected int >= 2"),
    ("nodes = 1_000_000", "config.bad_value", ":2: nodes: expected int <= 100000"),
    ("nodes = 4", "config.bad_value", ":2: nodes: 12 providers and 8 requesters need 20 nodes"),
    ("duration_ms = 5", "config.unknown_key", ":2: duration_ms: there is no such key; did you"),
    ("[gossip]\ndegre = 3", "config.unknown_key", ":3: gossip.degre: there is no such key; did"),
    ("[gossip]\ndegree = 3", "config.bad_value", ":3: gossip.degree: expected degree_low"),
    ("[topology]\nkind = 'ring'", "config.bad_value", ":3: topology.kind: 'ring': expected '"),
    ("[topology]\nkind = 'gml'", "config.bad_value", ":2: topology.path: expected the path"),
    ("[latency.regions]\nmars = 1", "config.bad_value", ":2: latency.regions: there is no 'mars'"),
    ("[access]\nlinks = {fat = 1}", "config.bad_value", ":3: access.links: 'fat': expected '"),
    (
        "[[providers]]\ncount = 1\n[[providers]]\nname = 'b'\ngpu = 'x'",
        "config.bad_value",
        ":6: providers[1].gpu: there is no 'x'; there are laptop, desktop, datacenter",
    ),
    ("[[providers]]\nmodels = ['x']", "config.bad_value", ":3: providers[0].models: there is no"),
    ("[[requesters]]\nmodels = {x = 1}", "config.bad_value", ":3: requesters[0].models: there is"),
    ("[[requesters]]\narrivals = 'trace'", "config.bad_value", ":2: requesters[0].trace: expect"),
    (
        "[[requesters]]\ncount = 1\n[requesters.input_tokens]\nmedian = 0\nmax = 3",
        "config.bad_value",
        ":5: requesters[0].input_tokens.median: expected int >= 1",
    ),
    ("[[gpus]]\nname = 'a'", "config.bad_value", ":2: gpus[0]: the key prefill_tokens_per_s is"),
    ("[[models]]\n[[models]]", "config.bad_value", ":2: models: each needs a name of its own"),
    ("name = 'A B'", "config.bad_value", ":2: name: expected str matching regex"),
    ("nodes =", "config.syntax", "(at line 2"),
    ("nodes = 4.5", "config.bad_value", ":2: nodes: expected int, got float"),
]


@pytest.mark.parametrize(("text", "code", "told"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_named_by_place_and_expectation(
    text: str, code: str, told: str, tmp_path: Path
) -> None:
    """One line that a person can act on."""
    path = tmp_path / "wrong.toml"
    path.write_text(f"# a comment\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.code == code
    assert caught.value.detail.startswith(str(path))
    assert told in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("name", ready())
@pytest.mark.parametrize("comments", [True, False])
def test_a_scenario_that_is_written_is_the_same_when_read(
    name: str, comments: bool, tmp_path: Path
) -> None:
    """Whole and resolved, with or without comments."""
    scenario = load(ready()[name])
    assert scenario.name == name
    assert scenario.description
    path = tmp_path / "again.toml"
    path.write_text(write(scenario, comments=comments))
    assert load(path) == scenario


def test_every_key_of_a_written_scenario_says_what_it_means() -> None:
    """Units are in names, meanings in the comment above."""
    lines = write(Scenario(name="x"), comments=True).splitlines()
    keys = [number for number, line in enumerate(lines) if " = " in line and line[0] not in "#["]
    assert len(keys) > 50
    assert [lines[number] for number in keys if not lines[number - 1].startswith("# ")] == []


def test_a_file_without_a_name_has_the_files(tmp_path: Path) -> None:
    """And one that can't be read is told as such."""
    path = tmp_path / "quiet.toml"
    path.write_text("nodes = 30\n")
    assert load(path).name == "quiet"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "nothing.toml")
    assert caught.value.code == "config.unreadable"
