"""`peerd chat` in a pipe: turns that know of each other, prices, failures.

Source: README, "Commands".
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.support import PATIENCE_S, Market, command, environment, provider_flags, run


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A requester and a provider."""
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("chat"), stack)
        market.sell(provider_flags(steps_per_s_max=200))
        yield market


def chat(lines: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("chat", *flags),
        env=environment(),
        input=lines,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_turns_are_kept_billed_and_forgotten(market: Market) -> None:
    home = str(market.requester.directory)
    lines = "What is the capital of France?\n\nAnd of Italy?\n/clear\nHello\n/quit\nnever asked\n"
    done = chat(lines, "--data", home, "--json", "--temperature", "0", "--max-tokens", "30")
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["turn"] for turn in turns] == [1, 2, 3]
    assert "Paris" in turns[0]["answer"]
    # The second question carries the first and its answer; the third begins anew.
    assert turns[1]["input_tokens"] > turns[0]["input_tokens"] + turns[0]["output_tokens"]
    assert turns[2]["input_tokens"] < turns[1]["input_tokens"]
    assert turns[2]["spent_ucr"] == sum(turn["cost_ucr"] for turn in turns)
    assert len({turn["receipt_id"] for turn in turns}) == 3


def test_for_people_the_answer_is_stdout_and_the_bill_stderr(market: Market) -> None:
    home = str(market.requester.directory)
    done = chat("What is the capital of France?\n", "--data", home, "--temperature", "0")
    assert done.returncode == 0
    assert "Paris" in done.stdout
    assert "credits" not in done.stdout
    assert "tokens in" in done.stderr
    assert market.providers[0].peer_id[-8:] in done.stderr


def test_a_quantisation_that_nobody_states_is_refused(market: Market) -> None:
    """The embedded model is Q8_0: by class or name it is asked, in a chat as in a question."""
    home = ("--data", str(market.requester.directory))
    for name, code in (("int8", 0), ("int4", 1)):
        done = chat("Hello\n", *home, "--json", "--max-tokens", "5", "--quantization", name)
        assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["error"] == "bid.other_quantization"
    question = ("ask", "Hello", *home, "--max-tokens", "5")
    asked = run(*question, "--quantization", "int4", "--quantization", "q8_0")
    assert asked.returncode == 0, asked.stderr
    refused = run(*question, "--quantization", "F16")
    assert "Q8_0, wanted F16" in refused.stderr


def test_a_turn_that_fails_is_said_and_the_next_is_asked(market: Market) -> None:
    """A node of the chat's own, as nothing runs on this directory."""
    where = ("--data", str(market.home / "nobody"), "--bootstrap", market.requester.address)
    flags = (*where, "--network", "e2e", "--json", "--max-price", "0.0000001")
    done = chat("a\nb\n", *flags)
    assert done.returncode == 2, "a price below the least amount is wrong use"
    done = chat("a\nb\n", *where, "--network", "e2e", "--json", "--max-price", "0.000001")
    assert done.returncode == 1
    codes = [json.loads(line)["error"] for line in done.stdout.splitlines()]
    assert len(codes) == 2
    assert set(codes) <= {"request.no_bids", "request.price_too_low"}


def test_without_a_daemon_or_an_address_it_says_so(market: Market) -> None:
    done = chat("a\n", "--data", str(market.home / "nobody"))
    assert done.returncode == 1
    assert "request.not_connected" in done.stderr
