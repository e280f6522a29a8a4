"""What sellers charge and promise, by policy, load and luck.

Source: simnet/scenario/market.py, Providers.
"""

from typing import Any

import pytest

from protocol.units import NS_PER_S
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.market.inference import Machine
from simnet.market.pricing import Seller
from simnet.memory import VerifiedOnce
from simnet.peer import Peer
from simnet.scenario.market import GPUS, Model, Providers

DESKTOP = GPUS[1]
MODEL = Model()
REQUEST = bytes(32)


def seller(**group: Any) -> Seller:
    """A seller of one model on a desktop, at exactly the usual speed and price."""
    signer = VerifiedOnce().signer(bytes(32))
    peer = Peer(0, signer, None, Entropy(1, "peer"), "/memory/0")
    machine = Machine(EventHeap(0), peer, DESKTOP, 1_000, lambda *_: None, lambda *_: None)
    return Seller(Providers(**group), machine, (MODEL,), 1_000)


def price(one: Seller) -> int:
    """Of 1,000,000 output tokens."""
    return one.price_ucr(MODEL, output=True)


def occupy(one: Seller, jobs: int) -> None:
    """So many jobs on its machine."""
    one.machine.peer.jobs = dict.fromkeys((bytes([n]) for n in range(jobs)), None)


def test_a_fixed_price_is_the_usual_one_whatever_happens() -> None:
    """Bids, wins and load leave it alone."""
    one = seller(price_permille=1_200)
    assert price(one) == 72_000_000
    for _ in range(50):
        one.bid(REQUEST)
    one.won()
    occupy(one, 4)
    assert price(one) == 72_000_000


def test_cost_plus_is_what_a_full_machine_costs_and_a_margin() -> None:
    """3 credits an hour, four jobs at 70/1.45 tokens/s each: 4.3 credits for a million tokens."""
    one = seller(pricing="cost-plus", margin_permille=500)
    per_hour = 4 * 70 / 1.45 * 3_600
    cost = 3_000_000 / per_hour * 1_000_000
    assert one.cost_ucr(MODEL, output=True) == pytest.approx(cost, rel=0.001)
    assert price(one) == pytest.approx(1.5 * cost, rel=0.001)


def test_a_load_based_price_rises_to_its_top_when_full() -> None:
    """By the part of its places that are taken."""
    one = seller(pricing="load-based", load_permille=500)
    prices = []
    for jobs in range(5):
        occupy(one, jobs)
        prices.append(price(one))
    assert prices == [60_000_000, 67_500_000, 75_000_000, 82_500_000, 90_000_000]


def test_an_undercutter_falls_while_it_loses_but_never_under_cost() -> None:
    """A step after so many lost bids; half a step back for each that it wins."""
    one = seller(pricing="undercutting", undercut_bids=2, undercut_permille=100)
    one.bid(REQUEST)
    assert price(one) == 60_000_000
    one.bid(REQUEST)
    assert price(one) == 54_000_000
    one.won()
    assert price(one) == 56_700_000
    for _ in range(1_000):
        one.bid(REQUEST)
    assert price(one) == one.cost_ucr(MODEL, output=True)


def test_promises_follow_load_and_are_told_when_they_change() -> None:
    """A busy machine is slower for one more; the same promise is not told twice."""
    one = seller()
    (idle,) = one.offers() or ()
    assert one.offers() is None
    assert idle.tokens_per_s_milli == pytest.approx(70_000, rel=0.001)
    assert idle.ttft_ns_per_input_token == NS_PER_S // 3_000
    occupy(one, 3)
    (busy,) = one.offers() or ()
    assert busy.tokens_per_s_milli == pytest.approx(70_000 / 1.45, rel=0.001)
    one.forget_offers()
    assert one.offers() == (busy,)


def test_of_the_requests_a_seller_bids_on_its_part() -> None:
    """Chosen by request and bidder; what it passes by is not a bid that it lost."""
    one = seller(pricing="undercutting", undercut_bids=1, bid_permille=250)
    requests = [number.to_bytes(32, "big") for number in range(2_000)]
    chosen = [one.bid(request) for request in requests]
    assert 400 < sum(chosen) < 600
    assert [one.bid(request) for request in requests] == chosen
    silent = seller(pricing="undercutting", undercut_bids=1, bid_permille=0)
    assert not any(map(silent.bid, requests))
    assert price(silent) == 60_000_000
