"""What a run will take, before it begins: events, CPU time, memory. Rough, and said so.

The constants were measured on a 2-core machine; see simnet/README.md, "Speed".
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol import limits
from protocol.units import NS_PER_S
from simnet.scenario import Scenario

MIB: Final = 1 << 20
BASE_BYTES: Final = 95 * MIB
NODE_BYTES: Final = 10_000
TRADER_BYTES: Final = 11_000  # in a node that buys or sells
CONNECTION_BYTES: Final = 40
# In a node for each message that it could still be sent again: digest, time, history.
SEEN_BYTES: Final = 90
# In a node for each standing offer: the book's entry, its seller's rate, and, most of all, copies
# on their way when all sellers speak at once.
OFFER_BYTES: Final = 750
# What a request leaves: logs and channels of both sides, rows, prompts.
REQUEST_BYTES: Final = 40_000
HEARTBEAT_CPU_NS: Final = 1_500
COPY_CPU_NS: Final = 3_000
DELIVERY_CPU_NS: Final = 22_000
BID_CPU_NS: Final = 500_000
JOB_CPU_NS: Final = 10_000_000
WINDOW_S: Final = 70


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a whole run."""

    requests: int
    events: int
    cpu_s: float
    memory_bytes: int


def estimate(scenario: Scenario) -> Estimate:
    """What the scenario will probably take here."""
    nodes = scenario.nodes
    seconds = scenario.warmup_s + scenario.duration_s + scenario.drain_s // 3
    requests = sum(group.requests_per_s for group in scenario.requesters) * scenario.duration_s
    sellers = sum(group.count for group in scenario.providers)
    each = [len(group.models) or 1 for group in scenario.providers]
    offers = sum(group.count * many for group, many in zip(scenario.providers, each, strict=True))
    flood = scenario.gossip.router == "flood"
    degree = scenario.topology.degree if flood else scenario.gossip.degree + 1
    messages = requests
    if scenario.standing_offers:
        messages += offers * seconds * NS_PER_S / limits.OFFER_REFRESH_NS
    copies = messages * nodes * min(degree, nodes)
    heartbeats = 0 if flood else nodes * seconds * 1_000 // scenario.gossip.heartbeat_ms
    deliveries = messages * nodes
    bids = requests * min(sellers, max(1, offers // len(scenario.models)))
    cpu_ns = (
        heartbeats * HEARTBEAT_CPU_NS
        + copies * COPY_CPU_NS
        + deliveries * DELIVERY_CPU_NS
        + bids * BID_CPU_NS
        + requests * JOB_CPU_NS
    )
    fresh = min(messages, messages * WINDOW_S / scenario.duration_s)
    traders = sellers + min(requests, sum(group.count for group in scenario.requesters))
    node_bytes = NODE_BYTES + CONNECTION_BYTES * scenario.topology.degree + SEEN_BYTES * fresh
    if scenario.standing_offers:
        node_bytes += OFFER_BYTES * min(offers, limits.OFFERS_KEPT_MAX)
    return Estimate(
        requests=round(requests),
        events=round(copies + 2 * deliveries + heartbeats + 4 * bids + 100 * requests),
        cpu_s=cpu_ns / 1e9,
        memory_bytes=round(
            BASE_BYTES + nodes * node_bytes + traders * TRADER_BYTES + requests * REQUEST_BYTES
        ),
    )


def memory_available_bytes() -> int:
    """What this process may still take: the machine's, or its control group's if that is less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1_024
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        top, now = _lines(Path(folder, limit)), _lines(Path(folder, used))
        if top and now and top[0].isdecimal() and now[0].isdecimal():
            free = min(free, int(top[0]) - int(now[0]))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def memory_used_bytes() -> int:
    """What this process holds now."""
    lines = _lines(Path("/proc/self/statm"))
    return int(lines[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if lines else 0
