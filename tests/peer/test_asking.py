"""What a local program asks for: checked, converted, refused. Source: peer/asking.py."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.asking import parse_options, to_ask
from peer.identity import peer_id
from protocol.errors import ConfigError
from protocol.fields import InferenceType

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32


def options(**changes: Any) -> dict[str, Any]:
    """A request as JSON."""
    value: dict[str, Any] = {
        "model": "embedded",
        "messages": [["system", "Be brief."], ["user", "Why?"]],
        "chat": True,
        "max_tokens": 40,
        "temperature_milli": 700,
        "seed": 3,
        "stop": ["\n"],
        "max_price_ucr": 50_000,
        "deposit_ucr": 1_000_000,
        "advance_ucr": 100_000,
        "bid_window_ms": 250,
        "timeout_ms": 30_000,
        "price_weight": 300,
        "providers_only": [peer_id(ONE)],
        "providers_ignored": [peer_id(OTHER)],
    }
    return {**value, **changes}


def test_each_option_reaches_the_request() -> None:
    """Milliseconds become ns, peer ids keys, and the weights add up to 1,000."""
    ask = to_ask(parse_options(options()), 7)
    assert (ask.ask_id, ask.model) == (7, "embedded")
    said = [(message.role, message.content) for message in ask.prompt.messages]
    assert said == [("system", "Be brief."), ("user", "Why?")]
    assert ask.prompt.inference_type is InferenceType.CHAT
    parameters = ask.parameters
    assert (parameters.output_tokens_max, parameters.temperature_milli) == (40, 700)
    assert (parameters.seed, parameters.stop) == (3, ("\n",))
    assert (ask.price_max_ucr, ask.deposit_ucr, ask.advance_max_ucr) == (50_000, 10**6, 10**5)
    assert (ask.bid_window_ns, ask.timeout_ns) == (250_000_000, 30_000_000_000)
    assert (ask.strategy.price_weight, ask.strategy.latency_weight) == (300, 700)
    assert (ask.filters.providers_only, ask.filters.providers_ignored) == ((ONE,), (OTHER,))
    assert (parameters.logprobs, parameters.stop_tokens) == (0, ())
    asked = to_ask(parse_options(options(logprobs=5, stop_tokens=[2, 7])), 7).parameters
    assert (asked.logprobs, asked.stop_tokens) == (5, (2, 7))
    raw = to_ask(parse_options(options(chat=False)), 7)
    assert raw.prompt.inference_type is InferenceType.COMPLETION


@given(prompt=st.text(min_size=1, max_size=50), weight=st.integers(0, 1_000))
def test_options_survive_the_control_socket(prompt: str, weight: int) -> None:
    """What the command sends is what the daemon reads."""
    parsed = parse_options(options(messages=[["user", prompt]], price_weight=weight))
    assert parse_options(json.loads(json.dumps(asdict(parsed)))) == parsed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", "40"),
        ("temperature_milli", 5_001),
        ("seed", -1),
        ("seed", 2**32),
        ("stop", ["x"] * 9),
        ("messages", []),
        ("messages", [["user"]]),
        ("messages", [["user", "x"]] * 65),
        ("chat", 1),
        ("max_price_ucr", -1),
        ("bid_window_ms", 9),
        ("timeout_ms", 3_600_001),
        ("price_weight", 1_001),
        ("model", ""),
    ],
)
def test_option_out_of_range(name: str, value: Any) -> None:
    """Refused by name."""
    with pytest.raises(ConfigError, match=name) as caught:
        parse_options(options(**{name: value}))
    assert caught.value.code == "config.bad_value"


@pytest.mark.parametrize("data", [None, [], "text", {}])
def test_what_is_no_request(data: Any) -> None:
    """Another shape altogether."""
    with pytest.raises(ConfigError):
        parse_options(data)


def test_peer_id_that_is_none() -> None:
    """Named in the error."""
    with pytest.raises(ConfigError, match="nobody"):
        to_ask(parse_options(options(providers_only=["nobody"])), 1)
