"""A stream that breaks while both ends live: the answer goes on without a gap or a repeat.

Source: router/README.md, "Resuming".
"""

from typing import Any

import pytest

from protocol import limits
from protocol.messages import Chunk, JobFailed, ReceiptAck, Reestablish, Result, Resume
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router import actions as act
from router import events
from router.actions import SessionKey
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    W_UCR,
    assert_losses_bounded,
    channels,
    close_all,
    codes_against,
    failure,
    key_of,
    last_end,
    make_ask,
    make_world,
    message_of,
    same_totals,
    succeeded,
    tamper,
)

TOKENS = 60
WHOLE = "virtual tokens " * TOKENS


def text_of(requester: Peer) -> str:
    """What the asker has read."""
    return "".join(event.text for event in requester.heard(events.Text))


def jobs_started(world: World) -> list[bytes]:
    """Filled with each job that the engine is given."""
    started: list[bytes] = []

    def watch(_peer: Peer, actions: list[act.Action]) -> None:
        started.extend(a.job_id for a in actions if isinstance(a, act.StartJob))

    world.after_step = watch
    return started


def frames(world: World) -> list[Any]:
    """Filled with each message that leaves for a stream."""
    seen: list[Any] = []

    def watch(_source: Peer, _target: Peer, data: bytes) -> bytes:
        seen.append(message_of(data))
        return data

    world.frame_filter = watch
    return seen


def assert_whole(world: World) -> None:
    """The whole answer, once; one lane with one receipt; both agree; nobody is blamed."""
    provider, requester = world.peers
    assert succeeded(requester), last_end(requester)
    assert text_of(requester) == WHOLE
    price = cost_ucr(12, TOKENS, 15_000_000, 60_000_000)
    assert channels(requester)[0].due_ucr == channels(provider)[0].due_ucr == price
    assert requester.node.context.ledger.receipts == provider.node.context.ledger.receipts == 1
    assert same_totals(requester, provider)
    assert not requester.penalized
    assert not provider.penalized
    assert not provider.node.context.ledger.denials.by_payer
    assert len(close_all(world, requester)) == 1


@pytest.mark.parametrize("after_ms", range(340, 1_640, 65))
def test_a_cut_at_any_time_leaves_no_gap_and_no_repeat(after_ms: int) -> None:
    """From the first chunk to the receipt: one engine job, one lane, the whole text once."""
    world = make_world()
    provider, requester = world.peers
    started = jobs_started(world)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(after_ms * NS_PER_MS)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert len(started) == 1
    assert_whole(world)


def test_cut_again_and_again() -> None:
    """Each break is survived, also one that comes before the channel is re-established."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(400 * NS_PER_MS)
    for pause_ms in (1, 30, 60, 90, 300, 20, 150):
        world.cut(provider, requester)
        world.run(pause_ms * NS_PER_MS)
    world.run(10 * NS_PER_S)
    assert_whole(world)


def test_what_was_lost_with_the_stream_is_sent_again_as_it_was() -> None:
    """The same bytes: sequence, text, price, hash and signature."""
    world = make_world()
    provider, requester = world.peers
    lost: list[Chunk] = []
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(500 * NS_PER_MS)
    tamper(world, provider, Chunk, lost.append, times=3)
    while len(lost) < 3:
        world.run(NS_PER_MS)
    world.cut(provider, requester)
    seen = frames(world)
    world.run(10 * NS_PER_S)
    again = [message for message in seen if isinstance(message, Chunk)]
    assert again[: len(lost)] == lost
    assert_whole(world)


def test_two_lanes_are_resumed_together() -> None:
    """Both answers go on; the channel stays one."""
    world = make_world()
    provider, requester = world.peers
    for number in (1, 2):
        world.give(requester, make_ask(number, TOKENS))
    world.run(700 * NS_PER_MS)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert succeeded(requester, 1)
    assert succeeded(requester, 2)
    assert text_of(requester).count("virtual") == 2 * TOKENS
    assert same_totals(requester, provider)


def unreachable(world: World, times: int) -> None:
    """The next dials fail after a while."""
    opened = world.streams.open

    def fail(peer: Peer, session: SessionKey) -> None:
        nonlocal times
        times -= 1
        if times < 0:
            opened(peer, session)
            return
        closed = act.SessionClosed(session, "provider.unreachable")
        world.clock.after(300 * NS_PER_MS, lambda: world.give(peer, closed))

    world.streams.open = fail  # type: ignore[method-assign]


def test_a_provider_that_is_out_of_reach_for_seconds() -> None:
    """It is dialled until RESUME_TIMEOUT_NS; the text waits for the requester."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    unreachable(world, 4)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert_whole(world)


def test_a_provider_that_stays_out_of_reach() -> None:
    """`provider.vanished` after RESUME_TIMEOUT_NS; its job stops after RESUME_GRACE_NS."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=2_000, timeout_ns=100 * NS_PER_S))
    world.run(700 * NS_PER_MS)
    unreachable(world, 100)
    world.cut(provider, requester)
    world.run(limits.RESUME_TIMEOUT_NS - NS_PER_MS)
    assert not requester.heard(events.Failed)
    world.run(NS_PER_MS)
    assert failure(requester) == "provider.vanished"
    assert provider.node.provider.serving.running == 1
    world.run(limits.RESUME_GRACE_NS - limits.RESUME_TIMEOUT_NS)
    assert provider.node.provider.serving.running == 0
    assert not provider.jobs
    assert_losses_bounded(requester, provider)


def test_a_provider_that_restarted_can_not_go_on() -> None:
    """Texts are never on disk: the lane is settled, the asker keeps what arrived."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    world.crash(provider)
    world.run(100 * NS_PER_MS)
    world.restart(provider)
    world.run(10 * NS_PER_S)
    assert failure(requester) == "provider.vanished"
    assert not channels(requester)[0].lanes
    assert same_totals(requester, provider)


