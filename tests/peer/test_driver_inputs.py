"""Timers and gossip as the driver hands them to the node. Source: peer/driver.py."""

from functools import partial
from typing import Any, cast

import pytest
import trio
import trio.testing

from protocol.units import NS_PER_S
from router.actions import (
    CloseSession,
    GossipReceived,
    Input,
    Send,
    SessionClosed,
    SessionKey,
    SessionOpened,
)
from simnet.disk import VirtualDisk
from tests.peer.driver_bench import Bench, bench, say, write
from tests.peer.journal_support import Gate


async def test_inputs_of_effects_come_after_the_actions_of_a_timer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The same for actions of a timer."""
    made = Bench(VirtualDisk(), now_ns=lambda: round(trio.current_time() * NS_PER_S))
    made.on["one"] = lambda: made.feed(2, say("caused"))
    made.script.timers.append((made.driver._now_ns() + NS_PER_S, [say("one"), say("two")]))
    async with trio.open_nursery() as nursery:
        await nursery.start(made.driver.run)
        made.feed(1)
        await made.until(3)
        nursery.cancel_scope.cancel()
    made.journal.close()
    assert made.done == ["one", "two", "caused"]


async def test_timers_run_when_due(autojump_clock: trio.testing.MockClock) -> None:
    """Each at its time, an earlier one that comes later first, one in the past at once."""
    start = trio.current_time()
    made = Bench(VirtualDisk(), now_ns=lambda: round(trio.current_time() * NS_PER_S))
    at: dict[str, float] = {}

    def due(seconds: float) -> int:
        return round((start + seconds) * NS_PER_S)

    def note(name: str) -> None:
        at[name] = trio.current_time() - start

    for name in ("past", "soon", "late"):
        made.on[name] = partial(note, name)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.driver.run)
        made.script.timers = [(due(20), [say("late")])]
        made.feed(1)
        await trio.testing.wait_all_tasks_blocked()
        made.script.timers.insert(0, (due(5), [say("soon")]))
        made.script.timers.insert(0, (due(-1), [say("past")]))
        made.feed(2)
        await made.until(3)
        nursery.cancel_scope.cancel()
    made.journal.close()
    assert made.done == ["past", "soon", "late"]
    assert [round(at[name]) for name in made.done] == [0, 5, 20]


async def test_gossip_is_judged_and_our_own_is_not_taken_in() -> None:
    """A bad message does not spread; a good one spreads, and the node gets others' alone."""
    async with bench() as made:
        got: list[Input] = []
        made.script.receive = lambda item, now_ns: got.append(item) or []  # type: ignore[method-assign,func-returns-value]
        assert not made.driver.gossip(b"stale", b"peer")
        assert made.driver.gossip(b"good", b"")
        assert got == []
        assert made.driver.gossip(b"good", b"peer")
        assert got == [GossipReceived(cast(Any, b"good"))]
        assert made.done == []


async def test_who_passes_on_a_forgery_is_penalized() -> None:
    """The forwarder should have refused it; for our own mistake there is nobody to punish."""
    async with bench() as made:
        assert not made.driver.gossip(b"forged", b"peer")
        assert made.done == ["Penalize"]
        assert not made.driver.gossip(b"forged", b"")
        assert made.done == ["Penalize"]


@pytest.mark.parametrize("opened", [False, True])
async def test_what_waits_for_the_disk_does_not_leave_on_the_next_stream(opened: bool) -> None:
    """A frame behind a record belongs to the stream for which it was made, and ends with it;
    what is for others, or for people, still leaves in its order."""
    disk, gate = VirtualDisk(), Gate()
    ended, other = SessionKey(b"a" * 32, True), SessionKey(b"b" * 32, True)
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        made.feed(1, write(), Send(ended, b"x"), say("told"), Send(other, b"y"))
        made.feed(2, CloseSession(ended, "session.closed"), say("last"))
        await gate.wait_reached()
        made.driver.feed(
            SessionOpened(ended) if opened else SessionClosed(ended, "session.closed")
        )
        gate.opened.set()
        await made.until(3)
        made.feed(3, Send(ended, b"z"))
        await made.until(4)
        assert made.done == ["told", "Send", "last", "Send"]
