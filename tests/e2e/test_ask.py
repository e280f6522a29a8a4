"""`peerd ask` through a daemon and as a node for one question; what it prints, pays and keeps.

Source: README, "Run a node".
"""

import json
import math
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from peer.cli.identity import initialize
from peer.embedding_jobs import read_vectors
from tests.e2e.judging import answer_of, ledger_of, of, shared_channels
from tests.e2e.support import (
    NETWORK,
    PATIENCE_S,
    Daemon,
    Json,
    Market,
    command,
    environment,
    provider_flags,
    run,
    run_json,
    until,
)

# Words that nothing but a prompt would hold.
SECRET = "quokka-7431-zeppelin"
STOP = "wombat-stop-9917"


class Shop(NamedTuple):
    """A requester daemon and a provider, both logging all they log."""

    requester: Daemon
    provider: Daemon

    def ask(self, prompt: str, **changes: Any) -> list[Json]:
        """Ask the provider through the requester's daemon."""
        messages = [["user", prompt]]
        changes = {"max_tokens": 24, "providers_only": [self.provider.peer_id], **changes}
        return self.requester.ask(messages=messages, **changes)

    def flags(self, data: Path) -> tuple[str, ...]:
        """Of a command that asks the provider: the same request as `ask` makes."""
        only = ("--only", self.provider.peer_id, "--window-ms", "10000")
        return ("--data", str(data), *only, "--max-tokens", "24", "--price-weight", "1000")

    def join(self) -> tuple[str, ...]:
        """Flags of a node without a daemon."""
        return ("--network", NETWORK, "--bootstrap", self.provider.address)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Shared by the tests of this file: none of them harms it."""
    Daemon.started.clear()
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("shop"), stack, "--log-level", "debug")
        (provider,) = market.sell(provider_flags())
        yield Shop(market.requester, provider)


def channels_with(requester: Path, provider: Daemon) -> list[Json]:
    """What `peerd channels` lists of one provider."""
    listed = run_json("channels", "--data", str(requester))["channels"]
    return [channel for channel in listed if channel["peer"] == provider.peer_id]


def receipts_in(directory: Path) -> list[Json]:
    """The receipts that a requester's log holds, by `peerd log show`."""
    shown = run("log", "show", "--json", "--data", str(directory))
    assert shown.returncode == 0, shown.stderr
    records = [json.loads(line) for line in shown.stdout.splitlines()]
    return [one["receipt"] for one in records if one["record"] == "ReceiptAcknowledged"]


def test_status_says_what_was_served_and_how_promises_were_kept(shop: Shop) -> None:
    """For the operator, as numbers and as text; the requester's own figures are in its ask."""
    flags = ("--auction", *shop.flags(shop.requester.directory))  # an offer's promise is no bid's
    asked = run_json("ask", f"Tell me about {SECRET}.", *flags)
    delivery = asked["delivery"]
    assert delivery["ttft_ms"] > 0
    assert delivery["promised_ttft_ms"] == asked["bids"][0]["ttft_ms"]
    status = run_json("status", "--data", str(shop.provider.directory))
    (served,) = status["served"].values()
    assert served["jobs"] == served["promises"]["jobs"] >= 1
    assert served["output_tokens"] >= asked["output_tokens"]
    assert 0 < served["utilisation"] <= 1
    assert 0 <= served["promises"]["kept_percent"] <= 100
    assert status["today"]["jobs"] >= 1
    assert status["today"]["earned_ucr"] >= asked["cost_ucr"]
    (model,) = status["models"]
    assert model["queue_jobs"] == 16
    shown = run("status", "--data", str(shop.provider.directory))
    assert shown.returncode == 0, shown.stderr
    assert "promises kept" in " ".join(shown.stdout.split())


def test_second_ask_is_paid_on_the_same_channel(shop: Shop) -> None:
    """One channel, two receipts, equal answers at temperature 0; --json has its shape."""
    home = shop.requester.directory
    first = run_json("ask", f"Tell me about {SECRET}.", *shop.flags(home))
    assert set(first) == {
        *("request_id", "bids", "award", "retries", "vouchers", "answer"),
        *("input_tokens", "output_tokens", "cost_ucr", "continued", "parts"),
        *("receipt_ok", "receipt", "error", "delivery", "timings_ms"),
    }
    assert first["receipt_ok"]
    assert first["error"] is None
    second = shop.ask(f"Tell me about {SECRET}.")
    assert first["answer"] == answer_of(second) != ""
    assert not of(second, "award")[0]["opened_channel"]
    (channel,) = channels_with(home, shop.provider)
    assert channel["state"] == "ready"
    receipts = receipts_in(home)
    named = [receipt["request_id"] for receipt in receipts]
    assert first["request_id"] in named
    assert of(second, "published")[0]["request_id"] in named
    assert len({receipt["lane"] for receipt in receipts}) == len(receipts) >= 2
    assert {receipt["cid"] for receipt in receipts} == {channel["channel"]}
    assert channel["due_ucr"] == sum(receipt["price_ucr"] for receipt in receipts)


def test_stdout_is_the_answer_alone(shop: Shop) -> None:
    """What a person pipes on is the answer; bids, bill and receipt go to stderr."""
    shown = run("ask", f"Say {SECRET}", "--auction", *shop.flags(shop.requester.directory))
    assert shown.returncode == 0
    assert shown.stdout == answer_of(shop.ask(f"Say {SECRET}")) + "\n"
    for part in ("bids", "awarded to", "tokens in", "receipt "):
        assert part in shown.stderr, part


