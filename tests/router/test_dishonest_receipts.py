"""Receipts that lie: not counter-signed, and the liar is blamed; the text stays and is due.

Each lie is signed by the provider that tells it. Source: protocol/README.md, "Receipts".
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import signing
from protocol.messages import Chunk, Receipt, Result
from protocol.transcript import transcript_start
from protocol.units import NS_PER_S, cost_ucr
from router import events
from simnet.peer import Peer
from tests.router.support import (
    assert_losses_bounded,
    channels,
    codes_against,
    failure,
    flipped,
    make_ask,
    make_world,
    stranger,
    succeeded,
    tamper,
)

CHECKED: dict[str, Any] = {
    "request_id": bytes(32),
    "bid_id": bytes(32),
    "payer": bytes(32),
    "payee": bytes(32),
    "prompt_commitment": bytes(32),
    "transcript": bytes(32),
    "input_tokens": 11,
    "output_tokens": 39,
    "chunks": 39,
    "price_ucr": 1,
}


def signed_result(liar: Peer, receipt: Receipt) -> Result:
    """A receipt, signed by its provider."""
    layout = signing.receipt_bytes("sim", signing.receipt_id(receipt))
    return Result(receipt, liar.signer.sign(layout))


def run_with_receipt(change: Callable[[Peer, Result], Result]) -> tuple[Peer, Peer]:
    """One job whose result is changed; the requester and the liar afterwards."""
    world = make_world()
    liar, requester = world.peers
    tamper(world, liar, Result, lambda result: change(liar, result))
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    return requester, liar


def assert_not_countersigned(requester: Peer, liar: Peer, code: str) -> None:
    """The asker is told, the liar blamed, no signature of the payer exists; the text is due."""
    assert failure(requester) == code
    assert codes_against(requester, liar) == [code]
    assert requester.node.context.ledger.receipts == 0
    assert liar.node.context.ledger.receipts == 0
    assert len(requester.heard(events.Text)) == 40
    assert channels(requester)[0].due_ucr == cost_ucr(12, 40, 15_000_000, 60_000_000)
    assert_losses_bounded(requester, liar)


@pytest.mark.parametrize("name", CHECKED)
def test_a_receipt_that_lies(name: str) -> None:
    """Each field that the payer knows itself: `receipt.mismatch`."""
    requester, liar = run_with_receipt(
        lambda liar, r: signed_result(liar, replace(r.receipt, **{name: CHECKED[name]}))
    )
    assert_not_countersigned(requester, liar, "receipt.mismatch")


@pytest.mark.parametrize("name", ["model_digest", "parameters_digest"])
def test_a_receipt_that_lies_about_how_it_was_made(name: str) -> None:
    """The profile must name the model of the bid and the parameters of the award."""

    def lie(liar: Peer, result: Result) -> Result:
        profile = result.receipt.profile
        lies: dict[str, Any] = {name: bytes(32)}
        changed = replace(profile, **lies)
        return signed_result(liar, replace(result.receipt, profile=changed))

    assert_not_countersigned(*run_with_receipt(lie), "receipt.mismatch")


@pytest.mark.parametrize("forger", ["flipped", "stranger"])
def test_a_receipt_with_a_forged_signature(forger: str) -> None:
    """`receipt.bad_signature`."""

    def forge(_: Peer, result: Result) -> Result:
        if forger == "flipped":
            return replace(result, signature=flipped(result.signature))
        layout = signing.receipt_bytes("sim", signing.receipt_id(result.receipt))
        return replace(result, signature=stranger().sign(layout))

    assert_not_countersigned(*run_with_receipt(forge), "receipt.bad_signature")


def test_what_only_the_provider_knows_is_its_word() -> None:
    """Timings and build can't be checked by the payer; the signature is what it has."""

    def claim(liar: Peer, result: Result) -> Result:
        profile = replace(result.receipt.profile, engine="other", settings="x")
        receipt = replace(result.receipt, profile=profile, ttft_ns=1, duration_ns=2)
        return signed_result(liar, receipt)

    requester, liar = run_with_receipt(claim)
    assert succeeded(requester)
    assert not codes_against(requester, liar)


def test_a_receipt_for_nothing() -> None:
    """No chunk was delivered: a receipt that says so, exactly, is still `receipt.mismatch`."""
    world = make_world()
    liar, requester = world.peers

    def nothing(result: Result) -> Result:
        receipt = result.receipt
        start = transcript_start(
            "sim", receipt.request_id, receipt.bid_id, receipt.prompt_commitment
        )
        empty = replace(
            receipt, transcript=start, input_tokens=0, output_tokens=0, chunks=0, price_ucr=0
        )
        return signed_result(liar, empty)

    tamper(world, liar, Result, nothing)
    tamper(world, liar, Chunk, lambda _: None, times=10**6)
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert codes_against(requester, liar) == ["receipt.mismatch"]
    assert failure(requester) == "receipt.mismatch"
    assert channels(requester)[0].due_ucr == 0
