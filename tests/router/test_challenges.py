"""Closing alone: both ends come to the same sum, whoever begins, dies, lies or is away.

Source: router/README.md, "Closing alone".
"""

from dataclasses import replace

import pytest

from protocol.channel import ChannelState, Role
from protocol.messages import Award, CloseAck, CloseClaim, CloseNotice, Voucher
from protocol.records import VoucherAccepted, decode_record
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from tests.router.closed_alone import LIFETIME_NS, PERIOD_NS, assert_settled, force, states
from tests.router.support import (
    channels,
    close_all,
    codes_against,
    complete,
    failure,
    forgotten,
    make_ask,
    make_world,
    only,
    tamper,
)
from tests.simnet.watch import check_replay


@pytest.mark.parametrize("starter", [0, 1])
def test_either_end_closes_alone(starter: int) -> None:
    """At the best voucher, when the challenge period is over, and not before."""
    world = make_world()
    complete(world, world.peers[1], 1)
    force(world, world.peers[starter])
    assert states(world) == [ChannelState.CHALLENGE, ChannelState.CHALLENGE]
    begun = [peer.heard(events.CloseBegun)[0] for peer in world.peers]
    assert [event.by_us for event in begun] == [starter == 0, starter == 1]
    world.run(PERIOD_NS - 2 * NS_PER_S)
    assert states(world) == [ChannelState.CHALLENGE, ChannelState.CHALLENGE]
    world.run(3 * NS_PER_S)
    assert_settled(world)


@pytest.mark.parametrize("starter", [0, 1])
@pytest.mark.parametrize("after_ms", [300, 500, 900])
def test_a_running_job_ends_with_its_channel(starter: int, after_ms: int) -> None:
    """`channel.challenged`; what arrived is due, what no voucher covers is lost, within W."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=400, timeout_ns=50 * NS_PER_S))
    world.run(after_ms * NS_PER_MS)
    force(world, world.peers[starter])
    assert failure(requester) in ("channel.challenged", "request.all_failed")
    assert not provider.jobs
    assert not provider.node.provider.serving.running
    world.run(PERIOD_NS + NS_PER_S)
    assert_settled(world, lost_ucr=channels(provider)[0].terms.window_ucr)


@pytest.mark.parametrize("starter", [0, 1])
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("after_ms", [0, 20, 60, 2_000])
def test_a_crash_at_any_step_changes_nothing(starter: int, who: int, after_ms: int) -> None:
    """Whoever dies in CHALLENGE goes on from its log, and tells the other again."""
    world = make_world(fsync_ns=8 * NS_PER_MS)
    complete(world, world.peers[1], 1)
    peer = world.peers[starter]
    world.give(peer, act.ForceClose((channels(peer)[0].cid,)))
    world.run(after_ms * NS_PER_MS)
    world.crash(world.peers[who], 1)
    world.run(NS_PER_S)
    world.restart(world.peers[who])
    if starter == who and not after_ms:
        world.give(world.peers[who], act.ForceClose((channels(world.peers[who])[0].cid,)))
    world.give(world.peers[1], make_ask(2, timeout_ns=5 * NS_PER_S))  # the streams meet again
    world.run(2 * PERIOD_NS)
    ended = [channels(p)[0] for p in world.peers]
    assert [c.state for c in ended] == [ChannelState.SETTLED, ChannelState.SETTLED]
    assert ended[0].settled_ucr == ended[1].settled_ucr


@pytest.mark.parametrize("records", range(4))
def test_a_crash_between_the_records_of_a_close_keeps_the_books_alike(records: int) -> None:
    """The lane that ran is still open in the log: settled, what it may have sent stays due."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=400, timeout_ns=50 * NS_PER_S))
    world.run(900 * NS_PER_MS)
    (theirs,) = channels(provider)
    sent, before = theirs.due_ucr, len(provider.log)
    world.give(provider, act.ForceClose((theirs.cid,)))
    world.crash(provider)
    del provider.log[before + records :]
    world.restart(provider)
    check_replay(provider)
    world.run(LIFETIME_NS + PERIOD_NS)
    check_replay(provider)
    (theirs,), (mine,) = (channels(peer) for peer in world.peers)
    assert theirs.settled_ucr == mine.settled_ucr
    assert theirs.due_ucr >= sent