def test_stranger_asks_without_a_data_directory(shop: Shop, tmp_path: Path) -> None:
    """A node for one question leaves no files, and its channel closed at what was delivered."""
    nowhere = tmp_path / "nowhere"
    done = run("ask", "Who goes there?", *shop.flags(nowhere), *shop.join())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "channel closed" in done.stderr
    assert not nowhere.exists()
    newest = shop.provider.channels()[-1]
    assert newest["state"] == "closed"
    assert 0 < newest["settled_ucr"] <= newest["voucher_total_ucr"]


def test_own_node_without_a_daemon_keeps_its_channel(shop: Shop, tmp_path: Path) -> None:
    """With a key but no daemon, the node's own log is used: two asks share one channel."""
    home = tmp_path / "home"
    initialize(home)
    flags = (*shop.flags(home), *shop.join())
    first = run_json("ask", "Who goes there?", *flags)
    second = run_json("ask", "Who goes there?", *flags)
    assert first["answer"] == second["answer"] != ""
    assert first["award"]["opened_channel"]
    assert not second["award"]["opened_channel"]
    (channel,) = channels_with(home, shop.provider)
    assert channel["state"] == "open"
    assert channel["due_ucr"] == first["cost_ucr"] + second["cost_ucr"]
    assert ledger_of(Daemon(home)).receipts == 2


def test_temperature_and_seed_decide_the_answer(shop: Shop) -> None:
    """The same seed gives the same words, another seed others."""
    # Uncut: the model is so sure of its words that top_p would leave only one.
    free = {"temperature_milli": 5_000, "top_k": 0, "top_p_milli": 1_000}
    one, again, other = (answer_of(shop.ask("Go on.", seed=seed, **free)) for seed in (7, 7, 8))
    assert one == again != other


def test_stop_text_ends_the_answer_before_it(shop: Shop) -> None:
    """A stop string is not delivered and nothing after it; the receipt gives the reason."""
    full = answer_of(shop.ask("Go on."))
    word = full.split()[3]
    events = shop.ask("Go on.", stop=[word])
    assert answer_of(events) == full[: full.index(word)]
    assert of(events, "done")[0]["receipt"]["finish_reason"] == "stop"


def test_logprobs_come_with_the_answer(shop: Shop) -> None:
    """One a token, their bytes the answer; text and price are as without."""
    data = shop.requester.directory
    plain = run_json("ask", "Go on.", *shop.flags(data))
    told = run_json("ask", "Go on.", "--logprobs", "2", *shop.flags(data))
    tokens = told["logprobs"]
    assert len(tokens) == told["output_tokens"]
    assert "".join(token["token"] for token in tokens) == told["answer"] == plain["answer"]
    assert all(token["logprob"] == token["top_logprobs"][0]["logprob"] for token in tokens)
    assert told["cost_ucr"] == plain["cost_ucr"]
    assert "logprobs" not in plain


def _cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_texts_become_vectors(shop: Shop) -> None:
    """A vector each, of length 1; near in words, near in direction; only input is billed."""
    texts = ["What is the capital of France?", "What is the capital of Spain?", "What is 2 + 2?"]
    messages = [["user", text] for text in texts]
    only = [shop.provider.peer_id]
    asked = {"messages": messages, "embedding": True, "max_tokens": 1, "providers_only": only}
    events = shop.requester.ask(**asked)
    vectors = [
        struct.unpack(f"<{len(vector) // 4}f", vector)
        for vector in read_vectors(answer_of(events), 3)
    ]
    assert all(math.hypot(*vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
    france, spain, sum_of = vectors
    assert _cosine(france, spain) > _cosine(france, sum_of)
    receipt = of(events, "done")[0]["receipt"]
    assert receipt["output_tokens"] == 0 < receipt["input_tokens"]
    assert receipt["finish_reason"] == "stop"


def test_logs_hold_neither_prompts_nor_answers_nor_keys(shop: Shop) -> None:
    """At debug level, in stderr and in the journal's bytes: no prompt, answer, stop or key."""
    answer = answer_of(shop.ask(f"Explain {SECRET} to me", stop=[STOP]))
    words = " ".join(answer.split()[:5])
    assert len(words) > 12
    texts = [text.encode() for text in (SECRET, STOP, words)]
    for node in shop:
        seed = (node.directory / "key").read_text().strip()
        journal = b"".join(path.read_bytes() for path in (node.directory / "log").iterdir())
        stderr = node.log_path.read_bytes()
        assert len(journal) > 1_000
        assert b"request.published" in stderr or b"bid.sent" in stderr
        for name, content in (("journal", journal), ("stderr", stderr)):
            for hidden in (*texts, seed.encode(), bytes.fromhex(seed)):
                assert hidden not in content, (node.directory.name, name, hidden)


def test_both_ends_agree_at_rest(shop: Shop) -> None:
    """With nothing running, both logs put the same price on every channel."""
    answer_of(shop.ask("And then?"))

    def agree() -> bool:
        # The asker is told while its last voucher is still on its way.
        return all(
            ends.payer.due_ucr == ends.payee.due_ucr > 0
            and ends.payee.total_ucr == ends.payer.total_ucr
            for ends in shared_channels(shop.requester, shop.provider)
        )

    until(agree, "both logs say the same")
    assert not shop.provider.status()["running_jobs"]


def test_reader_that_stops_reading(shop: Shop) -> None:
    """`peerd log show | head -1`: a closed pipe is no traceback."""
    answer_of(shop.ask("And then?"))
    showing = subprocess.Popen(
        command("log", "show", "--data", str(shop.requester.directory)),
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert showing.stdout is not None
    assert showing.stderr is not None
    showing.stdout.close()
    errors = showing.stderr.read()
    showing.stderr.close()
    assert showing.wait(PATIENCE_S) == 1
    assert errors == ""
