"""Payers that lie once a lane runs: vouchers, countersignatures, closes, reconnects.

Source: the design's "Money": totals never fall, what is lost never exceeds W, and a lie is
refused with its code and blamed on its teller.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from protocol import limits, signing
from protocol.channel import ChannelState
from protocol.fields import FinishReason, LaneClaim
from protocol.lane import LaneState
from protocol.messages import (
    Cancel,
    Chunk,
    CloseAck,
    CloseRequest,
    JobFailed,
    NeedVoucher,
    ReceiptAck,
    Reestablish,
    Refuse,
    Result,
    Voucher,
    VoucherAck,
)
from protocol.units import NS_PER_MS, cost_ucr
from router import actions as act
from router.actions import Action
from tests.router.hand_payer import NETWORK, HandPayer, Shop, blamed, of_kind, said
from tests.router.support import W_UCR, flipped, stranger

LANES = (LaneClaim(0, 0, 0), LaneClaim(1, 0, 0))


def notes(actions: list[Action]) -> list[str]:
    """Codes of what was ignored without an offence."""
    ignored = [dict(n.fields) for n in of_kind(actions, act.Note) if n.event == "input.ignored"]
    return [fields["code"] for fields in ignored]


def close_of(payer: HandPayer, total_ucr: int) -> CloseRequest:
    """A signed close."""
    layout = signing.close_bytes(NETWORK, payer.cid, total_ucr)
    return CloseRequest(payer.cid, total_ucr, payer.signer.sign(layout))


def finish(payer: HandPayer, tokens: int = 10) -> Result:
    """A whole job, not yet countersigned."""
    job_id, _ = payer.start(tokens)
    finished = act.JobFinished(
        job_id, FinishReason.LENGTH, tokens, NS_PER_MS, NS_PER_MS, "test", ""
    )
    (result,) = [m for m in said(payer.shop.give(finished)) if isinstance(m, Result)]
    return result


def countersign(payer: HandPayer, result: Result) -> ReceiptAck:
    """The countersignature in order."""
    identity = signing.receipt_id(result.receipt)
    signature = payer.signer.sign(signing.receipt_ack_bytes(NETWORK, identity))
    return ReceiptAck(payer.cid, result.receipt.lane, identity, signature)


# --- vouchers ------------------------------------------------------------------------------

LIES: dict[str, tuple[str, bool, Callable[[HandPayer], Voucher]]] = {
    "forged": ("channel.bad_signature", True, lambda p: p.voucher(2_000, signer=stranger())),
    "flipped": (
        "channel.bad_signature",
        True,
        lambda p: replace(p.voucher(2_000), signature=flipped(p.voucher(2_000).signature)),
    ),
    "network": ("channel.bad_signature", True, lambda p: p.voucher(2_000, network="else")),
    "raised": (
        "channel.bad_signature",
        True,
        lambda p: replace(p.voucher(2_000), total_ucr=3_000),
    ),
    "lanes changed": (
        "channel.bad_signature",
        True,
        lambda p: replace(p.voucher(2_000), lanes=LANES),
    ),
    "over deposit": ("channel.over_deposit", True, lambda p: p.voucher(500_001)),
    "lanes unordered": ("channel.bad_lanes", True, lambda p: p.voucher(2_000, LANES[::-1])),
    "stale": ("channel.stale_total", False, lambda p: p.voucher(999)),
    "equal": ("channel.stale_total", False, lambda p: p.voucher(1_000)),
    "unknown channel": ("channel.unknown", False, lambda p: p.voucher(2_000, cid=bytes(32))),
}


@pytest.mark.parametrize("name", LIES)
def test_a_voucher_that_lies(name: str) -> None:
    """The best voucher stays what it was (I5), nothing is logged or acknowledged."""
    code, offence, make = LIES[name]
    payer = HandPayer(Shop())
    payer.start()
    assert said(payer.send(payer.voucher(1_000))) == [VoucherAck(payer.cid, 1_000)]
    actions = payer.send(make(payer))
    assert blamed(actions) == ([code] if offence else [])
    assert notes(actions) == ([] if offence else [code])
    assert not said(actions)
    assert not of_kind(actions, act.Append)
    assert payer.channel().total_ucr == 1_000


def test_a_voucher_for_the_whole_deposit() -> None:
    """I1 at its edge: exactly the deposit is fine."""
    payer = HandPayer(Shop())
    payer.start()
    assert said(payer.send(payer.voucher(500_000))) == [VoucherAck(payer.cid, 500_000)]


def test_a_payer_that_never_pays() -> None:
    """The lane pauses at W, asks once, stops after UNPAID_TIMEOUT_NS: the loss is within W."""
    shop = Shop()
    payer = HandPayer(shop)
    _, actions = payer.start(40)
    chunks = [m for m in said(actions) if isinstance(m, Chunk)]
    needs = [m for m in said(actions) if isinstance(m, NeedVoucher)]
    assert 0 < chunks[-1].due_ucr <= W_UCR < cost_ucr(12, 40, 15_000_000, 60_000_000)
    assert len(needs) == 1
    assert payer.channel().lanes[1].state is LaneState.PAUSED
    assert not said(shop.wait(limits.UNPAID_TIMEOUT_NS - 1))
    ended = shop.wait(1)
    assert said(ended) == [JobFailed(payer.cid, 1, "channel.unpaid")]
    assert len(of_kind(ended, act.CancelJob)) == 1
    assert payer.channel().due_ucr == chunks[-1].due_ucr
    assert not payer.channel().lanes
    assert not shop.node.provider.serving.running


def test_a_payer_that_pays_what_is_asked_gets_the_rest() -> None:
    """The total that NeedVoucher names is used to the last unit, and W beyond it."""
    payer = HandPayer(Shop())
    _, actions = payer.start(40)
    (need,) = [m for m in said(actions) if isinstance(m, NeedVoucher)]
    after = said(payer.send(payer.voucher(need.total_ucr)))
    (chunk,) = [m for m in after if isinstance(m, Chunk)]
    assert chunk.due_ucr - need.total_ucr == W_UCR


# --- the end of a lane ---------------------------------------------------------------------


def test_a_countersignature_in_order() -> None:
    """Logged once; the lane is closed at its price."""
    payer = HandPayer(Shop())
    result = finish(payer)
    payer.send(countersign(payer, result))
    assert payer.shop.ledger.receipts == 1
    assert not payer.channel().lanes
    assert payer.channel().due_ucr == result.receipt.price_ucr
    assert notes(payer.send(countersign(payer, result))) == ["channel.unknown"]
    assert payer.shop.ledger.receipts == 1


def test_a_forged_countersignature() -> None:
    """`receipt.bad_signature`; no receipt is counted."""
    payer = HandPayer(Shop())
    ack = countersign(payer, finish(payer))
    actions = payer.send(replace(ack, signature=flipped(ack.signature)))
    assert blamed(actions) == ["receipt.bad_signature"]
    assert payer.shop.ledger.receipts == 0


def test_a_countersignature_under_another_receipt() -> None:
    """Regression: a valid signature under the receipt of an earlier lane proves nothing."""
    payer = HandPayer(Shop())
    first = countersign(payer, finish(payer, 3))
    payer.send(first)
    second = finish(payer, 4)
    actions = payer.send(replace(first, lane=second.receipt.lane))
    assert blamed(actions) == ["receipt.mismatch"]
    assert payer.shop.ledger.receipts == 1


def test_a_cancel_of_someone_elses_lane() -> None:
    """Only the lane's own payer stops it; others change nothing."""
    shop = Shop()
    owner, other = HandPayer(shop, 1), HandPayer(shop, 2)
    owner.start(5)
    assert not of_kind(other.send(Cancel(owner.cid, 1)), act.CancelJob)
    assert len(of_kind(owner.send(Cancel(owner.cid, 1)), act.CancelJob)) == 1