def test_a_peer_that_is_away_hears_of_it_when_it_is_back() -> None:
    """The payer settles after its period; the payee, back late, comes to the same sum."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.crash(provider)
    world.run(NS_PER_S)
    force(world, requester)
    world.run(PERIOD_NS + NS_PER_S)
    assert channels(requester)[0].state is ChannelState.SETTLED
    world.restart(provider)
    world.run(LIFETIME_NS)
    assert channels(provider)[0].state is ChannelState.SETTLED
    assert channels(provider)[0].settled_ucr == channels(requester)[0].settled_ucr


@pytest.mark.parametrize("starter", [0, 1])
def test_a_voucher_that_was_lost_is_shown_in_time(starter: int) -> None:
    """The payee's best is not the payer's last: whoever begins, the better one counts."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, requester, Voucher, lambda _: None, times=100)
    world.give(requester, make_ask(2, 30))
    world.run(5 * NS_PER_S)
    world.frame_filter = None
    assert channels(provider)[0].total_ucr < channels(requester)[0].total_ucr
    force(world, world.peers[starter])
    world.run(PERIOD_NS + NS_PER_S)
    assert_settled(world)


@pytest.mark.parametrize("records", [3, 5, 8])
def test_a_payer_that_closes_with_an_old_total_is_answered(records: int) -> None:
    """Its log was put back: the payee shows the newer voucher, and that is what it gets."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, 100)
    best = channels(provider)[0].total_ucr
    world.crash(requester)
    del requester.log[records:]
    world.restart(requester)
    assert channels(requester)[0].total_ucr < best
    world.give(requester, act.ForceClose((channels(requester)[0].cid,)))
    world.give(requester, make_ask(2, timeout_ns=5 * NS_PER_S))
    world.run(PERIOD_NS + 20 * NS_PER_S)
    settled = [channels(peer)[0].settled_ucr for peer in world.peers]
    assert settled == [best, best]
    assert not provider.penalized
    assert not requester.penalized


@pytest.mark.parametrize("notice_ms", [0, 2_000])
def test_closed_alone_a_channel_that_the_payee_never_took_costs_nothing(notice_ms: int) -> None:
    """The opening is lost with its stream, and the payee says so: while it is re-established, or
    when it hears the notice. The voucher signed in advance is not spent."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, Award, lambda _: None)
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    (mine,) = channels(requester)
    assert mine.total_ucr > 0
    world.cut(provider, requester)
    world.give(requester, act.ForceClose((mine.cid,)))
    if notice_ms:
        world.frame_filter = None
        world.run(notice_ms * NS_PER_MS)
        world.cut(provider, requester)
    complete(world, requester, 2)
    assert (mine.state, mine.settled_ucr) == (ChannelState.CLOSED, 0)
    (settled,) = requester.heard(events.ChannelSettled)
    assert (settled.settled_ucr, settled.refund_ucr) == (0, mine.deposit_ucr)


def test_an_award_never_overtakes_the_stream_that_carries_it() -> None:
    """Jobs wait for a stream while their channel is closed alone: they need another channel, and
    that is opened when the stream is up."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, 1)
    for number in (2, 3):
        world.give(requester, make_ask(number, 1, filters=only(provider)))
    world.cut(provider, requester)
    while not requester.heard(events.BidSeen)[1:]:
        world.run(NS_PER_MS)
    streams: list[int] = []
    tamper(world, requester, Award, lambda m: streams.append(len(requester.node.sessions)) or m)
    force(world, requester)
    assert streams == [1]
    complete(world, requester, 4, 1)
    assert codes_against(requester, provider) == codes_against(provider, requester) == []


@pytest.mark.parametrize("vouchers", [False, True])
def test_a_payee_that_forgot_a_close_is_shown_its_own_agreement(vouchers: bool) -> None:
    """Its log was put back: it claims when the lifetime ends, and settles at what both signed."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    if not vouchers:
        kept = [VoucherAccepted in (type(decode_record(*x)),) for x in provider.log].index(True)
    (closed,) = close_all(world, requester)
    world.crash(provider)
    if vouchers:
        kept = len(provider.log) - 1
    del provider.log[kept:]
    world.restart(provider)
    world.run(NS_PER_S)
    (theirs,) = channels(provider)
    assert theirs.is_open
    world.give(requester, make_ask(2, timeout_ns=5 * NS_PER_S))  # the streams meet again
    world.run(LIFETIME_NS)
    assert (theirs.state, theirs.settled_ucr) == (ChannelState.CLOSED, closed.settled_ucr)
    assert not provider.penalized
    assert not requester.penalized


