"""A part of the price that waits for a local auditor: what is kept, until when, and that
everything still moves.

Source: router/README.md, "Holdback": H = min(configured, W + A - next chunks).
"""

import pytest

from protocol.channel import ChannelState
from protocol.lane import LaneState
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    W_UCR,
    channels,
    close_all,
    complete,
    failure,
    last_end,
    make_ask,
    make_world,
    same_totals,
    succeeded,
)

AUDIT_NS = 60 * NS_PER_S
HELD = 700


def audited(world: World, number: int = 1, tokens: int = 60, **changes: int) -> Peer:
    """A job whose receipt is under audit."""
    _, requester = world.peers
    options = {"holdback_ucr": HELD, "audit_ns": AUDIT_NS} | changes
    world.give(requester, make_ask(number, tokens, **options))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, number), last_end(requester, number)
    return requester


def lagging(world: World) -> int:
    """What the payee has delivered on its only channel and holds no voucher for."""
    (channel,) = channels(world.peers[0])
    return channel.due_ucr - channel.total_ucr


def told(requester: Peer) -> list[tuple[int, str]]:
    """How the audits ended."""
    return [(event.lane, event.code) for event in requester.heard(events.AuditEnded)]


@pytest.mark.parametrize("how", ["time", "auditor"])
def test_what_is_held_back_is_paid_when_the_audit_passes(how: str) -> None:
    """By the auditor's word, or when the time is over; then the channel closes in full."""
    world = make_world()
    requester = audited(world)
    (channel,) = channels(requester)
    assert channel.lanes[1].state is LaneState.AUDIT
    assert lagging(world) == HELD
    if how == "auditor":
        world.give(requester, act.AuditPassed(channel.cid, 1))
        world.run(NS_PER_S)
    else:
        world.run(AUDIT_NS - 11 * NS_PER_S)
        assert lagging(world) == HELD
        world.run(11 * NS_PER_S)
    assert told(requester) == [(1, "")]
    assert lagging(world) == 0
    assert not channel.lanes
    assert same_totals(*world.peers)
    assert len(close_all(world, requester)) == 1


def test_vouchers_lag_while_the_text_streams() -> None:
    """At each moment the payee holds H less than without, and the advance is not touched."""
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask(1, 60, holdback_ucr=HELD, audit_ns=AUDIT_NS))
    world.run(NS_PER_S)
    (channel,) = channels(requester)
    assert channel.due_ucr > HELD
    assert channel.total_ucr <= channel.due_ucr - HELD + W_UCR


def test_by_default_nothing_is_held_back() -> None:
    """No audit time: paid in full with the receipt, as ever."""
    world = make_world()
    requester = audited(world, audit_ns=0, holdback_ucr=HELD)
    assert not channels(requester)[0].lanes
    assert lagging(world) == 0


def test_a_disputed_receipt_is_not_paid_in_full() -> None:
    """H is kept for good; nothing more is bought on the channel; it ends alone, at its voucher."""
    world = make_world()
    requester = audited(world)
    (channel,) = channels(requester)
    world.give(requester, act.Dispute(channel.cid, 1, "receipt.mismatch"))
    world.run(NS_PER_S)
    assert told(requester) == [(1, "receipt.mismatch")]
    assert (channel.disputed_ucr, lagging(world)) == (HELD, HELD)
    complete(world, requester, 2)
    assert len(channels(requester)) == 2
    world.give(requester, act.ForceClose((channel.cid,)))
    world.run(25 * 3_600 * NS_PER_S)
    theirs = channels(world.peers[0])[0]
    assert channel.state is theirs.state is ChannelState.SETTLED
    assert channel.settled_ucr == theirs.settled_ucr == channel.due_ucr
    assert not requester.penalized


def test_a_dispute_keeps_only_what_was_not_paid() -> None:
    """A payment that came too late to hold all back is not taken off the next jobs."""
    world = make_world()
    requester = audited(world, 1, 1, holdback_ucr=600, advance_max_ucr=0)
    world.give(requester, make_ask(2, 1, advance_max_ucr=0))
    world.run(NS_PER_S)
    (channel,) = channels(requester)
    paid = channel.total_ucr
    assert paid == channel.due_ucr
    world.give(requester, act.Dispute(channel.cid, 1, "receipt.mismatch"))
    assert (channel.disputed_ucr, channel.due_ucr) == (0, paid)


