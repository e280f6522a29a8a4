"""A log put back to an older state, at either end: repaired from signatures at re-establish.

Source: router/README.md, "Money": a voucher that was lost is sent again, a forgotten one adopted.
"""

import pytest

from protocol.messages import ReceiptAck, Reestablish, Voucher
from protocol.records import (
    DepositRaised,
    LaneOpened,
    Reserved,
    VoucherAccepted,
    VoucherIssued,
    decode_record,
)
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    channels,
    close_all,
    complete,
    make_ask,
    make_world,
    message_of,
    same_totals,
    succeeded,
    tamper,
)


def roll_back(world: World, peer: Peer, records: int) -> None:
    """The peer dies and comes back with a log that ends after `records`."""
    world.crash(peer)
    del peer.log[records:]
    world.restart(peer)


def assert_whole(world: World) -> None:
    """One channel, both ends alike, nobody blamed; it closes, and no unit is lost."""
    provider, requester = world.peers
    assert len(channels(requester)) == len(channels(provider)) == 1
    assert same_totals(requester, provider)
    assert not requester.penalized
    assert not provider.penalized
    assert len(close_all(world, requester)) == 1
    balances = [peer.node.context.ledger.balance() for peer in world.peers]
    assert sum(balance.net_ucr for balance in balances) == 0


def two_jobs() -> tuple[World, list[int]]:
    """A world after two jobs, and how long both logs were after the first."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    lengths = [len(peer.log) for peer in world.peers]
    complete(world, requester, 2, 70)
    return world, lengths


@pytest.mark.parametrize("back", range(1, 15, 2))
@pytest.mark.parametrize("who", ["payee", "payer", "both"])
def test_a_side_rolled_back_is_repaired(who: str, back: int) -> None:
    """Any number of records of the last job gone, at either end or both: as if never."""
    world, lengths = two_jobs()
    provider, requester = world.peers
    due, lane_last = channels(requester)[0].due_ucr, channels(requester)[0].lane_last
    for peer, least in zip(world.peers, lengths, strict=True):
        if who in ("both", "payee" if peer is provider else "payer"):
            roll_back(world, peer, max(least, len(peer.log) - back))
    world.run(NS_PER_S)
    complete(world, requester, 3)
    (mine,) = channels(requester)
    assert mine.lane_last > lane_last or who == "both"
    assert mine.due_ucr > due or who == "both"
    assert_whole(world)


def test_a_payer_rolled_back_knows_its_debt_again() -> None:
    """I2 afterwards: the adopted voucher is in the log, and the due that it stated."""
    world, lengths = two_jobs()
    provider, requester = world.peers
    before, lost = channels(requester)[0], channels(provider)[0].voucher
    roll_back(world, requester, lengths[1])
    assert lost is not None
    assert channels(requester)[0].total_ucr < lost.total_ucr
    complete(world, requester, 3, 1)
    (after,) = channels(requester)
    assert (after.settled_lanes, after.lane_last) == (3, 3)
    assert after.due_ucr - after.closed[3] == before.due_ucr
    kept = [decode_record(number, payload) for number, payload in requester.log]
    assert VoucherIssued(lost.cid, lost.total_ucr, lost.lanes) in kept


def test_a_payer_put_back_to_before_its_top_ups_is_shown_the_last() -> None:
    """Its own signature under it: both count on the same deposit again, and nobody is blamed."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1, 1)
    kept = len(requester.log)
    for deposit in (2_000_000, 3_000_000):
        world.give(requester, act.TopUpChannel(channels(requester)[0].cid, deposit))
        world.run(NS_PER_S)
    roll_back(world, requester, kept)
    assert channels(requester)[0].deposit_ucr < 2_000_000
    complete(world, requester, 2, 1)
    assert [channels(peer)[0].deposit_ucr for peer in world.peers] == [3_000_000, 3_000_000]
    assert_whole(world)