def test_an_asker_that_gives_up_while_the_stream_is_broken() -> None:
    """`request.cancelled`; nothing is resumed, the provider stops, both agree."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    world.cut(provider, requester)
    world.give(requester, act.CancelAsk(1))
    world.run(10 * NS_PER_S)
    assert failure(requester) == "request.cancelled"
    assert not provider.node.provider.serving.running
    assert not channels(provider)[0].lanes
    assert same_totals(requester, provider)


def test_the_deadline_holds_while_the_stream_is_broken() -> None:
    """`request.deadline` on both ends, though the stream would come back."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS, timeout_ns=1_800 * NS_PER_MS))
    world.run(700 * NS_PER_MS)
    unreachable(world, 100)
    world.cut(provider, requester)
    world.run(1_200 * NS_PER_MS)
    assert failure(requester) == "request.deadline"
    assert not provider.node.provider.serving.running


# --- receipts ------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [False, True])
def test_a_lost_result_is_sent_again(restart: bool) -> None:
    """From memory or, after the provider's restart, from its log: the job is done, once."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, provider, Result, lambda _: None)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(2_500 * NS_PER_MS)
    assert channels(provider)[0].lanes[1].result is not None
    if restart:
        world.crash(provider)
        world.restart(provider)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert_whole(world)


@pytest.mark.parametrize("who", ["nobody", "provider", "requester", "both"])
def test_a_lost_countersignature_is_sent_again(who: str) -> None:
    """The result comes again from the log, and its answer from the log of the other end."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, ReceiptAck, lambda _: None)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(2_500 * NS_PER_MS)
    for peer, name in ((provider, "provider"), (requester, "requester")):
        if who in (name, "both"):
            world.crash(peer)
            world.restart(peer)
    world.cut(provider, requester)
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, 2)
    assert requester.node.context.ledger.receipts == 2
    assert provider.node.context.ledger.receipts == 2
    assert same_totals(requester, provider)


def test_a_close_that_crosses_a_result_sent_again() -> None:
    """Regression: the payee's lane was still open, and the close was given up for good."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, ReceiptAck, lambda _: None)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(2_500 * NS_PER_MS)
    world.cut(provider, requester)
    assert len(close_all(world, requester)) == 1
    assert provider.node.context.ledger.receipts == 1


def test_a_receipt_that_is_never_countersigned() -> None:
    """The lane is closed at its price after ACKNOWLEDGE_TIMEOUT_NS; the channel can close."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, requester, ReceiptAck, lambda _: None, times=100)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(2_500 * NS_PER_MS)
    (channel,) = channels(provider)
    assert list(channel.lanes) == [1]
    world.run(limits.ACKNOWLEDGE_TIMEOUT_NS)
    assert not channel.lanes
    assert channel.due_ucr == channels(requester)[0].due_ucr
    assert ("receipt.unacknowledged", key_of(requester)) in [
        (event, fields.get("peer_id")) for event, fields in provider.notes
    ]
    assert len(close_all(world, requester)) == 1


# --- providers that lie --------------------------------------------------------------------


def test_a_provider_that_goes_on_with_what_was_not_asked_for() -> None:
    """`channel.bad_reestablish`: blamed; the asker hears of it, and keeps what arrived."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    tamper(world, provider, Resume, lambda m: Resume(m.cid, m.lane, m.sequence + 1))
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert codes_against(requester, provider) == ["channel.bad_reestablish"]
    assert failure(requester) == "provider.vanished"
    assert_losses_bounded(requester, provider)


def test_a_provider_that_promises_to_go_on_and_does_not() -> None:
    """Its chunks stay away: `chunk.stalled`, as without a break."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    world.cut(provider, requester)
    tamper(world, provider, Chunk, lambda _: None, times=1_000)
    tamper(world, provider, Result, lambda _: None, times=1_000)
    tamper(world, provider, JobFailed, lambda _: None, times=1_000)
    world.run(limits.CHUNK_TIMEOUT_NS + NS_PER_S)
    assert failure(requester) == "chunk.stalled"


def test_a_peer_that_knows_no_resume_is_settled_with() -> None:
    """Without the message each end closes the lane at what arrived, as after a restart."""
    world = make_world()
    provider, requester = world.peers
    seen = frames(world)
    tamper(world, requester, Resume, lambda _: None)
    world.give(requester, make_ask(tokens=TOKENS))
    world.run(700 * NS_PER_MS)
    world.cut(provider, requester)
    world.run(10 * NS_PER_S)
    assert any(isinstance(message, Reestablish) for message in seen)
    assert failure(requester) == "provider.vanished"
    assert not channels(provider)[0].lanes
    assert W_UCR >= channels(provider)[0].due_ucr - channels(requester)[0].due_ucr >= 0
