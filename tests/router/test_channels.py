"""Channels over several jobs: reuse, two lanes at once, refusals, closes, lost streams, restarts.

Source: the design's "Money": both ends agree on every total, and no unit appears or vanishes.
"""

import pytest

from protocol.channel import ChannelState, Role
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.messages import Award, CloseAck, CloseRequest, ReceiptAck, Reestablish, Refuse
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from router.ledger import Ledger
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    channels,
    engine,
    failure,
    last_end,
    make_ask,
    make_world,
    message_of,
    offer,
    same_totals,
    succeeded,
    tamper,
)


def complete(world: World, requester: Peer, number: int, tokens: int = 40) -> None:
    """Ask, wait, and expect a receipt."""
    world.give(requester, make_ask(number, tokens))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, number), last_end(requester, number)


def close_all(world: World, requester: Peer) -> list[events.ChannelSettled]:
    """Ask for a close of every channel; the settlements so far."""
    world.give(requester, act.CloseChannels(()))
    world.run(10 * NS_PER_S)
    return requester.heard(events.ChannelSettled)


def refuse_once(world: World, requester: Peer, number: int, **changes: object) -> None:
    """An ask whose award comes when the provider's engine is gone for a moment."""
    (provider,) = [peer for peer in world.peers if peer.engine is not None]
    assert provider.engine is not None
    world.give(requester, make_ask(number, **changes))
    world.run(150 * NS_PER_MS)
    world.give(provider, act.OffersChanged(()))
    world.run(10 * NS_PER_S)
    assert failure(requester, number) == "provider.busy"
    world.give(provider, act.OffersChanged((provider.engine.offer,)))


def test_a_second_job_reuses_the_channel() -> None:
    """One channel, two lanes, one running total."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    complete(world, requester, 2)
    opened = [event.opened_channel for event in requester.heard(events.Awarded)]
    assert opened == [True, False]
    (channel,) = channels(requester)
    assert channel.due_ucr == 2 * cost_ucr(12, 40, 15_000_000, 60_000_000)
    assert same_totals(requester, provider)


def test_two_lanes_share_one_channel() -> None:
    """Jobs at once on one channel: both complete, the total is the sum, nobody is blamed."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.give(requester, make_ask(2, 100))
    world.give(requester, make_ask(3, 70))
    world.run(20 * NS_PER_S)
    assert succeeded(requester, 2)
    assert succeeded(requester, 3)
    (channel,) = channels(requester)
    prices = [cost_ucr(12, tokens, 15_000_000, 60_000_000) for tokens in (40, 100, 70)]
    assert channel.due_ucr == sum(prices) == channel.total_ucr
    assert same_totals(requester, provider)
    assert not provider.penalized
    assert not requester.penalized


def test_two_lanes_never_promise_more_than_the_deposit() -> None:
    """Regression: two jobs that fit the deposit one by one, but not together, both complete."""
    world = make_world(0, 0)
    provider, requester = world.add(engine(input_tokens=500)), world.add()
    for number, tokens in ((1, 1), (2, 100), (3, 100)):
        world.give(requester, make_ask(number, tokens, deposit_ucr=22_000))
        world.run(10 * NS_PER_S if number == 1 else 1)
    world.run(20 * NS_PER_S)
    for number in (1, 2, 3):
        assert succeeded(requester, number), last_end(requester, number)
    assert same_totals(requester, provider)


def test_a_close_refunds_exactly_what_was_not_delivered() -> None:
    """Deposit less due comes back, on both ends alike, though the last voucher paid ahead."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    (settled,) = close_all(world, requester)
    price = cost_ucr(12, 40, 15_000_000, 60_000_000)
    assert (settled.settled_ucr, settled.refund_ucr) == (price, 1_000_000 - price)
    (mine,), (theirs,) = channels(requester), channels(provider)
    assert mine.settled_ucr == theirs.settled_ucr == price
    assert mine.state is theirs.state is ChannelState.CLOSED
    assert requester.node.context.ledger.balance().locked_ucr == 0
    complete(world, requester, 2)
    assert requester.heard(events.Awarded)[-1].opened_channel


def test_a_close_waits_for_the_running_job() -> None:
    """A close that is asked for mid-stream settles the whole job."""
    world = make_world()
    _, requester = world.peers
    world.give(requester, make_ask(1, 100))
    world.run(NS_PER_S)
    (settled,) = close_all(world, requester)
    assert succeeded(requester)
    assert settled.settled_ucr == cost_ucr(12, 100, 15_000_000, 60_000_000)


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


def test_a_refused_award_leaves_the_channel_usable() -> None:
    """Regression: the lane of a refused award is never known to the payee; the next one is."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    refuse_once(world, requester, 2)
    complete(world, requester, 3)
    assert len(channels(requester)) == 1
    assert same_totals(requester, provider)


