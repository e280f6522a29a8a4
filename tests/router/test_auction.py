"""Ranking bids: the better one wins, in any order. Source: protocol/README.md, "Ranking"."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import crypto
from protocol.crypto import Signer
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.fields import ChannelTerms, Strategy
from protocol.limits import PRICE_UCR_MAX, U63_MAX
from protocol.messages import Bid, Request
from protocol.units import NS_PER_S, cost_ucr
from router.auction import ScoredBid, check_bid, expected_latency_ns, rank, score_bid
from tests.router.support import ANYBODY, PROMPT, stranger

NOW_NS = 1_700_000_000 * NS_PER_S
WEIGHTS = st.builds(lambda price: Strategy(price, 1000 - price), st.integers(0, 1000))


def make_request(**changes: Any) -> Signed:
    """A request for up to 512 in and 100 out, for at most 100,000 ucr and 60 s."""
    request = Request(
        model="m",
        inference_type=PROMPT.inference_type,
        input_tokens_max=512,
        output_tokens_max=100,
        price_max_ucr=100_000,
        deadline_ns=NOW_NS + 60 * NS_PER_S,
        bid_window_ns=NS_PER_S,
        strategy=Strategy(500, 500),
        filters=ANYBODY,
        redundancy=1,
        ephemeral_key=bytes(32),
        addresses=(),
        prompt_commitment=bytes(32),
    )
    return sign_envelope(stranger(0), "net", replace(request, **changes), NOW_NS)


def make_bid(request: Signed, signer: Signer, **changes: Any) -> ScoredBid:
    """A scored bid of `signer`."""
    bid = Bid(
        request_id=request.digest,
        model_digest=bytes(32),
        input_price_ucr=15_000_000,
        output_price_ucr=60_000_000,
        ttft_ns=NS_PER_S,
        tokens_per_s_milli=50_000,
        expires_at_ns=NOW_NS + 30 * NS_PER_S,
        terms=ChannelTerms(1, 10**9, 1, 1),
        payee_salt=bytes(16),
        addresses=(),
    )
    return score_bid(request, sign_envelope(signer, "net", replace(bid, **changes), NOW_NS))


def refusal(request: Signed, scored: ScoredBid, now_ns: int = NOW_NS) -> tuple[str, bool]:
    """The code with which a bid is not taken, and whether it is an offence."""
    with pytest.raises(RemoteError) as caught:
        check_bid(request, scored, now_ns)
    return caught.value.code, caught.value.penalize


@pytest.mark.parametrize(
    ("ttft_ns", "tokens_per_s_milli", "tokens", "expected_ns"),
    [
        (0, 1_000, 1, NS_PER_S),  # one token a second
        (0, 50_000, 100, 2 * NS_PER_S),
        (NS_PER_S, 50_000, 100, 3 * NS_PER_S),
        (7, U63_MAX, 1, 7),  # faster than a ns a token
        (0, 1, 1, 1_000 * NS_PER_S),  # the slowest that can be stated
    ],
)
def test_expected_latency(
    ttft_ns: int, tokens_per_s_milli: int, tokens: int, expected_ns: int
) -> None:
    """Time to first token, then the tokens at the promised speed."""
    scored = make_bid(
        make_request(), stranger(1), ttft_ns=ttft_ns, tokens_per_s_milli=tokens_per_s_milli
    )
    assert expected_latency_ns(scored.bid, tokens) == expected_ns


def test_score_of_a_known_bid() -> None:
    """By hand: 512 x 15 + 100 x 60 = 13,680 ucr of 100,000; 3 s of 60 s; weights 500 each."""
    scored = make_bid(make_request(), stranger(1))
    assert scored.cost_max_ucr == cost_ucr(512, 100, 15_000_000, 60_000_000) == 13_680
    assert scored.latency_ns == 3 * NS_PER_S
    assert scored.score == 500 * 136_800 + 500 * 50_000


@given(
    weights=WEIGHTS,
    price_max=st.one_of(st.just(PRICE_UCR_MAX), st.integers(1, PRICE_UCR_MAX)),
    prices=st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)),
    saved=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    ttft_ns=st.integers(0, 10**12),
    sooner_ns=st.integers(0, 10**6),
    who=st.tuples(st.integers(0, 99), st.integers(100, 199)),
)
def test_a_dominated_bid_never_wins(
    weights: Strategy,
    price_max: int,
    prices: tuple[int, int],
    saved: tuple[int, int],
    ttft_ns: int,
    sooner_ns: int,
    who: tuple[int, int],
) -> None:
    """A bid that costs no more and is no slower, and differs, ranks ahead for any weights."""
    request = make_request(strategy=weights, price_max_ucr=price_max)
    better = make_bid(
        request,
        stranger(who[0]),
        input_price_ucr=prices[0],
        output_price_ucr=prices[1],
        ttft_ns=ttft_ns,
    )
    worse = make_bid(
        request,
        stranger(who[1]),
        input_price_ucr=prices[0] + saved[0],
        output_price_ucr=prices[1] + saved[1],
        ttft_ns=ttft_ns + sooner_ns,
    )
    better_terms = (better.cost_max_ucr, better.latency_ns)
    if better_terms != (worse.cost_max_ucr, worse.latency_ns):
        assert rank([worse, better])[0] is better


@pytest.mark.parametrize("number", range(8))
def test_a_cheaper_bid_wins_though_the_price_cap_rounds_the_difference_away(number: int) -> None:
    """Regression: with a huge price cap both scores floor to the same number."""
    request = make_request(price_max_ucr=PRICE_UCR_MAX)
    dear = make_bid(request, stranger(number), output_price_ucr=60_010_000)
    cheap = make_bid(request, stranger(50), output_price_ucr=60_000_000)
    assert dear.cost_max_ucr == cheap.cost_max_ucr + 1
    assert rank([dear, cheap]) == [cheap, dear]


@given(st.permutations(range(6)), st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_ranking_does_not_depend_on_the_order_of_arrival(
    order: list[int], tiers: list[int]
) -> None:
    """However bids arrive, ties included, the ranking is one."""
    request = make_request()
    bids = [
        make_bid(request, stranger(number), output_price_ucr=60_000_000 + tier * 10**6)
        for number, tier in enumerate(tiers)
    ]
    assert rank([bids[number] for number in order]) == rank(bids)


def test_equal_bids_are_ordered_by_a_hash_over_request_and_bidder() -> None:
    """A bidder can't choose its place: it changes with every request."""
    orders = set()
    for seconds in range(40, 60):
        request = make_request(deadline_ns=NOW_NS + seconds * NS_PER_S)
        bids = [make_bid(request, stranger(number)) for number in range(4)]
        ranked = rank(bids)
        expected = sorted(
            (crypto.digest(request.digest, stranger(number).public_key), number)
            for number in range(4)
        )
        assert [bids.index(bid) for bid in ranked] == [number for _, number in expected]
        orders.add(tuple(bids.index(bid) for bid in ranked))
    assert len(orders) > 4