# --- closing and reconnecting --------------------------------------------------------------


def test_closes_that_are_not_taken() -> None:
    """Lanes open, a wrong total, a bad signature, unpaid, unknown: refused, and still open."""
    payer = HandPayer(Shop())
    result = finish(payer)
    due = result.receipt.price_ucr
    assert said(payer.send(close_of(payer, due))) == [Refuse(payer.cid, "channel.wrong_state")]
    payer.send(countersign(payer, result))
    for total, code in ((due - 1, "close_mismatch"), (due + 1, "unpaid"), (due, "unpaid")):
        answers = said(payer.send(close_of(payer, total)))
        assert answers == [Refuse(payer.cid, f"channel.{code}")]
    payer.send(payer.voucher(due + 500))
    actions = payer.send(replace(close_of(payer, due), signature=bytes(64)))
    assert blamed(actions) == ["channel.bad_signature"]
    assert payer.channel().is_open


def test_a_close_refunds_an_advance() -> None:
    """Settled at what is due though more was signed; asked again, the same answer again."""
    payer = HandPayer(Shop())
    result = finish(payer)
    due = result.receipt.price_ucr
    payer.send(payer.voucher(due + 500))
    payer.send(countersign(payer, result))
    (ack,) = said(payer.send(close_of(payer, due)))
    assert isinstance(ack, CloseAck)
    assert ack.total_ucr == due
    assert payer.shop.ledger.channels[payer.cid].settled_ucr == due
    records = len(of_kind(payer.send(close_of(payer, due)), act.Append))
    assert (said(payer.send(close_of(payer, due))), records) == ([ack], 0)


