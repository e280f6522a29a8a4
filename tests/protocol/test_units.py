"""Money: integers, one rounding, exact decimals.

Source: router/README.md, "Money"; protocol/README.md, "Units and cost".
"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.units import Ucr, cost_ucr, format_credits, milliseconds, parse_credits

TOKENS = st.integers(0, 2**32 - 1)
PRICES = st.integers(0, limits.PRICE_UCR_MAX)


def test_the_golden_case() -> None:
    """1,500 in and 500 out at 15 and 60 credits per million: 52,500 ucr, 0.0525 credit."""
    cost = cost_ucr(1_500, 500, 15_000_000, 60_000_000)
    assert cost == 52_500
    assert format_credits(cost) == "0.0525"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, 15_000_000, 60_000_000), 0),
        ((1, 0, 1, 0), 1),  # a millionth of a ucr is a whole one
        ((1, 1, 400_000, 600_000), 1),  # 0.4 + 0.6: rounded apart it would be 2
        ((1, 1, 400_000, 600_001), 2),
        ((3, 0, 333_333, 0), 1),
        ((3, 0, 333_334, 0), 2),
        ((1_000_000, 0, 7, 0), 7),
    ],
)
def test_cost_is_rounded_up_once_on_the_total(
    arguments: tuple[int, int, int, int], expected: int
) -> None:
    """Not for each kind of token, and never down."""
    assert cost_ucr(*arguments) == expected


@given(TOKENS, TOKENS, PRICES, PRICES)
def test_cost_is_the_exact_price_and_less_than_one_ucr_more(
    tokens_in: int, tokens_out: int, price_in: int, price_out: int
) -> None:
    """And it fits the wire's widest integer for whatever the wire can say."""
    exact = Fraction(tokens_in * price_in + tokens_out * price_out, 1_000_000)
    cost = cost_ucr(tokens_in, tokens_out, price_in, price_out)
    assert 0 <= cost - exact < 1
    assert cost <= limits.U63_MAX


@given(TOKENS, TOKENS, TOKENS, PRICES, PRICES)
def test_cost_never_falls_as_tokens_come(
    tokens_in: int, tokens_out: int, more: int, price_in: int, price_out: int
) -> None:
    """Chunks state the whole price so far; it can only rise, by at most the part's own cost."""
    before = cost_ucr(tokens_in, tokens_out, price_in, price_out)
    after = cost_ucr(tokens_in, tokens_out + more, price_in, price_out)
    assert 0 <= after - before <= cost_ucr(0, more, 0, price_out)


@given(st.integers(0, 10**18 - 1))
def test_credits_survive_the_round_trip(amount: int) -> None:
    """Exact decimals both ways, without trailing zeros."""
    text = format_credits(amount)
    assert parse_credits(text) == amount
    assert "." not in text or not text.endswith("0")
    assert Fraction(text) == Fraction(amount, 1_000_000)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1, "0.000001"), (1_000_000, "1"), (52_500, "0.0525"), (-250_000, "-0.25")],
)
def test_credits_are_written_so(amount: int, text: str) -> None:
    """Literal cases; amounts below 0 appear in balances."""
    assert format_credits(amount) == text


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0.25", 250_000), (" 3 ", 3_000_000), ("0.50", 500_000), ("007", 7 * 10**6)],
)
def test_people_may_write_credits_so(text: str, amount: int) -> None:
    """Spaces around it and needless zeros are no mistakes."""
    assert parse_credits(text) == Ucr(amount)


@pytest.mark.parametrize(
    "text",
    ["", ".", ".5", "-1", "+1", "1e3", "1,5", "1.0000001", "0x10", "1_000", "٣", "1.٣", "1.2.3",
     "1 000", "nan", "inf", "1000000000000", "1.-5"],
)  # fmt: skip
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Signs, exponents, seventh decimals, other digits, and more than 10^12 credits."""
    with pytest.raises(ValueError, match="not an amount in credits"):
        parse_credits(text)


def test_milliseconds_are_for_people() -> None:
    """Three decimals of a millisecond are microseconds."""
    assert milliseconds(1_234_567) == 1.235