@given(
    weights=WEIGHTS,
    price=st.integers(0, PRICE_UCR_MAX),
    ttft_ns=st.integers(0, U63_MAX),
    speed=st.integers(1, U63_MAX),
    price_max=st.integers(0, PRICE_UCR_MAX),
)
def test_scores_are_exact_integers(
    weights: Strategy, price: int, ttft_ns: int, speed: int, price_max: int
) -> None:
    """No float anywhere: a score is an int, >= 0, at every corner of the ranges."""
    request = make_request(strategy=weights, price_max_ucr=price_max)
    scored = make_bid(
        request,
        stranger(1),
        input_price_ucr=price,
        output_price_ucr=price,
        ttft_ns=ttft_ns,
        tokens_per_s_milli=speed,
    )
    for value in (scored.score, scored.cost_max_ucr, scored.latency_ns):
        assert type(value) is int
        assert value >= 0


def test_what_a_request_does_not_take() -> None:
    """Each rule of `check_bid`, at its edge; none is an offence of the bidder."""
    unacceptable = ("bid.unacceptable", False)
    request = make_request()
    check_bid(request, make_bid(request, stranger(1)), NOW_NS)
    expires = make_bid(request, stranger(1)).bid.expires_at_ns
    check_bid(request, make_bid(request, stranger(1)), expires - 1)
    assert refusal(request, make_bid(request, stranger(1)), expires) == unacceptable

    exact = make_request(price_max_ucr=13_680)
    check_bid(exact, make_bid(exact, stranger(1)), NOW_NS)
    under = make_request(price_max_ucr=13_679)
    too_dear = make_bid(under, stranger(1))
    assert refusal(under, too_dear) == ("request.price_too_low", False)

    in_time = make_request(deadline_ns=NOW_NS + 3 * NS_PER_S)
    check_bid(in_time, make_bid(in_time, stranger(1)), NOW_NS)
    assert refusal(in_time, make_bid(in_time, stranger(1)), NOW_NS + 1) == ("bid.too_slow", False)

    listed = replace(ANYBODY, providers_only=(stranger(1).public_key,))
    chosen = make_request(filters=listed)
    check_bid(chosen, make_bid(chosen, stranger(1)), NOW_NS)
    assert refusal(chosen, make_bid(chosen, stranger(2))) == unacceptable

    ignoring = make_request(filters=replace(ANYBODY, providers_ignored=(stranger(2).public_key,)))
    check_bid(ignoring, make_bid(ignoring, stranger(1)), NOW_NS)
    assert refusal(ignoring, make_bid(ignoring, stranger(2))) == unacceptable

    file = make_request(filters=replace(ANYBODY, model_digest=bytes([7]) * 32))
    check_bid(file, make_bid(file, stranger(1), model_digest=bytes([7]) * 32), NOW_NS)
    assert refusal(file, make_bid(file, stranger(1))) == unacceptable
