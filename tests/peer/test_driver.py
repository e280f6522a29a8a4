"""The driver's promise: nothing after an Append leaves before that record is durable, in order.

Source: router/actions.py and peer/driver.py. The journal is the real one, on a disk that is as
slow as the test wants.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import StorageError
from router.actions import Action, CloseSession, Send, SessionClosed, SessionKey, SessionOpened
from simnet.disk import VirtualDisk
from tests.peer.driver_bench import PATIENCE_S, Bench, bench, say, write
from tests.peer.journal_support import Gate, failing


async def test_nothing_after_an_append_leaves_before_it_is_durable() -> None:
    """What stands before the record leaves at once; the rest, in order, when it is durable."""
    disk, gate = VirtualDisk(), Gate()
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        made.feed(1, say("before"), write(), say("one"), say("two"))
        await gate.wait_reached()
        assert made.done == ["before"]
        gate.opened.set()
        await made.until(3)
        assert made.done == ["before", "one", "two"]


async def test_later_input_does_not_overtake() -> None:
    """An input without a record waits its turn behind one whose record is not durable yet."""
    disk, gate = VirtualDisk(), Gate()
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        made.feed(1, write(), say("first"))
        await gate.wait_reached()
        made.feed(2, say("second"))
        assert made.done == []
        gate.opened.set()
        await made.until(2)
        assert made.done == ["first", "second"]


async def test_each_action_waits_for_its_own_record_only() -> None:
    """A record that comes later does not hold back what stands before it."""
    disk = VirtualDisk()
    gates = [Gate(), Gate()]
    async with bench(disk) as made:
        waiting = list(gates)
        disk.on["fdatasync"] = lambda: waiting.pop(0)()
        made.feed(1, write(), say("first"))
        await gates[0].wait_reached()
        made.feed(2, write(), say("second"))
        gates[0].opened.set()
        await made.until(1)
        await gates[1].wait_reached()
        assert made.done == ["first"]
        gates[1].opened.set()
        await made.until(2)


async def test_many_inputs_share_a_commit() -> None:
    """What comes during a commit is written by the next one: two syncs for fifty records."""
    disk, gate = VirtualDisk(), Gate()
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        before = disk.counts["fdatasync"]
        made.feed(0, write(), say("0"))
        await gate.wait_reached()
        for number in range(1, 50):
            made.feed(number, write(), say(str(number)))
        gate.opened.set()
        await made.until(50)
        assert made.done == [str(number) for number in range(50)]
        assert disk.counts["fdatasync"] - before == 2


async def test_failed_disk_lets_nothing_out() -> None:
    """The record that could not be written holds its actions forever, and the driver ends."""
    disk = VirtualDisk()
    made = Bench(disk)
    disk.on["fdatasync"] = failing(5)
    with (
        trio.fail_after(PATIENCE_S),
        pytest.RaisesGroup(StorageError, allow_unwrapped=True, flatten_subgroups=True),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(made.driver.run)
            made.feed(1, write(), say("secret"))
            nursery.start_soon(run_quietly, made.journal.run)
    assert made.done == []


async def run_quietly(run: Callable[[], Awaitable[None]]) -> None:
    """The journal's own failure is the journal's test."""
    with suppress(StorageError):
        await run()


async def test_inputs_of_effects_come_after_the_actions_that_caused_them() -> None:
    """An effect that feeds the node does not cut in between actions of one input."""
    async with bench() as made:
        made.on["one"] = lambda: made.feed(2, say("caused"))
        made.feed(1, say("one"), say("two"))
        assert made.done == ["one", "two", "caused"]


async def test_inputs_of_released_effects_keep_the_order() -> None:
    """The same for actions that waited for a record."""
    async with bench() as made:
        made.on["one"] = lambda: made.feed(2, say("caused"))
        made.feed(1, write(), say("one"), say("two"))
        await made.until(3)
        assert made.done == ["one", "two", "caused"]


async def test_wait_idle_waits_for_records_and_what_follows() -> None:
    """After it, all is durable and carried out."""
    disk, gate = VirtualDisk(), Gate()
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        made.feed(1, write(), say("one"), write())
        idle = trio.Event()

        async def wait() -> None:
            await made.driver.wait_idle()
            idle.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await gate.wait_reached()
            assert not idle.is_set()
            gate.opened.set()
        assert made.done == ["one"]
        assert made.journal.durable_sequence == 1


async def test_log_that_can_not_keep_up_stops_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for records is bounded."""
    monkeypatch.setattr(limits, "OUTBOX_ACTIONS_MAX", 10)
    made = Bench(VirtualDisk())
    made.feed(1, write(), *(say(str(number)) for number in range(10)))
    with pytest.raises(StorageError):
        made.feed(2, say("one more"))
    made.journal.close()


@given(inputs=st.lists(st.lists(st.booleans(), max_size=5), max_size=30), pauses=st.data())
def test_any_inputs_keep_the_promise(inputs: list[list[bool]], pauses: st.DataObject) -> None:
    """Any mix of records (True) and effects, fed at any pace: all leave in order, each behind
    its records."""

    async def play() -> None:
        expected: list[str] = []
        needs: dict[str, int] = {}
        records = 0
        async with bench() as made:
            made.on = Durable(made, needs)
            for number, shape in enumerate(inputs):
                actions: list[Action] = []
                for place, is_record in enumerate(shape):
                    if is_record:
                        actions.append(write())
                        records += 1
                    else:
                        name = f"{number}.{place}"
                        actions.append(say(name))
                        expected.append(name)
                        needs[name] = records - 1
                made.feed(number, *actions)
                if pauses.draw(st.booleans()):
                    await trio.lowlevel.checkpoint()
            with trio.fail_after(PATIENCE_S):
                await made.driver.wait_idle()
            assert made.done == expected
            assert made.journal.durable_sequence == records - 1

    trio.run(play)


class Durable(dict[str, Callable[[], None]]):
    """At every action: the records before it are durable."""

    def __init__(self, made: Bench, needs: dict[str, int]) -> None:
        super().__init__()
        self._made = made
        self._needs = needs

    def get(self, name: str, default: Any = None) -> Callable[[], None]:
        assert self._made.journal.durable_sequence >= self._needs[name], name
        return lambda: None


async def test_what_waits_for_a_stream_that_ended_does_not_go_out_on_the_next() -> None:
    """Chunks of a broken stream would come out on the new one, before it is agreed."""
    disk, gate = VirtualDisk(), Gate()
    old, other = SessionKey(b"payer", False), SessionKey(b"payer", True)
    async with bench(disk) as made:
        disk.on["fdatasync"] = gate
        waiting = (Send(old, b"chunk"), say("kept"), Send(other, b"award"))
        made.feed(1, write(), *waiting, CloseSession(old, "session.closed"))
        await gate.wait_reached()
        made.script.receive = lambda item, now_ns: []  # type: ignore[method-assign]
        made.driver.feed(SessionClosed(old, "session.closed"))
        made.driver.feed(SessionOpened(old))
        gate.opened.set()
        await made.until(2)
        await made.driver.wait_idle()
        assert made.done == ["kept", "Send"]
