"""How fast markets run: events per CPU-second, virtual to real time, memory a node, by size.

    python -m tests.bench.simnet [--nodes 100,1000,10000] [--seconds 30] [--json]

Each size is a process of its own: one request a second, 5 % of the nodes sell (at most 50), all of
the market on, no tables. `--profile` prints where the time of the largest goes instead.
"""

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from simnet.runs.estimate import memory_used_bytes
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.scenario.market import Providers, Requesters

SELLERS_MAX = 50


def scenario(nodes: int, seconds: int) -> Scenario:
    """One request a second over `nodes`."""
    sellers = min(SELLERS_MAX, max(5, nodes // 20))
    return Scenario(
        name="bench",
        nodes=nodes,
        duration_s=seconds,
        providers=(Providers(count=sellers, pricing="load-based"),),
        requesters=(Requesters(count=nodes // 2, requests_per_s=1.0),),
    )


def measure(nodes: int, seconds: int) -> dict[str, Any]:
    """One run, here."""
    before = memory_used_bytes()
    started = time.perf_counter()
    told = Run(scenario(nodes, seconds), 1, Path()).go()
    wall_s = time.perf_counter() - started
    assert told["checks_ok"], told["faults"]
    return {
        "nodes": nodes,
        "events": told["events"],
        "events_per_cpu_s": told["events_per_cpu_s"],
        "virtual_s": told["virtual_s"],
        "cpu_s": told["cpu_s"],
        "virtual_per_cpu_s": round(told["virtual_s"] / told["cpu_s"], 1),
        "virtual_per_wall_s": round(told["virtual_s"] / wall_s, 1),
        "build_cpu_s": told["build_cpu_s"],
        "bytes_per_node": (memory_used_bytes() - before) // nodes,
        "requests": told["requests"],
        "bids": told["bids"],
        "done": told["done"],
        "trace_hash": told["trace_hash"],
    }


def measure_apart(nodes: int, seconds: int) -> dict[str, Any]:
    """One run in a process of its own, so that memory is its own too."""
    command = [sys.executable, "-m", "tests.bench.simnet", "--only", str(nodes)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=1_800, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure and print a line a size, or one JSON object."""
    parser = argparse.ArgumentParser(description="How fast markets run, by size")
    parser.add_argument("--nodes", default="100,1000,10000")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only", type=int, help="this size in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.seconds)))
        return
    sizes = [int(size) for size in options.nodes.split(",")]
    if options.profile:
        with cProfile.Profile() as profile:
            measure(max(sizes), options.seconds)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    rows = [measure_apart(nodes, options.seconds) for nodes in sizes]
    if options.json:
        print(json.dumps({"seconds": options.seconds, "sizes": rows}))
        return
    for row in rows:
        print(*(f"{name}={value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
