"""What a program says of a request: its defaults, and what is refused before anything is sent.

Source: peer/client/settings.py.
"""

from dataclasses import replace
from typing import Any

import pytest

from peer.asking import parse_options, to_ask
from peer.client.settings import ask_params
from peer.config import RequesterConfig
from protocol.errors import ConfigError

DEFAULTS = RequesterConfig(model="some", max_price="0.5", timeout_s=7, standing_offers=True)


def test_what_is_left_out_is_configured() -> None:
    params = ask_params("Why?", {}, DEFAULTS)
    assert params["messages"] == (("user", "Why?"),)
    assert (params["model"], params["max_price_ucr"]) == ("some", 500_000)
    assert (params["timeout_ms"], params["use_offers"], params["chat"]) == (7_000, True, True)
    assert parse_options(params).max_tokens == 256


def test_what_is_said_counts_and_none_is_not_said() -> None:
    given: dict[str, Any] = {"model": "other", "max_price": "0.01", "auction": True, "raw": True}
    params = ask_params("Once", {**given, "seed": None, "temperature": 0.25}, DEFAULTS)
    assert (params["model"], params["max_price_ucr"]) == ("other", 10_000)
    assert (params["use_offers"], params["chat"], params["seed"]) == (False, False, 1)
    assert params["temperature_milli"] == 250


def test_a_chat_keeps_its_order_behind_the_system_message() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    params = ask_params(turns, {"system": "Be brief."}, DEFAULTS)
    assert [role for role, _ in params["messages"]] == ["system", "user", "assistant"]


def test_races_hedges_and_fallbacks_are_settings_of_a_request() -> None:
    """As in [requester] where nothing is said; a race is of two if no number is."""
    assert ask_params("Why?", {}, DEFAULTS)["fallbacks"] is DEFAULTS.fallbacks is True
    given = {"strategy": "race", "hedge_percent": 0, "fallbacks": False}
    ask = to_ask(parse_options(ask_params("Why?", given, DEFAULTS)), 1)
    assert (ask.choice.race, ask.choice.hedge_factor_milli, ask.choice.awards_max) == (2, 0, 2)


def test_the_early_close_is_a_setting_of_a_request_and_of_requesters() -> None:
    defaults = replace(DEFAULTS, early_close_bids=10)
    for given, bids in (({}, 10), ({"early_close_bids": 0}, 0)):
        assert (
            to_ask(parse_options(ask_params("Why?", given, defaults)), 1).early_close_bids == bids
        )


def test_the_quantisations_said_are_those_wanted() -> None:
    """None said, or an empty list of flags, means those of [requester]."""
    defaults = replace(DEFAULTS, quantizations=("int8",))
    for given, found in (({"quantizations": ["q4_k_m"]}, ("Q4_K_M",)), ({}, ("int8",))):
        ask = to_ask(parse_options(ask_params("Why?", given, defaults)), 1)
        assert ask.choice.quantizations == found
    assert ask_params("Why?", {"quantizations": ()}, defaults)["quantizations"] == ("int8",)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_token": 5}, "did you mean max_tokens?"),
        ({"max_price": 0.05}, "in quotes"),
        ({"max_price": "a lot"}, "max_price"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"timeout_s": 1.5}, "timeout_s"),
        ({"only": ["nobody"]}, "nobody"),
        ({"quantizations": ["q4"]}, "no quantisation 'q4'"),
        ({"quantizations": "int4"}, "quantizations"),
        ({"seed": -1}, "seed"),
        ({"stop": "x"}, "stop"),
        ({"stop": 5}, "stop"),
        ({"system": 5}, "messages"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask_params("Why?", settings, DEFAULTS)
    assert said in caught.value.detail


@pytest.mark.parametrize("chat", [[], [{"role": "user"}], [{}], ["hello"]])
def test_a_chat_that_is_none(chat: Any) -> None:
    with pytest.raises(ConfigError):
        ask_params(chat, {}, DEFAULTS)