def test_the_voucher_of_a_refused_award_is_not_lost() -> None:
    """Regression: the payee that refused an award holds the same best voucher afterwards."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    long = Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * 3_000),))
    refuse_once(world, requester, 2, prompt=long)
    assert channels(requester)[0].total_ucr > channels(requester)[0].due_ucr
    assert same_totals(requester, provider)
    complete(world, requester, 3, 1)
    (settled,) = close_all(world, requester)
    assert settled.refund_ucr == 1_000_000 - settled.settled_ucr


def test_a_refusal_that_comes_after_a_cancel_ends_the_lane() -> None:
    """Regression: the asker has gone, the award is refused: no lane, no deposit stays behind."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(150 * NS_PER_MS)
    world.give(provider, act.OffersChanged(()))
    awarded = requester.heard(events.Awarded)
    while not awarded:
        world.run(NS_PER_MS)
        awarded = requester.heard(events.Awarded)
    world.give(requester, act.CancelAsk(1))
    world.run(10 * NS_PER_S)
    (channel,) = channels(requester)
    assert channel.state is ChannelState.CLOSED
    assert requester.node.context.ledger.balance().locked_ucr == 0


def test_a_channel_that_the_payee_never_took_is_settled_at_nothing() -> None:
    """A first award is lost with its stream: closing tells the asker, all of it comes back."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    world.cut(provider, requester)
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
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(provider)
    provider.log.clear()
    world.restart(provider)
    world.run(NS_PER_S)
    complete(world, requester, 2)
    assert [channel.state for channel in channels(requester)] == [
        ChannelState.FROZEN,
        ChannelState.READY,
    ]


def test_a_frozen_channel_does_not_stop_the_others_from_closing() -> None:
    """Closing all settles what can be settled."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(provider)
    provider.log.clear()
    world.restart(provider)
    world.run(NS_PER_S)
    complete(world, requester, 2)
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


def test_another_channel_opens_when_the_first_is_used_up() -> None:
    """A deposit that no longer carries the worst case is left for a new channel."""
    world = make_world()
    provider, requester = world.peers
    most = cost_ucr(512, 40, 15_000_000, 60_000_000)
    for number in (1, 2):
        world.give(requester, make_ask(number, deposit_ucr=most))
        world.run(10 * NS_PER_S)
        assert succeeded(requester, number)
    assert len(channels(requester)) == len(channels(provider)) == 2
    assert len(close_all(world, requester)) == 2


def test_the_credit_limit_bounds_all_deposits_of_one_payer() -> None:
    """Mutual credit: a provider that can't believe the deposit does not bid."""
    world = make_world(credit_limit_ucr=1_005_000)
    _, requester = world.peers
    complete(world, requester, 1)
    refusals = []

    def watch(_source: Peer, _target: Peer, data: bytes) -> bytes:
        if isinstance(message_of(data), Refuse):
            refusals.append(data)
        return data

    world.frame_filter = watch
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert failure(requester, 2) == "request.no_bids"
    assert not refusals


def test_a_provider_serves_as_many_lanes_as_it_has_places() -> None:
    """The job over the last place is not bid for."""
    world = make_world(0, 0)
    provider = world.add(engine(offer(places=2)))
    requesters = [world.add() for _ in range(3)]
    for requester in requesters[:2]:
        world.give(requester, make_ask(tokens=100))
    world.run(NS_PER_S)
    world.give(requesters[2], make_ask())
    world.run(20 * NS_PER_S)
    assert [succeeded(requester) for requester in requesters[:2]] == [True, True]
    assert failure(requesters[2]) == "request.no_bids"
    assert not provider.penalized
