"""Adversaries' cores, driven by whole daemons, do what they do in the event heap.

Source: simnet/README.md, "Tiers". Side by side in one run: who is paid, cheated or silenced by
whom comes out the same, to the byte of every log. Left out are `over-claim`, whose rounding
depends on the pieces in which an engine tells its tokens, and `flood`, for its CPU time.
"""

from pathlib import Path
from typing import Any

from simnet.adversaries.core import Adversary
from simnet.scenario import Scenario
from simnet.scenario import adversaries as kinds
from simnet.scenario.market import Providers, Requesters
from simnet.tiers.trio_tier import TrioRun

SELLERS: dict[str, Any] = {
    "vanishing": kinds.Vanish(group="vanishing"),
    "inventing": kinds.Garbage(group="inventing"),
    "miscopying": kinds.WrongDigest(group="miscopying"),
    "boasting": kinds.OverPromise(group="boasting"),
    "ring": kinds.Collude(group="ring"),
    "sniping": kinds.Snipe(group="sniping"),
    "lying": kinds.ClearingLies(group="lying"),
    "forgetful": kinds.Rollback(group="forgetful", at_s=6),
}
ASKERS: dict[str, Any] = {
    "stingy": kinds.StopPaying(group="stingy"),
    "double": kinds.DoubleSpend(group="double"),
    "forgetting": kinds.Rollback(group="forgetting", at_s=8),
}
OTHERS = (
    kinds.Censor(nodes=2),
    kinds.Degrade(nodes=2),
    kinds.Eclipse(nodes=3, victims="victims"),
)


def everybody() -> Scenario:
    """40 nodes, of whom 9 keep the rules and ask or sell."""
    honest = Providers(name="honest", count=4)
    cheap = (Providers(name=name, count=1, price_permille=700) for name in SELLERS)
    people = Requesters(name="people", count=4, requests_per_s=2.0)
    victims = Requesters(name="victims", count=1, requests_per_s=0.3)
    cheats = (Requesters(name=name, count=1, requests_per_s=0.5) for name in ASKERS)
    return Scenario(
        name="everybody",
        nodes=40,
        duration_s=10,
        bids_wanted=6,
        providers=(honest, *cheap),
        requesters=(people, victims, *cheats),
        adversaries=(*SELLERS.values(), *ASKERS.values(), *OTHERS),
    )


def test_adversaries_come_out_the_same_in_both_tiers() -> None:
    """All but two kinds, side by side; the honest daemons around them are not changed."""
    run = TrioRun(everybody(), 1, Path())
    summary = run.go()
    assert summary["checks_ok"], summary["faults"]
    assert summary["decisions"]["same_logs"], summary["decisions"]["differences"]
    assert summary["done"] > 10
    assert summary["offences"]
    cores = [peer.node for peer in run.simulation.peers if isinstance(peer.node, Adversary)]
    assert len(cores) == len(SELLERS) + len(ASKERS) + sum(kind.nodes for kind in OTHERS)
    assert {type(core.settings) for core in cores} >= {type(kind) for kind in SELLERS.values()}
