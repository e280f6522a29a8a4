"""A scenario's market on real stacks: py-libp2p over loopback, real disks, the wall clock.

Source: simnet/README.md, "Tiers".
"""

import json
import subprocess
import sys
from pathlib import Path

from protocol.units import NS_PER_S
from simnet.scenario import Scenario
from simnet.tiers.calibration import line
from simnet.tiers.stacks import measure

SMALL = """
name = "small"
nodes = 4
warmup_s = 0
duration_s = 1
standing_offers = true
[[providers]]
count = 2
[[requesters]]
count = 1
arrivals = "bursts"
burst_size = 3
requests_per_s = 6.0
output_tokens = { median = 20, max = 40 }
"""


def simnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One call of the command."""
    command = [sys.executable, "-c", "from simnet.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_market_runs_on_libp2p(tmp_path: Path) -> None:
    """Requests are awarded, answered and settled; both ends' logs agree; the summary says how."""
    scenario, out = tmp_path / "small.toml", tmp_path / "out"
    scenario.write_text(SMALL)
    ran = simnet("run", str(scenario), "--tier", "live", "--json", "-q", "--out", str(out))
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert summary["tier"] == "live"
    assert summary["done"] == summary["requests"] > 0
    assert summary["settled_ucr"] == summary["paid_ucr"] > 0
    # Each of the others heard each message, once for the market.
    gossip = summary["gossip"]
    assert gossip["deliveries"] == 3 * gossip["messages"] > 0
    assert summary["groups"]["providers"]["tokens_sold"] > 0
    assert (out / "deliveries.parquet").exists()


def test_stacks_are_measured_as_they_are_linked() -> None:
    """On a line of three every message comes to each once, over the hops that there are, and
    both reading and writing cost something."""
    found = measure(line(3), Scenario(name="three"), 12)
    assert found.ratio == 1.0
    assert found.duplicates == 0
    assert found.hops == 12 // 3 * (1 + 2 + 1 + 1 + 2 + 1)
    assert 0 < found.write_ns < 12 * 2 * NS_PER_S / 100
    assert 0 < found.read_ns < 12 * 2 * NS_PER_S / 100
