"""Payers that hang up and come back to take more than they pay for.

Source: router/README.md, "Resuming": the same bytes again, bounded in memory, number and time.
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.fields import LaneClaim
from protocol.lane import LaneState
from protocol.messages import Chunk, NeedVoucher, Reestablish, Refuse, Resume
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action
from router.resending import Resending, chunk_bytes
from tests.router.hand_payer import HandPayer, Shop, blamed, of_kind, said
from tests.router.support import W_UCR
from tests.vectors.samples import MESSAGES


def hang_up(payer: HandPayer) -> None:
    """The stream breaks and is up again."""
    payer.shop.give(act.SessionClosed(payer.session, "session.closed"))
    payer.shop.give(act.SessionOpened(payer.session))


def come_back(
    payer: HandPayer, chunks: int, due_ucr: int, *, lane: int = 1, wants: int | None = None
) -> list[Action]:
    """Reestablish with a claim for one lane, wanting it to go on."""
    hang_up(payer)
    wanted = chunks + 1 if wants is None else wants
    actions = payer.send(Resume(payer.cid, lane, wanted))
    closed = payer.channel().settled_due_ucr
    claims = (LaneClaim(0, 0, closed), LaneClaim(lane, chunks, due_ucr))
    total = payer.channel().total_ucr
    return actions + payer.send(Reestablish(payer.cid, total, claims, None))


def chunks_of(actions: list[Action]) -> list[Chunk]:
    """The chunks among the actions."""
    return [message for message in said(actions) if isinstance(message, Chunk)]


def test_claiming_less_than_was_received_gets_the_same_bytes() -> None:
    """Harmless: nothing new is sent for it, nothing is denied, and the lane stays due."""
    payer = HandPayer(Shop())
    _, actions = payer.start(5)
    first, due = chunks_of(actions), payer.channel().due_ucr
    for _ in range(3):
        assert chunks_of(come_back(payer, 0, 0)) == first
        assert payer.channel().due_ucr == due
    assert chunks_of(come_back(payer, 2, first[1].due_ucr)) == first[2:]
    assert not payer.shop.ledger.denials.by_payer


@pytest.mark.parametrize(
    ("chunks", "more_ucr", "wants"),
    [(5, 1, 6), (9, 1, 10), (2, 0, 1), (2, 0, 99)],
    ids=["dearer", "longer", "wants less", "wants more"],
)
def test_a_claim_that_can_not_be_true(chunks: int, more_ucr: int, wants: int) -> None:
    """More than was sent, or another chunk than the claim lacks: `channel.bad_lanes`."""
    payer = HandPayer(Shop())
    payer.start(5)
    due = payer.channel().due_ucr
    actions = come_back(payer, chunks, due + more_ucr, wants=wants)
    assert blamed(actions) == ["channel.bad_lanes"]
    assert said(actions) == [Refuse(payer.cid, "channel.bad_lanes")]
    assert payer.channel().due_ucr == due


def test_what_a_voucher_acknowledged_is_not_kept() -> None:
    """A claim below the own voucher can't be served: the lane ends, and stays due."""
    payer = HandPayer(Shop())
    _, actions = payer.start(5)
    sent = chunks_of(actions)
    claims = (LaneClaim(0, 0, 0), LaneClaim(1, 3, sent[2].due_ucr))
    payer.send(payer.voucher(sent[2].due_ucr, claims))
    again = come_back(payer, 0, 0)
    assert not chunks_of(again)
    assert not payer.channel().lanes
    assert payer.channel().due_ucr == sent[2].due_ucr


def test_coming_back_for_ever() -> None:
    """After RESUMES_PER_LANE_MAX breaks the lane ends as without resuming."""
    payer = HandPayer(Shop())
    payer.start(5)
    for _ in range(limits.RESUMES_PER_LANE_MAX):
        assert chunks_of(come_back(payer, 0, 0))
    assert not chunks_of(come_back(payer, 0, 0))
    assert not payer.channel().lanes
    assert not payer.shop.node.provider.serving.running
    assert payer.shop.ledger.denials.by_payer


