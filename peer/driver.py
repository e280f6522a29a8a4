"""Drives a Node: inputs in, actions out, with the promise that the cores rely on.

Actions of one input run in order, and nothing after an Append leaves before that record is
durable. Appends go to the journal at once, so one group commit serves many inputs; all other
actions wait in one queue, each behind the last record before it. A record that can't be
written therefore stops everything, which is the point.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import trio

from peer.journal import Journal
from protocol import limits
from protocol.errors import RemoteError, StorageError
from protocol.units import NS_PER_S
from router.actions import (
    Action,
    Append,
    CloseSession,
    GossipReceived,
    Input,
    Note,
    Penalize,
    Send,
    SessionClosed,
    SessionKey,
    SessionOpened,
)
from router.node import Node

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()

# Events that an operator would not want to see on every message at the default level.
_DEBUG_EVENTS = frozenset({"input.ignored"})
_WARN_EVENTS = frozenset(
    {
        "award.failed",
        "job.failed",
        "log.rolled_back",
        "peer.offence",
        "peer.rolled_back",
        "request.failed",
    }
)


class Effects(Protocol):
    """What carries out the actions; must not block or raise for what peers do."""

    def perform(self, action: Action) -> None:
        """Carry out one action, or start to."""
        ...


class Driver:
    """One node, its journal and its effects, on one trio event loop."""

    def __init__(
        self, node: Node, journal: Journal, effects: Effects, now_ns: Callable[[], int]
    ) -> None:
        self.node = node
        self._journal = journal
        self._effects = effects
        self._now_ns = now_ns
        self._inputs: deque[Input | None] = deque()  # None: timers are due
        self._feeding = False
        self._waiting: deque[tuple[int, Action]] = deque()
        self._watermark = journal.durable_sequence
        self._work = trio.Event()
        self._timer_scope = trio.CancelScope()
        self._timer_at_ns: int | None = None

    def gossip(self, data: bytes, forwarder: bytes) -> bool:
        """The network's validator: take a message in and say whether it may spread."""
        try:
            signed = self.node.admit(data, self._now_ns())
        except RemoteError as error:
            log.debug("gossip.refused", code=error.code, detail=error.detail)
            if error.penalize and forwarder:
                # An honest node passes on only what it would have admitted itself.
                self._effects.perform(Penalize(forwarder, error.code))
            return False
        if forwarder:  # our own messages come by here too
            self.feed(GossipReceived(signed))
        return True

    def feed(self, item: Input) -> None:
        """Give the node an input. Inputs that effects cause meanwhile are handled after it."""
        self._handle(item)

    def _handle(self, item: Input | None) -> None:
        self._inputs.append(item)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inputs:
                following = self._inputs.popleft()
                if isinstance(following, SessionOpened | SessionClosed):
                    self._forget(following.session)
                if following is None:
                    self._take(self.node.handle_timer(self._now_ns()))
                else:
                    self._take(self.node.receive(following, self._now_ns()))
        finally:
            self._feeding = False
        self._rearm()

    def _forget(self, ended: SessionKey) -> None:
        """A stream is new or gone: what waits for the disk was made for the one before it."""
        self._waiting = deque(
            (watermark, action)
            for watermark, action in self._waiting
            if not (isinstance(action, Send | CloseSession) and action.session == ended)
        )

    def _take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Append):
                self._watermark = self._journal.append_nowait(action.type, action.payload)
            elif isinstance(action, Note):
                self._note(action)
            elif not self._waiting and self._watermark <= self._journal.durable_sequence:
                self._effects.perform(action)
            else:
                if len(self._waiting) >= limits.OUTBOX_ACTIONS_MAX:
                    raise StorageError("storage.io", "the log can't keep up")
                self._waiting.append((self._watermark, action))
                self._work.set()

    def _note(self, note: Note) -> None:
        fields: dict[str, Any] = dict(note.fields)
        if note.event in _DEBUG_EVENTS:
            log.debug(note.event, **fields)
        elif note.event in _WARN_EVENTS:
            log.warning(note.event, **fields)
        else:
            log.info(note.event, **fields)

    def _rearm(self) -> None:
        at_ns = self.node.next_timer()
        if at_ns != self._timer_at_ns:
            self._timer_at_ns = at_ns
            self.look_at_clock()

    def look_at_clock(self) -> None:
        """When the next timer is due may have changed, or the clock been set."""
        self._timer_scope.deadline = self._timer_at_s()

    def _timer_at_s(self) -> float:
        """When timers are due, by trio's clock."""
        if self._timer_at_ns is None:
            return math.inf
        return trio.current_time() + (self._timer_at_ns - self._now_ns()) / NS_PER_S

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Release what became durable and run timers, until cancelled.

        Raises StorageError when the log fails: the daemon must stop.
        """
        self._rearm()  # what the log leaves to be done needs no input first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_timers)
            task_status.started()
            await self._release()

    async def _release(self) -> None:
        while True:
            while self._waiting:
                watermark, action = self._waiting[0]
                if watermark > self._journal.durable_sequence:
                    await self._journal.wait_durable(watermark)
                    continue  # what waits may have changed
                self._waiting.popleft()
                self._effects.perform(action)
            self._work = trio.Event()
            await self._work.wait()

    async def _run_timers(self) -> None:
        """Run what is due; the deadline moves with each input, and wakes nobody before it."""
        while True:
            with trio.CancelScope(deadline=self._timer_at_s()) as self._timer_scope:
                await trio.sleep_forever()
            self._timer_at_ns = None
            self._handle(None)

    async def wait_idle(self) -> None:
        """Until all records so far are durable and nothing waits behind them."""
        while self._waiting or self._watermark > self._journal.durable_sequence:
            await self._journal.wait_durable(self._watermark)
            await trio.lowlevel.checkpoint()
