"""Filler text: as many bytes a token as its kind has, and as many tokens as were made."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.market.inference import (
    TOKEN_MILLIBYTES_MAX,
    TOKEN_MILLIBYTES_MIN,
    filler,
    token_millibytes,
    tokens_of,
)
from simnet.market.workload import Arrival, Asking
from simnet.scenario import Scenario
from simnet.scenario.market import Requesters


@given(st.integers(0, 600), st.integers(TOKEN_MILLIBYTES_MIN, TOKEN_MILLIBYTES_MAX))
def test_a_text_has_the_tokens_and_bytes_of_its_kind(tokens: int, millibytes: int) -> None:
    """In any pieces: what is cut between tokens counts the same together."""
    text = filler(tokens, millibytes)
    assert tokens_of(text) == tokens
    assert len(text) == tokens * millibytes // 1_000
    assert filler(tokens) == "abc " * tokens
    if tokens:
        assert abs(token_millibytes(text) - millibytes) <= 1_000 // tokens + 1


@pytest.mark.parametrize(("spread", "kinds"), [(0, 1), (250, 40)])
def test_requests_are_of_many_kinds_where_the_scenario_says_so(spread: int, kinds: int) -> None:
    """About four bytes a token each, and nothing else of an ask is drawn otherwise."""
    asks = []
    for group in (Requesters(), Requesters(text_spread_permille=spread)):
        asking = Asking(Scenario(name="texts"), group, 1, Path())
        asks.append([asking.make(number, Arrival(0)) for number in range(50)])
    plain, mixed = asks
    texts = [ask.prompt.messages[0].content for ask, _ in mixed]
    sizes = [token_millibytes(text) for text in texts]
    assert len(set(sizes)) >= kinds
    assert 3_400 < sum(sizes) / len(sizes) < 4_700
    assert [tokens for _, tokens in plain] == [tokens for _, tokens in mixed]
    assert [tokens_of(ask.prompt.messages[0].content) for ask, _ in plain] == [
        tokens_of(text) for text in texts
    ]