def test_a_payee_rolled_back_is_paid_by_the_voucher_that_comes_again() -> None:
    """The payer sends its last voucher again, the same bytes; the payee's due follows its word."""
    world, lengths = two_jobs()
    provider, requester = world.peers
    lost = channels(provider)[0].voucher
    roll_back(world, provider, lengths[0])
    again: list[Voucher] = []

    def watch(source: Peer, _target: Peer, data: bytes) -> bytes:
        message = message_of(data)
        if source is requester and isinstance(message, Voucher):
            again.append(message)
        return data

    world.frame_filter = watch
    world.give(requester, make_ask(3))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, 3)
    assert again[0] == lost
    assert_whole(world)


def test_what_the_payer_owns_up_to_comes_before_what_a_payee_guesses() -> None:
    """Put back to before it reserved the second of two lanes, a payee knows of the first only what
    it reserved; one voucher covers both, and no more than it is asked for."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, 1)
    for number, tokens in ((2, 10), (3, 33)):
        world.give(requester, make_ask(number, tokens, deposit_ucr=1_000_000))
    world.run(320 * NS_PER_MS)
    kinds = [type(decode_record(*entry)) for entry in provider.log]
    assert [lane.due_ucr > 0 for lane in channels(requester)[0].lanes.values()] == [True, True]
    roll_back(world, provider, len(kinds) - 1 - kinds[::-1].index(Reserved))
    world.run(NS_PER_S)
    complete(world, requester, 4)
    assert_whole(world)


def test_a_voucher_lost_with_its_stream_is_sent_again() -> None:
    """Only the voucher is missing: the same signature arrives on the next stream."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    lost: list[Voucher] = []
    tamper(world, requester, Voucher, lost.append, times=100)
    world.give(requester, make_ask(2, 30))
    world.run(10 * NS_PER_S)
    assert lost
    assert channels(provider)[0].total_ucr < channels(requester)[0].total_ucr
    world.cut(provider, requester)
    world.frame_filter = None
    again: list[Voucher] = []
    tamper(world, requester, Voucher, lambda message: again.append(message) or message)
    complete(world, requester, 3, 1)
    assert again == lost[-1:]
    assert_whole(world)


@pytest.mark.parametrize("kept", range(2, 6))
def test_a_payee_put_back_into_the_middle_of_a_lane_blames_nobody(kept: int) -> None:
    """Regression: a lane without its reservations looked as if nothing had been sent on it."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1, 100))
    world.run(1_500 * NS_PER_MS)
    assert len(provider.log) > kept
    roll_back(world, provider, kept)
    world.run(10 * NS_PER_S)
    complete(world, requester, 2)
    assert_whole(world)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("end", ["agreed", "alone"])
def test_a_side_put_back_to_before_a_top_up(who: int, end: str) -> None:
    """Regression: the other end's voucher over the deposit that was forgotten was an offence."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, deposit_ucr=0)
    lengths = [len(peer.log) for peer in world.peers]
    before = channels(requester)[0].deposit_ucr
    for number in (2, 3, 4, 5):
        complete(world, requester, number, 70, deposit_ucr=0)
    assert channels(requester)[0].total_ucr > before
    roll_back(world, world.peers[who], lengths[who])
    if end == "alone":
        peer = world.peers[1 - who]
        world.give(peer, act.ForceClose((channels(peer)[0].cid,)))
    complete(world, requester, 6, deposit_ucr=0)
    assert not requester.penalized
    assert not provider.penalized
    if end == "agreed":
        assert_whole(world)
        return
    world.run(40 * 24 * 3_600 * NS_PER_S)
    settled = [channels(peer)[0].settled_ucr or 0 for peer in world.peers]
    assert settled[0] == channels(provider)[0].total_ucr
    # A payee that forgot the top-up, and never re-established, claims what it knows of.
    assert settled[0] == settled[1] > before if who else 0 < settled[0] <= before < settled[1]


