"""A larger deposit on an open channel: when it is asked for, offered, lost, refused, forged.

Source: router/README.md, "Money", top-up; protocol/README.md, "Top-up".
"""

from dataclasses import replace
from typing import Any

import pytest

from protocol import signing
from protocol.messages import NeedVoucher, TopUp, TopUpAck
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.hand_payer import NETWORK, HandPayer, Shop, blamed, of_kind, said
from tests.router.support import (
    channels,
    close_all,
    codes_against,
    complete,
    failure,
    flipped,
    last_end,
    make_ask,
    make_world,
    same_totals,
    succeeded,
    tamper,
)

CREDIT_UCR = WorldSettings().credit_limit_ucr
MOST = cost_ucr(512, 40, 15_000_000, 60_000_000)  # the worst case of the standard ask


def deposits(world: World) -> list[int]:
    """The deposit of the only channel, at each end."""
    return [channels(peer)[0].deposit_ucr for peer in world.peers]


def ask_for(world: World, deposit_ucr: int) -> None:
    """A person's wish for the requester's only channel."""
    _, requester = world.peers
    cid = channels(requester)[0].cid
    world.give(requester, act.TopUpChannel(cid, deposit_ucr))
    world.run(2 * NS_PER_S)


def told(requester: Peer) -> list[tuple[int, str]]:
    """What the person heard."""
    return [(e.deposit_ucr, e.code) for e in requester.heard(events.ChannelToppedUp)]


# --- who asks ------------------------------------------------------------------------------


def test_the_next_job_tops_up_the_channel_that_it_lacks() -> None:
    """No second channel: the deposit is raised by what the ask would have deposited."""
    world = make_world()
    _, requester = world.peers
    for number in (1, 2, 3):
        world.give(requester, make_ask(number, deposit_ucr=MOST))
        world.run(10 * NS_PER_S)
        assert succeeded(requester, number)
    assert len(channels(requester)) == 1
    assert deposits(world) == [2 * MOST, 2 * MOST]
    assert same_totals(*world.peers)
    (settled,) = close_all(world, requester)
    assert settled.refund_ucr == 2 * MOST - settled.settled_ucr


def test_a_wish_waits_for_the_answer_to_the_offer_before_it() -> None:
    """The answer was lost, and the wish is refused: what the payee took is not forgotten."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, 1)
    (before, _) = deposits(world)
    tamper(world, provider, TopUpAck, lambda _: None)
    ask_for(world, before + 5_000)
    world.give(requester, act.TopUpChannel(channels(requester)[0].cid, before + CREDIT_UCR))
    world.cut(provider, requester)
    complete(world, requester, 2, 1)
    assert told(requester) == [(before + 5_000, ""), (before + 5_000, "channel.over_limit")]
    assert deposits(world) == [before + 5_000] * 2
    complete(world, requester, 3, 1)
    assert codes_against(requester, provider) == []


def test_two_jobs_at_once_that_one_deposit_does_not_carry() -> None:
    """Lanes side by side, one top-up for both, or one after the other."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1, 1)
    (channel,) = channels(requester)
    for number in (2, 3, 4):
        world.give(requester, make_ask(number, 70, deposit_ucr=MOST))
    world.run(20 * NS_PER_S)
    for number in (2, 3, 4):
        assert succeeded(requester, number), last_end(requester, number)
    assert channels(requester) == [channel]


def test_a_running_job_tops_up() -> None:
    """The payee needs more than the deposit, within the advance: raised, then paid."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1, 100, deposit_ucr=0, price_max_ucr=10**6))
    world.run(700 * NS_PER_MS)
    (channel,) = channels(requester)
    before = channel.deposit_ucr
    session = act.SessionKey(provider.signer.public_key, outbound=True)
    need = NeedVoucher(channel.cid, 1, before + 500)
    requester.node.requester.delivery.take_need(session, need)
    world._take(requester, requester.node.context.take_actions())
    world.run(10 * NS_PER_S)
    assert channel.deposit_ucr > before
    assert channel.total_ucr == before + 500
    assert succeeded(requester)


def test_a_person_tops_up() -> None:
    """Connected or not; told when the payee has signed."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    ask_for(world, 2_000_000)
    world.cut(provider, requester)
    ask_for(world, 3_000_000)
    assert told(requester) == [(2_000_000, ""), (3_000_000, "")]
    assert deposits(world) == [3_000_000, 3_000_000]
    locked = requester.node.context.ledger.balance().locked_ucr
    assert locked == 3_000_000 - channels(requester)[0].due_ucr


@pytest.mark.parametrize("deposit", [0, 999_999, 1_000_000, 10**15 + 1])
def test_wishes_that_make_no_sense(deposit: int) -> None:
    """Not more than there is, or more than there can be: `channel.bad_terms`."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    ask_for(world, deposit)
    assert told(requester) == [(1_000_000, "channel.bad_terms")]


def test_a_wish_for_a_channel_that_is_not_ours_or_closed() -> None:
    """`channel.unknown`, as payee too."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    (channel,) = channels(requester)
    world.give(provider, act.TopUpChannel(channel.cid, 2_000_000))
    close_all(world, requester)
    ask_for(world, 2_000_000)
    assert told(provider) == [(1_000_000, "channel.unknown")]
    assert told(requester) == [(1_000_000, "channel.unknown")]