def reconnect(payer: HandPayer) -> None:
    """The payer's stream breaks and is up again."""
    payer.shop.give(act.SessionClosed(payer.session, "session.closed"))
    payer.shop.give(act.SessionOpened(payer.session))


def test_a_payer_that_claims_to_have_received_more_than_was_sent() -> None:
    """It would owe more: nonsense, `channel.bad_lanes`, and nothing changes."""
    payer = HandPayer(Shop())
    payer.start(5)
    due = payer.channel().due_ucr
    reconnect(payer)
    claims = (LaneClaim(0, 0, 0), LaneClaim(1, 99, due + 1))
    actions = payer.send(Reestablish(payer.cid, 0, claims, None))
    assert blamed(actions) == ["channel.bad_lanes"]
    assert said(actions) == [Refuse(payer.cid, "channel.bad_lanes")]
    assert payer.channel().state is ChannelState.DETACHED


def test_a_payer_that_denies_what_it_paid_for() -> None:
    """Regression: vouchers prove delivery; a claim of nothing is credit for W at most."""
    payer = HandPayer(Shop())
    job_id, _ = payer.start()
    payer.send(payer.voucher(1_500))
    for _ in range(40):
        payer.shop.give(act.JobTokens(job_id, (("x", 1),)))
    sent = payer.channel().due_ucr
    assert sent > 1_500
    reconnect(payer)
    payer.send(Reestablish(payer.cid, 1_500, (LaneClaim(0, 0, 0), LaneClaim(1, 0, 0)), None))
    assert payer.channel().due_ucr == 1_500
    assert sent - payer.channel().due_ucr <= W_UCR


def test_a_payer_that_denies_a_receipt_it_signed() -> None:
    """Regression: a closed, paid lane stays at its price whatever is claimed later."""
    payer = HandPayer(Shop())
    result = finish(payer)
    price = result.receipt.price_ucr
    payer.send(payer.voucher(price))
    payer.send(countersign(payer, result))
    reconnect(payer)
    payer.send(Reestablish(payer.cid, price, (LaneClaim(0, 0, 0), LaneClaim(1, 0, 0)), None))
    assert payer.channel().due_ucr == price


def test_a_voucher_before_re_establishing() -> None:
    """A detached channel takes nothing but a re-establish: `channel.wrong_state`."""
    payer = HandPayer(Shop())
    payer.start()
    reconnect(payer)
    assert blamed(payer.send(payer.voucher(2_000))) == ["channel.wrong_state"]
