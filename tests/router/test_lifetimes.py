"""The end of a channel's lifetime: who closes, claims or waits, and what becomes of the deposit.

Source: router/README.md, "Closing alone".
"""

from dataclasses import replace

import pytest

from protocol import limits
from protocol.channel import ChannelState
from protocol.messages import Voucher
from protocol.records import ChannelFrozen
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from tests.router.closed_alone import LIFETIME_NS, PERIOD_NS
from tests.router.hand_payer import HandPayer, Shop
from tests.router.support import (
    channels,
    complete,
    make_ask,
    make_world,
    tamper,
)


def test_a_payer_asks_to_close_before_the_lifetime_ends() -> None:
    """By agreement: the rest of the deposit comes back."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.run(LIFETIME_NS - 2 * limits.CLAIM_MARGIN_NS)
    (settled,) = requester.heard(events.ChannelSettled)
    assert settled.settled_ucr == channels(requester)[0].due_ucr
    assert channels(provider)[0].state is ChannelState.CLOSED


def test_a_payee_claims_before_the_lifetime_ends() -> None:
    """The payer is gone for good: settled at the payee's best voucher."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(requester)
    (channel,) = channels(provider)
    world.run(LIFETIME_NS - limits.CLAIM_MARGIN_NS)
    assert channel.state is ChannelState.CHALLENGE
    world.run(PERIOD_NS)
    assert channel.state is ChannelState.SETTLED
    assert channel.settled_ucr == channel.total_ucr


def test_a_payer_whose_payee_is_gone_gets_its_deposit_back() -> None:
    """A period after the lifetime it closes alone, but for what it signed."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(provider)
    world.run(LIFETIME_NS + PERIOD_NS)
    assert channels(requester)[0].state is ChannelState.CHALLENGE
    world.run(PERIOD_NS)
    assert channels(requester)[0].state is ChannelState.SETTLED
    assert requester.node.context.ledger.balance().locked_ucr == 0


def test_a_channel_without_a_voucher_ends_at_nothing() -> None:
    """Nothing to claim with: ended at its lifetime's end; what was lent is remembered."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, Voucher, lambda _: None, times=100)
    world.give(requester, make_ask(advance_max_ucr=0, tokens=10))
    world.run(2 * NS_PER_S)
    world.crash(requester)
    (channel,) = channels(provider)
    lent = channel.due_ucr
    assert lent
    assert not channel.total_ucr
    world.run(LIFETIME_NS + PERIOD_NS)
    assert (channel.state, channel.settled_ucr) == (ChannelState.SETTLED, 0)
    assert provider.node.context.ledger.denials.open_ucr(channel.payer) == lent


def test_a_challenge_period_beyond_all_reason_is_cut() -> None:
    """A payee's terms can't lock a deposit for ever; without a period there is the usual one."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    (channel,) = channels(requester)
    for given, taken in ((2**60, limits.CHALLENGE_NS_MAX), (0, limits.CHALLENGE_NS)):
        channel.terms = replace(channel.terms, challenge_ns=given)
        channel.state = ChannelState.READY
        world.give(requester, act.ForceClose((channel.cid,)))
        assert channel.deadline_ns - world.clock.now_ns == taken


@pytest.mark.parametrize("frozen", [False, True])
def test_the_channel_of_a_payer_that_never_pays_ends_at_nothing(frozen: bool) -> None:
    """At the lifetime's end, in whatever state; what was lent is remembered."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(10)
    channel, lent = payer.channel(), payer.channel().due_ucr
    if frozen:
        shop.node.context.append(ChannelFrozen(channel.cid, "head.two_logs", shop.now_ns))
    shop.wait(LIFETIME_NS + PERIOD_NS)
    assert (channel.state, channel.settled_ucr) == (ChannelState.SETTLED, 0)
    assert shop.ledger.denials.open_ucr(channel.payer) == lent
