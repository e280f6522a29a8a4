"""What a run was said to take, against what it took.

Source: simnet/README.md, "Speed".
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simnet.runs.estimate import MIB, estimate
from simnet.scenario.file import load

MARKET = """
nodes = 240
duration_s = 20
standing_offers = {offers}
[record]
deliveries_ppm = 0
[[providers]]
count = {sellers}
[[requesters]]
count = 60
requests_per_s = 0.2
"""
RUN = "from simnet.cli import main; main()"


@pytest.mark.parametrize(("offers", "sellers"), [("false", 60), ("true", 60)])
def test_memory_is_foreseen(offers: str, sellers: int, tmp_path: Path) -> None:
    """Within a factor of 1.5, in a process of its own."""
    path = tmp_path / "market.toml"
    path.write_text(MARKET.format(offers=offers, sellers=sellers))
    command = [sys.executable, "-c", RUN, "run", str(path), "--check", "end", "--quiet", "--json"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    taken_mib = json.loads(done.stdout)["rss_mib"]
    expected_mib = estimate(load(path)).memory_bytes / MIB
    assert taken_mib / 1.5 < expected_mib < taken_mib * 1.5


def test_offers_of_many_sellers_are_foreseen_where_they_weigh(tmp_path: Path) -> None:
    """Against measured peaks: 1,000 nodes and 190 sellers, a minute and 20 s; what all else takes
    was 66 MiB and offers 172 MiB more."""
    path = tmp_path / "market.toml"
    text = MARKET.replace("240", "1000").replace("60\nreq", "300\nreq")
    expected = []
    for offers in ("false", "true"):
        path.write_text(text.format(offers=offers, sellers=190))
        expected.append(estimate(load(path)).memory_bytes / MIB)
    assert 172 / 1.5 < expected[1] - expected[0] < 172 * 1.5
