"""Channels over lost streams, lost frames and restarts: re-established, and as they were.

Source: router/README.md, "Money", re-establish: both ends agree afterwards, nobody is blamed.
"""

import pytest

from protocol.channel import ChannelState, Role
from protocol.messages import Award, CloseAck, CloseRequest, ReceiptAck, Reestablish
from protocol.units import NS_PER_MS, NS_PER_S
from router import events
from router.ledger import Ledger
from tests.router.support import (
    channels,
    close_all,
    complete,
    failure,
    forgotten,
    make_ask,
    make_world,
    refuse_once,
    same_totals,
    succeeded,
    tamper,
)


@pytest.mark.parametrize("again", ["close", "job"])
def test_a_close_whose_answer_is_lost_settles_on_the_next_stream(again: str) -> None:
    """Regression: the payee says it again, and a job that waited for the channel goes on."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, CloseAck, lambda _: None)
    assert not close_all(world, requester)
    world.cut(provider, requester)
    if again == "close":
        assert len(close_all(world, requester)) == 1
    else:
        world.give(requester, make_ask(2))
        world.run(4 * NS_PER_S)
        assert succeeded(requester, 2)
        assert len(requester.heard(events.ChannelSettled)) == 1
    closed = channels(requester)[0]
    assert closed.settled_ucr == channels(provider)[0].settled_ucr
    assert not requester.penalized


def test_a_close_that_never_arrived_leaves_the_channel_usable() -> None:
    """A lost CloseRequest: after a reconnect the channel is as it was."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, requester, CloseRequest, lambda _: None)
    assert not close_all(world, requester)
    world.cut(provider, requester)
    complete(world, requester, 2)
    assert len(channels(requester)) == 1
    assert len(close_all(world, requester)) == 1


def test_a_channel_that_the_payee_never_took_is_settled_at_nothing() -> None:
    """A first award is lost with its stream: closing tells the asker, all of it comes back."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    world.cut(provider, requester)
    world.run(NS_PER_S)  # the record of how it went comes first
    assert failure(requester) == "provider.vanished"
    (settled,) = close_all(world, requester)
    assert (settled.settled_ucr, settled.refund_ucr) == (0, 1_000_000)
    assert channels(requester)[0].state is ChannelState.CLOSED


def test_a_lost_countersignature_is_settled_on_the_next_stream() -> None:
    """The receipt's acknowledgement is lost: the reconnect closes the lane at its price."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, ReceiptAck, lambda _: None)
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert len(channels(provider)[0].lanes) == 1
    world.cut(provider, requester)
    complete(world, requester, 2)
    assert not channels(provider)[0].lanes
    assert same_totals(requester, provider)


@pytest.mark.parametrize("who", [Role.PAYER, Role.PAYEE])
@pytest.mark.parametrize("lost_records", [0, 100])
@pytest.mark.parametrize("after_ms", [300, 420, 700, 1_100, 1_900])
def test_a_restart_mid_job_then_another_on_the_same_channel(
    who: Role, lost_records: int, after_ms: int
) -> None:
    """Either end dies at any point: re-established, both agree, and the channel goes on."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.give(requester, make_ask(2, 100))
    world.run(after_ms * NS_PER_MS)
    victim = requester if who is Role.PAYER else provider
    world.crash(victim, lost_records)
    world.run(100 * NS_PER_MS)
    world.restart(victim)
    world.run(10 * NS_PER_S)
    complete(world, requester, 3)
    assert len(channels(requester)) == 1
    assert same_totals(requester, provider)
    assert not requester.penalized
    assert not provider.penalized
    assert len(close_all(world, requester)) == 1
    balances = [peer.node.context.ledger.balance() for peer in world.peers]
    assert sum(balance.net_ucr for balance in balances) == 0


@pytest.mark.parametrize("after_ms", range(200, 800, 30))
def test_a_cut_stream_then_another_job_on_the_same_channel(after_ms: int) -> None:
    """A stream breaks at any point of a job: the next job re-establishes and completes."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.give(requester, make_ask(2, 30))
    world.run(after_ms * NS_PER_MS)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    complete(world, requester, 3)
    assert len(channels(requester)) == 1
    assert same_totals(requester, provider)
    assert not requester.penalized
    assert not provider.penalized


def test_a_replayed_log_is_the_live_ledger() -> None:
    """Both logs of a market with reuse, refusal and close, folded again, give the same money."""
    world = make_world()
    complete(world, world.peers[1], 1)
    refuse_once(world, world.peers[1], 2)
    complete(world, world.peers[1], 3)
    for peer in world.peers:
        live = peer.node.context.ledger
        again = Ledger(live.network, live.owner)
        for number, payload in peer.log:
            again.replay(number, payload)
        assert again.balance() == live.balance()
        assert again.receipts == live.receipts


def test_a_payee_without_its_log_freezes_the_channel() -> None:
    """A payee that delivered and forgot: the payer keeps the channel, frozen, and opens anew."""
    world = forgotten()
    _, requester = world.peers
    assert [channel.state for channel in channels(requester)] == [
        ChannelState.FROZEN,
        ChannelState.READY,
    ]


def test_a_frozen_channel_does_not_stop_the_others_from_closing() -> None:
    """Closing all settles what can be settled."""
    world = forgotten()
    _, requester = world.peers
    (settled,) = close_all(world, requester)
    assert settled.cid == channels(requester)[1].cid


def test_a_payer_that_is_shown_a_better_voucher_adopts_it_only_with_its_own_signature() -> None:
    """A payee can't invent debt: `channel.bad_reestablish` and the stream ends."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.cut(provider, requester)

    def inflate(message: Reestablish) -> Reestablish:
        voucher = message.voucher
        assert voucher is not None
        more = type(voucher)(voucher.cid, voucher.total_ucr + 1, voucher.lanes, voucher.signature)
        return Reestablish(message.cid, more.total_ucr, message.lanes, more)

    tamper(world, provider, Reestablish, inflate)
    before = channels(requester)[0].total_ucr
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert [code for _, code in requester.penalized] == ["channel.bad_reestablish"]
    assert channels(requester)[0].total_ucr == before
