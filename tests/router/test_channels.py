"""Channels over several jobs: reuse, two lanes at once, refusals, limits, closes.

Source: router/README.md, "Money": both ends agree on every total, and no unit appears or vanishes.
"""

from protocol.channel import ChannelState
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.messages import Refuse
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from simnet.peer import Peer
from tests.router.support import (
    channels,
    close_all,
    complete,
    engine,
    failure,
    last_end,
    make_ask,
    make_world,
    message_of,
    offer,
    refuse_once,
    same_totals,
    succeeded,
)


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


def test_what_was_overpaid_pays_for_the_next_job() -> None:
    """A first voucher over a prompt's estimate is more than is due: credit, not paid twice."""
    world = make_world()
    provider, requester = world.peers
    long = Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * 3_000),))
    complete(world, requester, 1, 1, prompt=long)
    (channel,) = channels(requester)
    credit = channel.total_ucr - channel.due_ucr
    price = cost_ucr(12, 40, 15_000_000, 60_000_000)
    assert credit > price
    complete(world, requester, 2)
    assert channel.total_ucr - channel.due_ucr == credit - price
    assert same_totals(requester, provider)
    (settled,) = close_all(world, requester)
    assert settled.settled_ucr == channel.due_ucr < channel.total_ucr


def test_many_lanes_at_once_over_a_broken_stream() -> None:
    """Four jobs side by side on one channel, cut in the middle: all complete, one total."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, 1)
    for number in (2, 3, 4, 5):
        world.give(requester, make_ask(number, 30 + number))
    world.run(600 * NS_PER_MS)
    assert len(channels(requester)[0].lanes) == 4
    world.cut(provider, requester)
    world.run(20 * NS_PER_S)
    for number in (2, 3, 4, 5):
        assert succeeded(requester, number), last_end(requester, number)
    prices = [cost_ucr(12, tokens, 15_000_000, 60_000_000) for tokens in (1, 32, 33, 34, 35)]
    assert channels(requester)[0].due_ucr == sum(prices)
    assert same_totals(requester, provider)


def test_two_lanes_never_promise_more_than_the_deposit() -> None:
    """Regression: two jobs that fit the deposit one by one, but not together, both complete."""
    world = make_world(0, 0)
    provider, requester = world.add(engine(input_tokens=500)), world.add()
    for number, tokens in ((1, 1), (2, 100), (3, 100)):
        world.give(requester, make_ask(number, tokens, deposit_ucr=24_000))
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


def test_the_credit_limit_bounds_all_deposits_of_one_payer() -> None:
    """Mutual credit: a job that fits the limit, but not what is left of it, gets no bid."""
    world = make_world(credit_limit_ucr=40_000)
    _, requester = world.peers
    complete(world, requester, 1)
    refusals = []

    def watch(_source: Peer, _target: Peer, data: bytes) -> bytes:
        if isinstance(message_of(data), Refuse):
            refusals.append(data)
        return data

    world.frame_filter = watch
    world.give(requester, make_ask(2, tokens=500))
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


def test_a_voucher_is_never_signed_over_the_deposit_or_the_advance() -> None:
    """I1 and I4 at their edges, whatever target the rest of the node asks for."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    (channel,) = channels(requester)
    payer, due = requester.node.requester.payer, channel.due_ucr
    assert payer.issue(channel, due, 10**9) is None
    ahead = payer.issue(channel, due + 700, 500)
    assert ahead is not None
    assert ahead.total_ucr == due + 500
    assert payer.issue(channel, due + 700, 500) is None
    most = payer.issue(channel, 10**9, 10**9)
    assert most is not None
    assert most.total_ucr == channel.deposit_ucr == 1_000_000
    assert payer.issue(channel, 10**9, 10**9) is None
