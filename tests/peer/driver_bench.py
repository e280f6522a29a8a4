"""A driver between a node that says what a test wants said and a list of what was carried out."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from peer.driver import Driver
from peer.journal import Journal
from protocol.errors import RemoteError
from router.actions import (
    Action,
    Append,
    CancelAsk,
    Deliver,
    Input,
    SessionClosed,
    SessionOpened,
)
from router.node import Node
from simnet.disk import VirtualDisk
from tests.peer.journal_support import open_journal

PATIENCE_S = 30


def say(name: str) -> Deliver:
    """An action that leaves the node, told apart by its name."""
    return Deliver(0, name)


def write(text: str = "record") -> Append:
    """A record."""
    return Append(1, text.encode())


class Script:
    """A node that answers an Ask's number with the actions written for it."""

    def __init__(self) -> None:
        self.answers: dict[int, list[Action]] = {}
        self.received: list[int] = []
        self.timers: list[tuple[int, list[Action]]] = []

    def receive(self, item: Input, now_ns: int) -> list[Action]:
        if isinstance(item, SessionOpened | SessionClosed):
            return []
        assert isinstance(item, CancelAsk)
        self.received.append(item.ask_id)
        return self.answers.get(item.ask_id, [])

    def next_timer(self) -> int | None:
        return self.timers[0][0] if self.timers else None

    def handle_timer(self, now_ns: int) -> list[Action]:
        due: list[Action] = []
        while self.timers and self.timers[0][0] <= now_ns:
            due += self.timers.pop(0)[1]
        return due

    def admit(self, data: bytes, now_ns: int) -> Any:
        if data in (b"forged", b"stale"):
            code = "envelope.bad_signature" if data == b"forged" else "envelope.stale"
            raise RemoteError(code, penalize=data == b"forged")
        return data


class Bench:
    """A driver between a script and a list of what was carried out."""

    def __init__(self, disk: VirtualDisk, now_ns: Callable[[], int] = lambda: 0) -> None:
        self.script = Script()
        self.journal: Journal = open_journal(disk)
        self.done: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.changed = trio.Event()
        self.driver = Driver(cast(Node, self.script), self.journal, self, now_ns)

    def perform(self, action: Action) -> None:
        """The driver's effects: note the name, and do what the test hooked to it."""
        name = action.event if isinstance(action, Deliver) else type(action).__name__
        self.done.append(name)
        self.on.get(name, lambda: None)()
        self.changed.set()
        self.changed = trio.Event()

    def feed(self, number: int, *actions: Action) -> None:
        """An input that the node answers with these actions."""
        self.script.answers[number] = list(actions)
        self.driver.feed(CancelAsk(number))

    async def until(self, count: int) -> None:
        """Until so many actions were carried out."""
        with trio.fail_after(PATIENCE_S):
            while len(self.done) < count:
                await self.changed.wait()


@asynccontextmanager
async def bench(disk: VirtualDisk | None = None) -> AsyncIterator[Bench]:
    """A running driver and journal."""
    made = Bench(disk or VirtualDisk())
    async with trio.open_nursery() as nursery:
        await nursery.start(made.journal.run)
        await nursery.start(made.driver.run)
        yield made
        nursery.cancel_scope.cancel()
    made.journal.close()
