"""Whose job is next when every place is taken: fair between owners, by weight, without hunger.

Each owner has, in each class, an account of the machine's time that its jobs were given,
divided by the weight of the class; the account with the least goes next. Pure: no clock, no
tasks. Rule: engine/README.md, "Queue".
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from protocol import limits

T = TypeVar("T")


class Priority(IntEnum):
    """The class of a job: the operator's to say, never the requester's."""

    INTERACTIVE = 0
    NORMAL = 1
    BATCH = 2


# Shares of the machine where all classes wait: 16 : 4 : 1.
WEIGHTS = {Priority.INTERACTIVE: 16, Priority.NORMAL: 4, Priority.BATCH: 1}
_UNIT = 16  # a multiple of every weight, so that shares stay integers


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A job in the queue: what it is expected to take of the machine, and when it came.

    `overtaken` counts later arrivals that went before it while it was its owner's first.
    """

    job: T
    owner: bytes
    priority: Priority
    cost_ns: int
    arrival: int
    overtaken: int = 0


@dataclass(slots=True)
class _Account(Generic[T]):
    """What an owner was given in a class, weighted, and what it still wants."""

    given: int
    waiting: deque[Ticket[T]] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Jobs that wait, at most `bound` if `has_room` is asked first.

    Bounds: an owner is taken one more only while it has fewer waiting than there is room, so that
    nobody fills the queue alone; and the first job of an owner is overtaken by at most
    ENGINE_OVERTAKES_MAX later arrivals, whatever their classes and owners.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._accounts: dict[tuple[Priority, bytes], _Account[T]] = {}
        self._waiting = 0
        self._arrivals = 0
        # What the last one served had been given before: who was idle starts from here.
        self._level = 0

    def __len__(self) -> int:
        return self._waiting

    def room(self, free: int = 0) -> int:
        """How many more jobs may wait, if they are of different owners.

        The first `free` of those that are here do not count: there are places for them.
        """
        return max(0, self._bound + free - self._waiting)

    def has_room(self, owner: bytes, free: int = 0) -> bool:
        """Whether one more job of this owner may wait."""
        accounts = (self._accounts.get((priority, owner)) for priority in Priority)
        own = sum(len(account.waiting) for account in accounts if account)
        return max(0, own - free) < self.room(free)

    def push(self, job: T, owner: bytes, priority: Priority, cost_ns: int) -> Ticket[T]:
        """Add a job, whether or not there is room: one that need not wait takes none."""
        key = priority, owner
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(self._level)
        ticket = Ticket(job, owner, priority, max(1, cost_ns), self._arrivals)
        self._arrivals += 1
        account.waiting.append(ticket)
        self._waiting += 1
        return ticket

    def remove(self, ticket: Ticket[T]) -> bool:
        """Take a job out that is not wanted any more; whether it was there."""
        account = self._accounts.get((ticket.priority, ticket.owner))
        if account is None or ticket not in account.waiting:
            return False
        account.waiting.remove(ticket)
        self._waiting -= 1
        self._forget()
        return True

    def pop(self) -> Ticket[T]:
        """Take the next job out, and charge its owner; there must be one."""
        heads = [account.waiting[0] for account in self._accounts.values() if account.waiting]
        chosen = min(heads, key=self._order)
        for head in heads:
            head.overtaken += head.arrival < chosen.arrival
        account = self._accounts[chosen.priority, chosen.owner]
        account.waiting.popleft()
        self._waiting -= 1
        self._level = max(self._level, account.given)
        account.given += _weighted(chosen.priority, chosen.cost_ns)
        self._forget()
        return chosen

    def _order(self, head: Ticket[T]) -> tuple[bool, int, int]:
        """The least goes next: those overtaken too often by age, the others by account."""
        waits_long = head.overtaken >= limits.ENGINE_OVERTAKES_MAX
        given = 0 if waits_long else self._accounts[head.priority, head.owner].given
        return not waits_long, given, head.arrival

    def settle(self, ticket: Ticket[T], cost_ns: int) -> None:
        """A job that was popped is over: charge what it took instead of what was expected."""
        account = self._accounts.get((ticket.priority, ticket.owner))
        if account is not None:
            account.given += _weighted(ticket.priority, cost_ns)
            account.given -= _weighted(ticket.priority, ticket.cost_ns)
            self._forget()

    def tickets(self) -> list[Ticket[T]]:
        """Those that wait, in no order that means anything."""
        return [ticket for account in self._accounts.values() for ticket in account.waiting]

    def ahead(self, owner: bytes, priority: Priority) -> list[Ticket[T]]:
        """Those that would go before a job of this owner that came now."""
        copy = self._copy()
        copy.push(None, owner, priority, 1)
        return list(iter(lambda: copy.pop().job, None))

    def _copy(self) -> "FairQueue[Ticket[T] | None]":
        """A queue of this one's tickets, to play with."""
        copy: FairQueue[Ticket[T] | None] = FairQueue(self._bound)
        copy._level, copy._waiting, copy._arrivals = self._level, self._waiting, self._arrivals
        for key, account in self._accounts.items():
            twin: _Account[Ticket[T] | None] = _Account(account.given)
            for one in account.waiting:
                twin.waiting.append(
                    Ticket(one, one.owner, one.priority, one.cost_ns, one.arrival, one.overtaken)
                )
            copy._accounts[key] = twin
        return copy

    def _forget(self) -> None:
        """Drop the accounts of idle owners that were given no more than a new one begins with:
        time in which one wants nothing is not saved up. And the least of too many others."""
        idle = [key for key, account in self._accounts.items() if not account.waiting]
        for key in idle:
            if self._accounts[key].given <= self._level:
                del self._accounts[key]
        while len(self._accounts) - self._waiting > limits.ENGINE_OWNERS_MAX:
            left = (key for key, account in self._accounts.items() if not account.waiting)
            del self._accounts[min(left, key=lambda key: self._accounts[key].given)]


def _weighted(priority: Priority, cost_ns: int) -> int:
    return cost_ns * _UNIT // WEIGHTS[priority]