# --- trouble -------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [TopUp, TopUpAck])
@pytest.mark.parametrize("crash", [None, 0, 1])
def test_a_top_up_whose_words_are_lost(lost: type, crash: int | None) -> None:
    """Repeated after the next re-establish, from the log, until both hold it."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    sender = requester if lost is TopUp else provider
    tamper(world, sender, lost, lambda _: None)
    ask_for(world, 2_000_000)
    assert deposits(world)[1] == 1_000_000
    if crash is not None:
        world.crash(world.peers[crash])
        world.restart(world.peers[crash])
    world.cut(provider, requester)
    complete(world, requester, 2)
    world.run(NS_PER_S)
    assert deposits(world) == [2_000_000, 2_000_000]
    assert not requester.penalized
    assert not provider.penalized


def test_a_top_up_that_the_anchor_does_not_believe() -> None:
    """`channel.over_limit`: told; the channel is as it was, and closes."""
    world = make_world(credit_limit_ucr=1_500_000)
    _, requester = world.peers
    complete(world, requester, 1)
    ask_for(world, 2_000_000)
    assert told(requester) == [(1_000_000, "channel.over_limit")]
    assert deposits(world) == [1_000_000, 1_000_000]
    ask_for(world, 1_200_000)
    assert told(requester)[1:] == [(1_200_000, "")]
    complete(world, requester, 2)
    assert len(close_all(world, requester)) == 1


def test_a_job_goes_to_a_new_channel_when_the_top_up_is_refused() -> None:
    """A payee that takes no top-ups still takes openings: one attempt, two channels."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, deposit_ucr=MOST)

    def too_much(message: TopUp) -> TopUp:
        signed = signing.top_up_bytes("sim", message.cid, CREDIT_UCR + 1)
        return TopUp(message.cid, CREDIT_UCR + 1, requester.signer.sign(signed))

    tamper(world, requester, TopUp, too_much, times=9)
    complete(world, requester, 2, deposit_ucr=MOST)
    complete(world, requester, 3, deposit_ucr=MOST)
    assert len(channels(requester)) == len(channels(provider)) == 3
    assert not provider.penalized


def test_an_answer_that_was_not_asked_for() -> None:
    """`channel.bad_terms`: a payee can't raise what we put in."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, TopUpAck, lambda m: replace(m, deposit_ucr=3_000_000))
    ask_for(world, 2_000_000)
    assert codes_against(requester, provider) == ["channel.bad_terms"]
    assert channels(requester)[0].deposit_ucr == 1_000_000


def test_an_answer_with_a_bad_signature() -> None:
    """`channel.bad_signature`."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, TopUpAck, lambda m: replace(m, signature=flipped(m.signature)))
    ask_for(world, 2_000_000)
    assert codes_against(requester, provider) == ["channel.bad_signature"]


def test_a_close_waits_for_the_answer() -> None:
    """What is offered and not answered is repeated before anything is settled."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, requester, TopUp, lambda _: None)
    ask_for(world, 2_000_000)
    assert not close_all(world, requester)
    world.cut(provider, requester)
    assert len(close_all(world, requester)) == 1
    assert deposits(world) == [2_000_000, 2_000_000]


def test_a_refused_ask_is_told_why() -> None:
    """No room at the payee for the job at all: it does not bid."""
    world = make_world(credit_limit_ucr=MOST + 100)
    _, requester = world.peers
    complete(world, requester, 1, deposit_ucr=MOST)
    world.give(requester, make_ask(2, deposit_ucr=MOST))
    world.run(10 * NS_PER_S)
    assert failure(requester, 2) == "request.no_bids"


# --- what a payee takes --------------------------------------------------------------------


def top_up(payer: HandPayer, deposit_ucr: int, **lies: Any) -> TopUp:
    """A signed top-up; `network` and `cid` can be others."""
    cid = lies.get("cid", payer.cid)
    layout = signing.top_up_bytes(lies.get("network", NETWORK), cid, deposit_ucr)
    return TopUp(cid, deposit_ucr, payer.signer.sign(layout))


@pytest.mark.parametrize(
    ("deposit", "lies", "code", "offence"),
    [
        (600_000, {"network": "else"}, "channel.bad_signature", True),
        (600_000, {"cid": bytes(32)}, "channel.unknown", False),
        (2_000_001, {}, "channel.over_limit", False),
    ],
)
def test_top_ups_that_are_not_taken(
    deposit: int, lies: dict[str, Any], code: str, offence: bool
) -> None:
    """Refused with its code; nothing is logged, the deposit stays."""
    payer = HandPayer(Shop())
    payer.start()
    actions = payer.send(top_up(payer, deposit, **lies))
    assert [message.code for message in said(actions)] == [code]
    assert blamed(actions) == ([code] if offence else [])
    assert not of_kind(actions, act.Append)
    assert payer.channel().deposit_ucr == 500_000


def test_a_top_up_is_taken_once_and_answered_as_often_as_it_comes() -> None:
    """Idempotent; from then on vouchers may go up to the new deposit, not beyond."""
    payer = HandPayer(Shop())
    payer.start()
    first = payer.send(top_up(payer, 600_000))
    again = payer.send(top_up(payer, 600_000))
    assert said(first) == said(again)
    assert len(of_kind(first, act.Append)) == 1
    assert not of_kind(again, act.Append)
    assert blamed(payer.send(payer.voucher(600_001))) == ["channel.over_deposit"]


def test_a_lower_top_up_is_answered_and_changes_nothing() -> None:
    """A payer that repeats an old offer after a reconnect hears that as much is held."""
    payer = HandPayer(Shop())
    payer.start()
    actions = payer.send(top_up(payer, 499_999))
    (ack,) = said(actions)
    assert isinstance(ack, TopUpAck)
    assert ack.deposit_ucr == 499_999
    assert not of_kind(actions, act.Append)
    assert payer.channel().deposit_ucr == 500_000
