"""What a payer may say when it comes back: never less than its vouchers have promised.

Source: router/README.md, "Money": after a lost stream, what a voucher covers stays due.
"""

from dataclasses import replace

import pytest

from protocol.channel import ChannelState
from protocol.fields import LaneClaim
from protocol.messages import Chunk, Reestablish, Result
from protocol.units import NS_PER_S
from router import actions as act
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    W_UCR,
    channels,
    close_all,
    codes_against,
    complete,
    make_ask,
    make_world,
    same_totals,
    tamper,
)


def nothing_received(message: Reestablish) -> Reestablish:
    """A lie: every lane at nothing, the finished ones too."""
    lanes = tuple(LaneClaim(number, 0, 0) for number in range(4))
    return replace(message, lanes=lanes)


def cut_mid_stream(world: World) -> tuple[Peer, Peer]:
    """A job that has streamed for a second, then a broken stream, and nobody to resume it."""
    provider, requester = world.peers
    world.give(requester, make_ask(1, 100))
    world.run(NS_PER_S + 500_000_000)
    world.give(requester, act.CancelAsk(1))
    world.cut(provider, requester)
    world.run(NS_PER_S)
    return provider, requester


def test_a_receipted_job_stays_due_whatever_the_payer_claims_later() -> None:
    """Regression: a payer came back, claimed to have got nothing, and closed at nothing."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    (channel,) = channels(provider)
    earned = channel.closed[1]
    assert 0 < earned <= channel.total_ucr
    tamper(world, requester, Reestablish, nothing_received)
    world.cut(provider, requester)
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert channel.closed[1] == earned


def test_what_a_voucher_covers_stays_due_when_the_stream_breaks() -> None:
    """Regression: a payer that prepaid a whole job took it, hung up and claimed it back."""
    world = make_world()
    tamper(world, world.peers[1], Reestablish, nothing_received)
    provider, requester = cut_mid_stream(world)
    (channel,) = channels(provider)
    sent, covered = channel.due_ucr, min(channel.due_ucr, channel.total_ucr)
    assert covered > 0
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    closed = channel.closed[1]
    assert covered <= closed <= sent
    assert sent - closed <= W_UCR


@pytest.mark.parametrize("lost", [0, 3, 20])
def test_both_ends_settle_a_broken_lane_at_the_same_price(lost: int) -> None:
    """Chunks lost with the stream: the payer gives up at most its advance, and both agree."""
    world = make_world()
    provider, requester = world.peers
    if lost:
        chunks = [0]

        def drop_late(chunk: Chunk) -> Chunk | None:
            chunks[0] += 1
            return None if chunks[0] > 40 - lost else chunk

        tamper(world, provider, Chunk, drop_late, times=1_000)
    cut_mid_stream(world)
    (mine,) = channels(requester)
    received = mine.due_ucr
    world.frame_filter = None
    complete(world, requester, 2)
    assert same_totals(requester, provider)
    given_up = mine.closed[1] - received
    assert 0 <= given_up <= ADVANCE_UCR
    assert given_up or not lost
    assert not requester.penalized
    assert not provider.penalized


def test_a_payee_that_asks_for_more_than_was_signed_is_refused() -> None:
    """The answer to a re-establish may use up the advance, never exceed what we signed."""
    world = make_world()
    provider, requester = world.peers
    cut_mid_stream(world)
    (mine,) = channels(requester)
    received, signed = mine.due_ucr, mine.total_ucr

    def greedy(message: Reestablish) -> Reestablish:
        lanes = tuple(replace(claim, due_ucr=signed + 1) for claim in message.lanes)
        return replace(message, lanes=lanes)

    tamper(world, provider, Reestablish, greedy)
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert codes_against(requester, provider) == ["channel.bad_reestablish"]
    assert mine.state is ChannelState.FROZEN
    assert mine.due_ucr == received


def test_a_result_lost_with_its_stream_is_settled_at_its_price() -> None:
    """The receipt never arrived, all chunks did: both close the lane at the same price."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, provider, Result, lambda _: None)
    world.give(requester, make_ask(1))
    world.run(5 * NS_PER_S)
    world.cut(provider, requester)
    complete(world, requester, 2)
    assert same_totals(requester, provider)
    assert len(close_all(world, requester)) == 1
