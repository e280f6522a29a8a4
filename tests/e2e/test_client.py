"""The package's own client against a running daemon, and as a node of its own.

Source: README, "From Python".
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from peer.client import AskFailed, AsyncClient, Client
from protocol.errors import NetworkError
from tests.e2e.support import PROMPT, Daemon, Market, provider_flags, until


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that asks; a provider sells beside it."""
    with ExitStack() as stack:
        market = Market(tmp_path_factory.mktemp("client"), stack)
        market.sell(provider_flags(steps_per_s_max=200))
        yield market.requester


def test_asking_and_the_books(node: Daemon) -> None:
    with Client(node.directory) as market:
        answer = market.ask(PROMPT, max_tokens=40, max_price="0.05")
        assert "Paris" in answer.text
        assert answer.cost_ucr > 0
        receipt = market.receipt(answer.receipt_id)
        assert receipt["cost_ucr"] == answer.cost_ucr
        assert len(receipt["payee_signature"]) == len(receipt["payer_signature"]) == 128
        assert market.history(last=1)[0]["receipt_id"] == answer.receipt_id
        until(market.models, "the offer is heard")
        assert [model["name"] for model in market.models()] == ["embedded"]
        assert sum(channel["due_ucr"] for channel in market.channels()) >= answer.cost_ucr
        assert market.balance()["spent_ucr"] >= answer.cost_ucr
        with pytest.raises(NetworkError, match=r"receipt\.unknown"):
            market.receipt("00" * 32)
        with pytest.raises(NetworkError, match=r"config\.bad_value"):
            market.history(last=0)


def test_a_stream_and_leaving_it(node: Daemon) -> None:
    with Client(node.directory) as market:
        with market.stream(PROMPT, max_tokens=40) as stream:
            text = "".join(stream)
        assert text == stream.answer.text
        assert stream.answer.receipt is not None
        with market.stream("Tell me of this project.", max_tokens=200) as stream:
            next(stream)
        until(lambda: market.status()["open_requests"] == 0, "the request is cancelled")
        with pytest.raises(AskFailed, match=r"request\.unknown_model"):
            market.ask(PROMPT, model="no-such-model", window_ms=50)


def test_a_quote_has_the_bids_and_buys_nothing(node: Daemon) -> None:
    """By offers that stand and by auction alike; what is then bought costs no more."""
    with Client(node.directory) as market:
        spent_ucr = market.balance()["spent_ucr"]
        for auction in (False, True):
            quote = market.quote(PROMPT, max_tokens=40, auction=auction, window_ms=500)
            assert quote["cost_max_ucr"] == quote["bids"][0]["cost_max_ucr"]
            assert 0 < quote["cost_likely_ucr"] <= quote["cost_max_ucr"]
            assert quote["providers"] == len(quote["bids"]) == 1
        assert market.balance()["spent_ucr"] == spent_ucr
        assert market.ask(PROMPT, max_tokens=40).cost_ucr <= quote["cost_max_ucr"]
        with pytest.raises(AskFailed, match=r"request\.price_too_low"):
            market.quote(PROMPT, max_price="0.000001", window_ms=50)


def test_vectors(node: Daemon) -> None:
    with Client(node.directory) as market:
        (one, other), answer = market.embed(["Paris", "London"])
        assert len(one) == len(other) > 0
        assert one != other
        assert answer.receipt is not None
        assert answer.receipt["output_tokens"] == 0


async def test_a_node_of_its_own_gets_its_deposit_back(node: Daemon) -> None:
    async with AsyncClient.join(node.address, network="e2e") as market:
        answer = await market.ask(PROMPT, max_tokens=20, timeout_s=40)
        assert answer.text
        assert (await market.balance())["spent_ucr"] == answer.cost_ucr
    with pytest.raises(ValueError, match="mine"):
        async with AsyncClient.join(node.address, network="e2e"):
            raise ValueError("mine")


async def test_nobody_to_join(tmp_path: object) -> None:
    with pytest.raises(NetworkError, match=r"control\.unavailable"):
        await AsyncClient(str(tmp_path)).status()