def test_a_dispute_outlasts_a_break() -> None:
    """Each end keeps its view and blames nobody; there is no close by agreement."""
    world = make_world()
    requester = audited(world)
    provider, (channel,) = world.peers[0], channels(requester)
    world.give(requester, act.Dispute(channel.cid, 1, "receipt.mismatch"))
    before = channel.total_ucr, channel.due_ucr
    world.cut(*world.peers)
    assert not close_all(world, requester)
    assert channel.state is ChannelState.READY
    assert (channel.total_ucr, channel.due_ucr) == before
    assert not provider.penalized
    assert not requester.penalized


def test_a_close_waits_for_the_audit() -> None:
    """Asked for under audit, settled when it has passed."""
    world = make_world()
    requester = audited(world)
    assert not close_all(world, requester)
    world.run(AUDIT_NS)
    (settled,) = requester.heard(events.ChannelSettled)
    assert settled.settled_ucr == channels(requester)[0].due_ucr


@pytest.mark.parametrize("who", [0, 1])
def test_an_audit_survives_a_restart(who: int) -> None:
    """Of either end: the time runs on, and then all is paid."""
    world = make_world()
    requester = audited(world)
    world.crash(world.peers[who])
    world.run(NS_PER_S)
    world.restart(world.peers[who])
    assert channels(requester)[0].lanes[1].state is LaneState.AUDIT
    complete(world, requester, 2)
    world.run(AUDIT_NS)
    assert lagging(world) == 0
    assert same_totals(*world.peers)
    assert not world.peers[0].node.context.ledger.denials.by_payer


def test_an_audit_that_ends_while_the_provider_is_away() -> None:
    """The rest is paid when it is back."""
    world = make_world()
    requester = audited(world)
    world.cut(*world.peers)
    world.run(AUDIT_NS)
    assert told(requester) == [(1, "")]
    complete(world, requester, 2)
    assert lagging(world) == 0


def test_closing_alone_ends_an_audit() -> None:
    """Settled at the best voucher: what was held back stays with the payer."""
    world = make_world()
    requester = audited(world)
    (channel,) = channels(requester)
    world.give(requester, act.ForceClose((channel.cid,)))
    world.run(25 * 3_600 * NS_PER_S)
    theirs = channels(world.peers[0])[0]
    assert channel.settled_ucr == theirs.settled_ucr == theirs.due_ucr - HELD
    assert told(requester) == []


@pytest.mark.parametrize("advance", [0, 500, 2_000, ADVANCE_UCR])
@pytest.mark.parametrize("held", [1, W_UCR, 10**9])
def test_everything_moves_whatever_is_held_back(held: int, advance: int) -> None:
    """L1: with any H and A that moved without it, three jobs, two of them at once, complete."""
    world = make_world()
    _, requester = world.peers
    options = {"holdback_ucr": held, "audit_ns": AUDIT_NS, "advance_max_ucr": advance}
    for number, tokens in ((1, 70), (2, 50), (3, 40)):
        world.give(requester, make_ask(number, tokens, **options))
        world.run(10 * NS_PER_S if number == 1 else NS_PER_MS)
    world.run(30 * NS_PER_S)
    for number in (1, 2, 3):
        assert succeeded(requester, number), last_end(requester, number)
    assert 0 <= lagging(world) <= W_UCR
    world.run(AUDIT_NS)
    assert lagging(world) == 0
    assert len(close_all(world, requester)) == 1


def test_a_lane_that_breaks_has_no_audit() -> None:
    """What arrived without a receipt is paid."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1, 60, holdback_ucr=HELD, audit_ns=AUDIT_NS))
    world.run(700 * NS_PER_MS)
    for job_id in list(provider.jobs):
        world.give(provider, act.JobBroke(job_id, "engine.crashed"))
    world.run(NS_PER_S)
    assert failure(requester) == "engine.crashed"
    assert lagging(world) <= 0


def test_verdicts_on_what_is_not_under_audit() -> None:
    """Unknown lane or channel: told, nothing else changes."""
    world = make_world()
    requester = audited(world)
    (channel,) = channels(requester)
    world.give(requester, act.AuditPassed(bytes(32), 1))
    world.give(requester, act.Dispute(channel.cid, 9, "receipt.mismatch"))
    world.give(world.peers[0], act.Dispute(channel.cid, 1, "receipt.mismatch"))
    assert told(requester) == [(1, "channel.unknown"), (9, "channel.unknown")]
    assert told(world.peers[0]) == [(1, "channel.unknown")]
    assert lagging(world) == HELD
