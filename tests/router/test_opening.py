"""A channel that is opened before there is a job, and refusals on both ends.

Source: protocol/README.md, "Opening without a job".
"""

from dataclasses import replace

import pytest

from protocol.channel import ChannelState, Role
from protocol.messages import OpenAsk, Opened, Terms
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import SessionKey
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    channels,
    codes_against,
    complete,
    flipped,
    key_of,
    make_world,
    tamper,
)


def opened(world: World, deposit_ucr: int = 500_000) -> tuple[bytes, str]:
    """Ask for a channel to the provider; how it ended."""
    provider, requester = world.peers
    world.give(requester, act.OpenChannel(key_of(provider), deposit_ucr))
    world.run(5 * NS_PER_S)
    return requester.node.anchoring.openings.ended[key_of(provider)]


def only_channel(peer: Peer, role: Role) -> tuple[ChannelState, int, int]:
    (channel,) = channels(peer, role)
    return channel.state, channel.deposit_ucr, channel.terms.window_ucr


def test_a_channel_is_opened_and_carries_the_first_job() -> None:
    """READY at both ends, with one chunk of credit; the job opens none of its own."""
    world = make_world()
    provider, requester = world.peers
    cid, code = opened(world)
    assert (len(cid), code) == (32, "")
    for peer, role in ((provider, Role.PAYEE), (requester, Role.PAYER)):
        assert only_channel(peer, role) == (ChannelState.READY, 500_000, 1_920)
    complete(world, requester, 1)
    assert len(channels(requester)) == 1


@pytest.mark.parametrize("lost", [OpenAsk, Opened])
def test_a_stream_that_breaks_while_opening_is_made_good(lost: type) -> None:
    """Opened at both ends or at none, once they meet again; the next job is served."""
    world = make_world()
    provider, requester = world.peers
    sender = requester if lost is OpenAsk else provider
    tamper(world, sender, lost, lambda message: None)
    world.give(requester, act.OpenChannel(key_of(provider), 500_000))
    world.run(NS_PER_S)
    world.cut(requester, provider)
    world.run(5 * NS_PER_S)
    complete(world, requester, 1)
    states = [channel.state for channel in channels(requester)]
    assert ChannelState.OPENING not in states
    assert len([c for c in channels(provider) if c.is_open]) == states.count(ChannelState.READY)


def test_more_than_the_limit_is_refused_with_its_code() -> None:
    """Neither end keeps anything of it."""
    world = make_world(credit_limit_ucr=400_000)
    assert opened(world) == (b"", "channel.over_limit")
    assert [channels(peer) for peer in world.peers] == [[], []]


def test_who_sells_nothing_opens_nothing() -> None:
    world = make_world()
    world.give(world.peers[0], act.OffersChanged(()))
    assert opened(world) == (b"", "engine.unknown_model")


def test_nobody_there() -> None:
    """The stream can't be opened: said, not waited for."""
    world = make_world()
    world.crash(world.peers[0])
    assert opened(world)[1] == "provider.unreachable"


def test_an_opening_on_other_terms_is_an_offence() -> None:
    """The payee takes its own terms or nothing; the payer's channel ends with nothing due."""
    world = make_world()
    provider, requester = world.peers
    tamper(
        world,
        requester,
        OpenAsk,
        lambda ask: replace(ask, opening=replace(ask.opening, payee_salt=bytes(16))),
    )
    _, code = opened(world)
    assert code in ("channel.bad_terms", "provider.unreachable")
    assert codes_against(provider, requester) == ["channel.bad_terms"]
    assert channels(provider) == []


@pytest.mark.parametrize("kind", [Terms, Opened])
def test_answers_that_were_not_asked_for(kind: type) -> None:
    """Terms out of nowhere are an offence; word of a channel that is not known is ignored."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    context = provider.node.context
    (channel,) = channels(provider)
    message = Terms(channel.terms, bytes(16)) if kind is Terms else Opened(bytes(32), bytes(64))
    context.send(SessionKey(key_of(requester), outbound=False), message)
    world.give(provider, act.AskAccounts())  # lets the message out
    world.run(NS_PER_S)
    expected = ["session.protocol"] if kind is Terms else []
    assert codes_against(requester, provider) == expected


def test_a_forged_answer_is_an_offence() -> None:
    world = make_world()
    provider, requester = world.peers
    tamper(world, provider, Opened, lambda said: replace(said, signature=flipped(said.signature)))
    opened(world)
    assert codes_against(requester, provider) == ["channel.bad_signature"]
    assert all(channel.due_ucr == 0 for channel in channels(requester))