def test_both_close_at_once() -> None:
    """Notices cross: one period, one sum."""
    world = make_world()
    complete(world, world.peers[1], 1)
    for peer in world.peers:
        world.give(peer, act.ForceClose((channels(peer)[0].cid,)))
    world.run(PERIOD_NS + 2 * NS_PER_S)
    assert_settled(world)


def test_a_close_alone_crosses_a_close_by_agreement() -> None:
    """The payee had agreed: its answer settles it, at what was delivered."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, CloseAck, lambda _: None)
    assert not close_all(world, requester)
    force(world, requester)
    world.run(PERIOD_NS + NS_PER_S)
    (theirs,), (mine,) = (channels(peer) for peer in world.peers)
    assert (theirs.state, mine.state) == (ChannelState.CLOSED, ChannelState.CLOSED)
    assert theirs.settled_ucr == mine.settled_ucr == mine.due_ucr


def test_a_frozen_channel_can_be_closed_alone() -> None:
    """A payee without its log: the payer's deposit comes back but for what it signed."""
    world = forgotten()
    _, requester = world.peers
    frozen = channels(requester)[0]
    assert frozen.state is ChannelState.FROZEN
    world.give(requester, act.ForceClose((frozen.cid,)))
    world.run(PERIOD_NS + NS_PER_S)
    assert frozen.state is ChannelState.SETTLED
    assert frozen.settled_ucr == frozen.total_ucr


def test_a_close_of_what_can_not_be_closed() -> None:
    """Unknown, or closed already: told, nothing else."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    close_all(world, requester)
    gone = channels(requester)[0].cid
    world.give(requester, act.ForceClose((gone, bytes(32))))
    refused = requester.heard(events.CloseRefused)
    assert [(event.cid, event.code) for event in refused] == [
        (gone, "channel.wrong_state"),
        (bytes(32), "channel.wrong_state"),
    ]


# --- peers that lie ------------------------------------------------------------------------


@pytest.mark.parametrize("more", [-1, 1])
def test_an_agreement_to_another_total_freezes_the_channel(more: int) -> None:
    """`channel.close_mismatch`: it was asked for one sum and answers another."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, CloseAck, lambda m: replace(m, total_ucr=m.total_ucr + more))
    assert not close_all(world, requester)
    assert codes_against(requester, provider) == ["channel.close_mismatch"]
    assert channels(requester)[0].state is ChannelState.FROZEN


def test_a_notice_that_is_forged() -> None:
    """`channel.bad_signature`; the channel goes on."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, requester, CloseNotice, lambda m: replace(m, signature=bytes(64)))
    force(world, requester)
    assert codes_against(provider, requester) == ["channel.bad_signature"]
    assert channels(provider)[0].role is Role.PAYEE
    assert channels(provider)[0].state is not ChannelState.CHALLENGE


def test_a_notice_over_more_than_its_voucher() -> None:
    """`channel.close_mismatch`: a total needs its voucher."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    tamper(world, provider, CloseNotice, lambda m: replace(m, voucher=None))
    force(world, provider)
    assert codes_against(requester, provider) == ["channel.close_mismatch"]


def test_an_answer_after_the_deadline() -> None:
    """`channel.too_late`, no offence: the sum stands."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    held: list[CloseClaim] = []
    tamper(world, requester, Voucher, lambda _: None, times=100)
    tamper(world, requester, CloseClaim, held.append)
    world.give(requester, make_ask(2, 30))
    world.run(5 * NS_PER_S)
    force(world, provider)
    world.run(PERIOD_NS)
    (channel,) = channels(provider)
    settled = channel.settled_ucr
    assert held
    session = act.SessionKey(requester.signer.public_key, outbound=False)
    provider.node.receive(act.SessionOpened(session), world.clock.now_ns)
    with pytest.raises(Exception, match="too_late") as caught:
        provider.node.challenges.take_claim(session, held[0])
    assert not caught.value.penalize  # type: ignore[attr-defined]
    assert channel.settled_ucr == settled


def test_a_job_that_waits_for_a_channel_which_the_payee_closes_goes_to_another() -> None:
    """Regression: its award waited for a re-establish that was not to come, and was given up."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    world.cut(provider, requester)
    force(world, provider)
    complete(world, requester, 2)
    assert len(channels(requester)) == 2
