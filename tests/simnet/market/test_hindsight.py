"""Regret: what the chosen seller's score is over the best one's.

Source: simnet/market/hindsight.py; protocol/README.md, "Ranking".
"""

from dataclasses import replace

import pytest

from protocol.units import NS_PER_S
from simnet.market.hindsight import regret_permille, score
from tests.router.support import make_ask
from tests.simnet.market.test_pricing import seller


def test_regret_is_over_the_best_of_all() -> None:
    """By price alone: half as dear again is 500 ‰; the best regrets nothing."""
    ask = make_ask(model="small", price_max_ucr=10**6)
    ask = replace(ask, strategy=replace(ask.strategy, price_weight=1_000, latency_weight=0))
    sellers = {4: seller(), 7: seller(price_permille=1_500)}
    assert regret_permille(ask, 4, sellers) == 0
    assert regret_permille(ask, 7, sellers) == pytest.approx(500, abs=2)
    assert regret_permille(ask, 9, sellers) == 0


def test_a_seller_of_another_model_is_no_choice() -> None:
    """Nobody regrets what could not be had."""
    ask = make_ask(model="other")
    assert regret_permille(ask, 4, {4: seller(), 7: seller(price_permille=10)}) == 0


def test_a_score_is_that_of_the_ranking() -> None:
    """Half by cost over the cap, half by latency over the time there is."""
    ask = make_ask(model="small", price_max_ucr=10**6, timeout_ns=60 * NS_PER_S)
    ask = replace(ask, strategy=replace(ask.strategy, price_weight=500, latency_weight=500))
    offer = replace(
        seller().offer(seller().models[0], b""),
        input_price_ucr=0,
        output_price_ucr=0,
        ttft_ns=6 * NS_PER_S,
        ttft_ns_per_input_token=0,
        tokens_per_s_milli=10**12,
    )
    assert score(ask, offer) == pytest.approx(500 * 0.1 * 1_000_000, rel=0.01)