def test_breaking_the_stream_does_not_stop_the_clock_of_an_unpaid_lane() -> None:
    """Paused at W, hanging up and coming back: it still ends after UNPAID_TIMEOUT_NS."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(40)
    lane = payer.channel().lanes[1]
    assert lane.state is LaneState.PAUSED
    for _ in range(4):
        shop.wait(2 * NS_PER_S)
        asked = said(come_back(payer, lane.chunks, lane.due_ucr))
        assert [m for m in asked if isinstance(m, NeedVoucher)]
    shop.give(act.SessionClosed(payer.session, "session.closed"))
    ended = shop.wait(limits.UNPAID_TIMEOUT_NS - 8 * NS_PER_S)
    assert len(of_kind(ended, act.CancelJob)) == 1
    assert payer.channel().due_ucr <= W_UCR
    assert not payer.channel().lanes


def test_the_deadline_ends_a_lane_that_waits_for_its_payer() -> None:
    """However often the payer comes back."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(5)
    for _ in range(59):
        shop.wait(NS_PER_S)
        hang_up(payer)
    shop.wait(NS_PER_S)
    assert not shop.node.provider.serving.running


def test_a_job_is_kept_for_its_grace_time_alone() -> None:
    """RESUME_GRACE_NS after the break the engine stops, and the payer finds a settled lane."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(5)
    shop.give(act.SessionClosed(payer.session, "session.closed"))
    assert not of_kind(shop.wait(limits.RESUME_GRACE_NS - 1), act.CancelJob)
    assert len(of_kind(shop.wait(1), act.CancelJob)) == 1
    assert not chunks_of(come_back(payer, 0, 0))


def test_text_behind_a_broken_stream_is_bounded() -> None:
    """An engine that runs ahead while the payer is away is stopped at RESEND_LANE_BYTES_MAX."""
    shop = Shop()
    payer = HandPayer(shop)
    job_id, _ = payer.start(1)
    shop.give(act.SessionClosed(payer.session, "session.closed"))
    actions: list[Any] = []
    for _ in range(limits.RESEND_LANE_BYTES_MAX // 4_000 + 2):
        actions += shop.give(act.JobTokens(job_id, (("x" * 1_000, 1),)))
    assert len(of_kind(actions, act.CancelJob)) == 1
    assert not shop.node.provider.serving.running


def test_a_payer_that_broke_the_protocol_resumes_nothing() -> None:
    """Its jobs stop at once."""
    payer = HandPayer(Shop())
    payer.start(5)
    actions = payer.send(replace(payer.voucher(2_000), signature=bytes(64)))
    assert blamed(actions) == ["channel.bad_signature"]
    assert len(of_kind(actions, act.CancelJob)) == 1


def test_wishes_for_lanes_that_are_not_there() -> None:
    """They are not remembered."""
    payer = HandPayer(Shop())
    payer.start(1)
    hang_up(payer)
    for lane in range(2, 50):
        payer.send(Resume(payer.cid, lane, 1))
    assert not payer.shop.node.provider.serving._wanted


def test_a_wish_on_a_channel_that_is_not_broken() -> None:
    """`channel.wrong_state`."""
    payer = HandPayer(Shop())
    payer.start(1)
    assert blamed(payer.send(Resume(payer.cid, 1, 2))) == ["channel.wrong_state"]


# --- what is kept --------------------------------------------------------------------------

CHUNK: Chunk = MESSAGES["Chunk"]


def test_what_is_kept_of_a_lane_and_of_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest chunks of the lane that grows are forgotten; then there is no going back."""
    size = chunk_bytes(CHUNK)
    monkeypatch.setattr(limits, "RESEND_LANE_BYTES_MAX", 4 * size)
    monkeypatch.setattr(limits, "RESEND_BYTES_MAX", 6 * size)
    resending = Resending()
    for lane in (1, 2):
        for sequence in range(1, 7):
            resending.keep(replace(CHUNK, lane=lane, sequence=sequence))
    kept = resending.after(CHUNK.cid, 1, 2, 6)
    assert [chunk.sequence for chunk in kept or ()] == [3, 4, 5, 6]
    assert resending.after(CHUNK.cid, 1, 1, 6) is None
    assert resending.after(CHUNK.cid, 2, 3, 6) is None
    assert len(resending.after(CHUNK.cid, 2, 4, 6) or ()) == 2
    resending.forget(CHUNK.cid, 1)
    assert resending.after(CHUNK.cid, 1, 2, 6) is None
    for sequence in range(7, 9):
        resending.keep(replace(CHUNK, lane=2, sequence=sequence))
    assert len(resending.after(CHUNK.cid, 2, 4, 8) or ()) == 4
