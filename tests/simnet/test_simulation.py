"""Scenarios in virtual time: one trace for (scenario, seed, commit), and people are served.

Source: simnet/README.md.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from protocol.units import NS_PER_S
from router import actions as act
from simnet.recording.recorder import Recorder
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.scenario.market import Providers, Requesters
from simnet.scenario.network import Access, Gossip, Latency, Scoring, Topology
from simnet.simulation import Simulation

ROOT = Path(__file__).parents[2]


def scenario(**changes: Any) -> Scenario:
    """30 nodes of which 10 sell and 6 ask, for ten seconds."""
    given: dict[str, Any] = {
        "name": "small",
        "nodes": 30,
        "duration_s": 10,
        "providers": (Providers(count=10, pricing="load-based"),),
        "requesters": (Requesters(count=6, requests_per_s=1.5),),
    }
    return Scenario(**(given | changes))


def summary_of(settings: Scenario, seed: int = 1) -> dict[str, Any]:
    """The summary of a run without tables."""
    return Run(settings, seed, Path()).go()


def hard() -> Scenario:
    """All that draws: loss, duplicates, scores, fanout, bursts, every kind of price."""
    kinds = ("fixed", "cost-plus", "load-based", "undercutting")
    return scenario(
        topology=Topology(kind="internet"),
        access=Access(links={"home": 1, "bad": 1}, loss_ppm=10_000, duplicate_ppm=50_000),
        gossip=Gossip(scoring=Scoring(enabled=True)),
        providers=tuple(Providers(name=kind, count=3, pricing=kind) for kind in kinds),
        requesters=(
            Requesters(name="a", count=3, arrivals="bursts", burst_size=3),
            Requesters(name="b", count=3, arrivals="diurnal", day_s=5, subscribed=False),
        ),
    )


def trace_elsewhere(hash_seed: str) -> str:
    """The trace of the hard scenario in a process of its own."""
    program = "from tests.simnet.test_simulation import *;print(summary_of(hard())['trace_hash'])"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_seed_gives_one_trace_under_any_hash_seed() -> None:
    """Nothing depends on the order of a set, the clock or the process."""
    traces = {trace_elsewhere(hash_seed) for hash_seed in ("0", "7")}
    assert traces == {summary_of(hard())["trace_hash"]}


def test_a_seed_decides() -> None:
    """The same one twice is the same; another is not."""
    first = summary_of(hard(), 1)
    assert summary_of(hard(), 1)["trace_hash"] == first["trace_hash"]
    assert summary_of(hard(), 2)["trace_hash"] != first["trace_hash"]


@pytest.mark.parametrize(
    "kind", ["random-regular", "watts-strogatz", "barabasi-albert", "internet", "star", "regions"]
)
@pytest.mark.parametrize("router", ["gossipsub", "flood"])
def test_everybody_is_served_on_every_graph(kind: Any, router: Any) -> None:
    """Each message reaches all, each request ends with a receipt, all channels settle."""
    settings = scenario(topology=Topology(kind=kind, degree=8), gossip=Gossip(router=router))
    told = summary_of(settings)
    assert told["faults"] == []
    assert told["requests"] == told["done"] > 5
    whole = told["gossip"]["messages"] * (settings.nodes - 1)
    # A hub has few of its leaves in its mesh, and offers to six of the others a heartbeat.
    least = {"star": 0.7, "internet": 0.95}.get(kind, 1) if router == "gossipsub" else 1
    assert whole * least <= told["gossip"]["deliveries"] <= whole
    assert told["settled_ucr"] == told["paid_ucr"] > 0


def test_a_crowd_that_can_not_be_served_fails_with_a_reason() -> None:
    """Two places for a crowd: some are served, the others are told why not; money stays."""
    settings = scenario(
        providers=(Providers(count=1, gpu="laptop"),),
        requesters=(Requesters(count=20, requests_per_s=8.0),),
    )
    told = summary_of(settings)
    assert told["faults"] == []
    assert told["done"] > 0
    assert told["failed"] == sum(told["failures"].values()) > 0
    assert told["done"] + told["failed"] == told["requests"]


def test_nobody_spends_more_than_its_budget() -> None:
    """A request that the budget could not pay is not asked."""
    settings = scenario(requesters=(Requesters(count=2, requests_per_s=4.0, budget_ucr=60_000),))
    told = summary_of(settings)
    assert told["skipped"] > 0
    assert 0 < told["paid_ucr"] <= 2 * 60_000


def test_losses_slow_streams_and_thin_out_gossip_and_break_nothing() -> None:
    """One packet in five is lost: the market goes on, slower."""
    clear = summary_of(scenario(access=Access(links={"fast": 1})))
    lossy = summary_of(scenario(access=Access(links={"fast": 1}, loss_ppm=200_000)))
    assert lossy["faults"] == []
    assert lossy["done"] > 0
    assert lossy["first_text_ms"]["p50"] > clear["first_text_ms"]["p50"]
    assert lossy["gossip"]["duplicates"] < clear["gossip"]["duplicates"]


def test_standing_offers_save_the_auction() -> None:
    """Where providers say what they sell, an award goes out at once: no bids, no window.

    In one region: the best offer may be far off, while an auction that closes early hears from
    those first that are near.
    """
    near = Latency(regions={"dublin": 1})
    auction = summary_of(scenario(latency=near))
    group = Requesters(count=6, requests_per_s=1.5, use_offers=True)
    offers = summary_of(scenario(latency=near, standing_offers=True, requesters=(group,)))
    assert offers["faults"] == []
    assert offers["done"] == offers["requests"]
    assert offers["award_ms"]["p50"] < auction["award_ms"]["p50"] / 2
    assert offers["bids"] < auction["bids"] / 2


def share_of_a_star(**gossip: Any) -> float:
    """The share of deliveries that 20 leaves on one hub get."""
    settings = scenario(
        nodes=21,
        duration_s=30,
        topology=Topology(kind="star"),
        gossip=Gossip(**gossip),
        providers=(Providers(count=1),),
        requesters=(Requesters(count=20, requests_per_s=1.0),),
    )
    told = summary_of(settings)["gossip"]
    return float(told["deliveries"]) / (told["messages"] * 20)


def test_a_star_starves_as_it_was_measured_on_libp2p() -> None:
    """Stock gossipsub starves the leaves that a hub prunes; offers in back-off mostly feed them,
    and a hub that keeps all in its mesh feeds them all. Measured there: 37, 86 and 100 %."""
    stock = share_of_a_star(offers_in_back_off=False, back_off_s=60)
    offered = share_of_a_star()
    wide = share_of_a_star(degree_high=128)
    assert 0.25 < stock < 0.55
    assert offered > 0.8
    assert wide == 1.0


@pytest.mark.parametrize("dies", [False, True])
def test_a_node_that_died_remembers_no_bid_that_was_not_delivered(
    monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Regression: it was told in its next life, and put the bid on the topic. Found by holding
    the simulator against whole daemons."""
    simulation = Simulation(scenario(), 1, Recorder(None), Path())
    given: list[type] = []
    monkeypatch.setattr(simulation, "give", lambda peer, item: given.append(type(item)))
    seller = simulation.peers[next(iter(simulation.sellers))]
    simulation._send_bid(seller, act.SendBid(bytes(32), (), bytes(32), b"to nobody"))
    if dies:
        simulation.crash(seller)
        simulation.restart(seller)
    simulation.run(10 * NS_PER_S)
    assert (act.BidUndelivered in given) is not dies
