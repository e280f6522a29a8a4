"""Jobs that break off mid-stream, and askers that give up: what is due, and who agrees.

Source: router/README.md, "Life of a job", 6: mid-stream, what arrived is paid.
"""

import pytest

from protocol import limits
from protocol.messages import JobFailed
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from simnet.peer import Peer
from tests.router.support import (
    awarded_to,
    break_engine,
    channels,
    engine,
    failure,
    key_of,
    last_end,
    make_ask,
    make_world,
    retried,
    same_totals,
    tamper,
    when_job_starts,
)


def text_of(requester: Peer) -> str:
    """What the asker has read."""
    return "".join(event.text for event in requester.heard(events.Text))


# --- mid-stream ----------------------------------------------------------------------------


def test_an_engine_that_fails_mid_stream() -> None:
    """The asker keeps the text and its code; what arrived is due on both sides and is paid."""
    world = make_world(2)
    _, best, requester = world.peers
    break_engine(world, best, after_ns=510 * NS_PER_MS)
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert failure(requester) == "engine.crashed"
    assert not retried(requester)
    assert len(requester.heard(events.Text)) == 25
    due = cost_ucr(12, 25, 15_000_000, 50_000_000)
    (mine,), (theirs,) = channels(requester), channels(best)
    assert mine.due_ucr == theirs.due_ucr == due <= theirs.total_ucr
    end = last_end(requester)
    assert isinstance(end, events.Failed)
    assert end.paid_ucr == due


def test_a_provider_that_vanishes_mid_stream() -> None:
    """`provider.vanished`; the asker keeps what arrived, and no other bid is tried."""
    world = make_world(2)
    _, best, requester = world.peers
    world.give(requester, make_ask())
    world.run(800 * NS_PER_MS)
    read = text_of(requester)
    assert read
    world.crash(best)
    world.run(10 * NS_PER_S)
    assert failure(requester) == "provider.vanished"
    assert text_of(requester).startswith(read)


def test_a_provider_that_stalls() -> None:
    """Nothing for CHUNK_TIMEOUT_NS: `chunk.stalled`, the lane is cancelled, both agree."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(600 * NS_PER_MS)
    assert requester.heard(events.Text)
    provider.jobs.clear()  # the engine hangs
    world.run(limits.CHUNK_TIMEOUT_NS + NS_PER_S)
    assert failure(requester) == "chunk.stalled"
    assert same_totals(requester, provider)
    assert not channels(provider)[0].lanes


def test_the_next_provider_is_watched_though_the_last_one_answers_late() -> None:
    """Regression: the late end of an abandoned attempt stopped the stall timer of the next."""
    world = make_world(2)
    second, best, requester = world.peers
    late: list[bytes] = []

    def hold(_source: Peer, target: Peer, data: bytes) -> bytes | None:
        if target is best and len(late) < 2:  # award and cancel
            late.append(data)
            return None
        return data

    world.frame_filter = hold
    world.give(requester, make_ask(timeout_ns=300 * NS_PER_S))
    world.run(6 * NS_PER_S)
    assert awarded_to(requester) == [key_of(best), key_of(second)]
    assert requester.heard(events.Text)
    second.jobs.clear()  # its engine hangs
    world.frame_filter = None
    session = act.SessionKey(key_of(requester), outbound=False)
    for data in late:
        world.give(best, act.SessionData(session, data))
    world.run(limits.CHUNK_TIMEOUT_NS + NS_PER_S)
    assert failure(requester) == "chunk.stalled"


def test_nobody_waits_for_text_of_a_provider_that_died_before_its_first() -> None:
    """Regression: its stall timer was left, and fell on the award that was sought from the next,
    on a stream that was not up yet: the requester's daemon died of it."""
    world = make_world(2)
    second, best, requester = world.peers
    world.give(requester, make_ask(timeout_ns=60 * NS_PER_S))
    while not best.jobs:
        world.run(NS_PER_MS)
    best.jobs.clear()  # it accepted, and its engine hangs
    world.run(limits.FIRST_CHUNK_TIMEOUT_NS - NS_PER_S)
    assert awarded_to(requester) == [key_of(best)]
    world.crash(best)
    world.crash(second)
    world.run(30 * NS_PER_S)
    assert failure(requester) == "request.all_failed"


# --- the asker gives up --------------------------------------------------------------------


@pytest.mark.parametrize("after_ms", [0, 150, 250, 280, 300, 330, 360, 400, 600, 900])
def test_a_cancel_at_any_time(after_ms: int) -> None:
    """`request.cancelled`; the engine stops, and both sides agree on what is due and paid."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(after_ms * NS_PER_MS)
    world.give(requester, act.CancelAsk(1))
    assert failure(requester) == "request.cancelled"
    world.run(20 * NS_PER_S)
    assert not provider.jobs
    for channel in channels(provider):
        assert not channel.lanes
        assert channel.total_ucr >= channel.due_ucr
    assert not channels(provider) or same_totals(requester, provider)
    assert not provider.penalized
    assert not requester.penalized
    assert not requester.node.requester.open_jobs


def test_a_deadline_mid_stream() -> None:
    """`request.deadline`; what arrived stays, the lane ends, both sides agree."""
    world = make_world(0, 0)
    slow = engine()
    provider = world.add(slow)
    requester = world.add()
    world.give(requester, make_ask(tokens=40, timeout_ns=1_200 * NS_PER_MS))
    when_job_starts(world, provider, lambda job_id: provider.jobs.pop(job_id) and None)
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.deadline"
    assert not channels(provider)[0].lanes
    assert same_totals(requester, provider)


def test_an_end_that_is_no_code_of_ours_is_not_passed_on() -> None:
    """A provider's free text never reaches the asker as a code: `provider.refused`."""
    world = make_world()
    provider, requester = world.peers
    break_engine(world, provider, after_ns=510 * NS_PER_MS)
    tamper(world, provider, JobFailed, lambda m: JobFailed(m.cid, m.lane, "your.fault"))
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert failure(requester) == "provider.refused"
    assert requester.heard(events.Text)


@pytest.mark.parametrize("after_ms", range(10, 200, 15))
def test_an_asker_that_gives_up_while_its_lane_is_being_resumed(after_ms: int) -> None:
    """Regression: the payee was blamed for going on with what it had just been asked for."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=100))
    world.run(700 * NS_PER_MS)
    world.cut(provider, requester)
    world.run(after_ms * NS_PER_MS)
    world.give(requester, act.CancelAsk(1))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.cancelled"
    assert not requester.penalized
    assert not provider.node.provider.serving.running
    assert not channels(provider)[0].lanes
    assert not channels(requester)[0].lanes
    assert same_totals(requester, provider)