def test_the_answer_names_the_last_lane_so_that_no_number_is_used_twice() -> None:
    """A payer that lost its lanes goes on behind them."""
    world, lengths = two_jobs()
    provider, requester = world.peers
    roll_back(world, requester, lengths[1])
    answers: list[Reestablish] = []

    def watch(source: Peer, _target: Peer, data: bytes) -> bytes:
        message = message_of(data)
        if source is provider and isinstance(message, Reestablish):
            answers.append(message)
        return data

    world.frame_filter = watch
    complete(world, requester, 3)
    assert [claim.lane for claim in answers[0].lanes] == [0, 2]
    assert channels(requester)[0].lane_last == 3


def cut_at(world: World, peer: Peer, record: type, *, keep: bool) -> None:
    """The peer comes back with a log that ends at its last record of a kind, kept or not."""
    kinds = [type(decode_record(number, payload)) for number, payload in peer.log]
    last = len(kinds) - 1 - kinds[::-1].index(record)
    roll_back(world, peer, last + keep)


def test_a_payee_put_back_before_its_chunks_believes_the_payer() -> None:
    """Regression: a payer that owned up to more than the log knew was blamed for it."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1, 70))
    world.run(900 * NS_PER_MS)
    due = channels(requester)[0].due_ucr
    assert due
    cut_at(world, provider, LaneOpened, keep=True)
    world.run(5 * NS_PER_S)
    complete(world, requester, 2)
    assert channels(requester)[0].settled_due_ucr > due
    assert_whole(world)


def test_a_payee_put_back_before_a_voucher_paid_ahead_believes_the_payer() -> None:
    """Regression: with the totals alike, nothing told the payee what it had delivered."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1, 70))
    world.run(600 * NS_PER_MS)
    assert channels(requester)[0].total_ucr == channels(provider)[0].total_ucr
    assert channels(requester)[0].due_ucr
    cut_at(world, provider, VoucherAccepted, keep=True)
    world.run(5 * NS_PER_S)
    assert channels(provider)[0].due_ucr == channels(requester)[0].due_ucr > 0
    complete(world, requester, 2)
    assert_whole(world)


def test_a_payee_put_back_before_a_top_up_is_told_of_it_again() -> None:
    """Regression: vouchers over the deposit that it knew were an offence."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, deposit_ucr=0)
    complete(world, requester, 2, deposit_ucr=0)
    cut_at(world, provider, DepositRaised, keep=False)
    deposit = channels(requester)[0].deposit_ucr
    assert channels(provider)[0].deposit_ucr < deposit
    complete(world, requester, 3, deposit_ucr=0)
    assert channels(provider)[0].deposit_ucr >= deposit
    assert_whole(world)


def test_a_payer_put_back_before_a_lane_whose_receipt_waits() -> None:
    """Regression: the payee waited for an answer about a lane that the payer had forgotten, and
    then counted a price that the payer never heard of."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1)
    records = len(requester.log)
    tamper(world, requester, ReceiptAck, lambda _: None, times=100)
    world.give(requester, make_ask(2, 10))
    world.run(800 * NS_PER_MS)
    world.frame_filter = None
    (lane,) = channels(provider)[0].lanes.values()
    assert lane.result is not None
    roll_back(world, requester, records)
    complete(world, requester, 3)
    world.run(15 * NS_PER_S)
    assert_whole(world)


def test_a_payer_adopts_its_voucher_even_over_the_deposit_that_it_knows() -> None:
    """Regression: its own signature froze the channel, for its log had lost the top-up."""
    world = make_world()
    provider, requester = world.peers
    complete(world, requester, 1, deposit_ucr=0)
    records = len(requester.log)
    complete(world, requester, 2, 200, deposit_ucr=0)
    signed = channels(provider)[0].total_ucr
    roll_back(world, requester, records)
    assert signed > channels(requester)[0].deposit_ucr
    assert len(close_all(world, requester)) == 1
    assert channels(requester)[0].settled_ucr == channels(provider)[0].settled_ucr == signed
    assert not requester.penalized
