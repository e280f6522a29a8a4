"""The fair queue: nobody starves, nobody is lost, nobody fills it alone; shares follow weights."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.queue import WEIGHTS, FairQueue, Priority, Ticket
from protocol import limits

OWNERS = [bytes([number]) * 32 for number in range(4)]
NORMAL = Priority.NORMAL


def order(queue: FairQueue[int]) -> list[Ticket[int] | None]:
    """How those that wait go, if nobody else comes."""
    copy = queue._copy()
    return [copy.pop().job for _ in range(len(copy))]


def popped(queue: FairQueue[str], count: int) -> str:
    return "".join(queue.pop().job for _ in range(count))


def test_one_with_many_jobs_does_not_hold_up_one_with_one() -> None:
    queue: FairQueue[str] = FairQueue(256)
    for _ in range(50):
        queue.push("a", OWNERS[0], NORMAL, 10)
    assert popped(queue, 1) == "a"
    queue.push("b", OWNERS[1], NORMAL, 10)
    assert popped(queue, 2) == "ba"


def test_equals_take_turns_by_what_their_jobs_take() -> None:
    """One job of 30 for three of 10."""
    queue: FairQueue[str] = FairQueue(256)
    for _ in range(12):
        queue.push("a", OWNERS[0], NORMAL, 10)
    for _ in range(4):
        queue.push("b", OWNERS[1], NORMAL, 30)
    served = Counter(popped(queue, 8))
    assert served == {"a": 6, "b": 2}


def test_what_a_job_did_not_take_is_given_back() -> None:
    """Both are charged for 100; a's jobs stop after 10."""
    queue: FairQueue[str] = FairQueue(256)
    for _ in range(20):
        queue.push("a", OWNERS[0], NORMAL, 100)
        queue.push("b", OWNERS[1], NORMAL, 100)
    served: Counter[str] = Counter()
    for _ in range(11):
        ticket = queue.pop()
        served[ticket.job] += 1
        queue.settle(ticket, 10 if ticket.job == "a" else 100)
    assert served["a"] >= 9


def test_classes_share_by_their_weights() -> None:
    queue: FairQueue[str] = FairQueue(256)
    for priority in Priority:
        for _ in range(60):
            queue.push(priority.name[0], OWNERS[priority], priority, 10)
    assert Counter(popped(queue, 42)) == {"I": 32, "N": 8, "B": 2}


def test_idle_time_is_not_saved_up() -> None:
    """Who comes after the others were served for long, gets a share and not the whole."""
    queue: FairQueue[str] = FairQueue(256)
    queue.push("b", OWNERS[1], NORMAL, 10)
    for _ in range(60):
        queue.push("a", OWNERS[0], NORMAL, 10)
    popped(queue, 50)
    for _ in range(9):
        queue.push("b", OWNERS[1], NORMAL, 10)
    assert abs(popped(queue, 10).count("a") - 5) <= 1


def test_a_large_batch_job_goes_after_a_bounded_number_of_others() -> None:
    """By weights alone it would wait for a thousand small ones of the class above."""
    queue: FairQueue[str] = FairQueue(8)
    queue.push("-", OWNERS[1], Priority.BATCH, 10_000)
    assert popped(queue, 1) == "-"
    queue.push("B", OWNERS[1], Priority.BATCH, 10_000)
    served = ""
    while not served.endswith("B"):
        queue.push("i", OWNERS[0], Priority.INTERACTIVE, 10)
        served += popped(queue, 1)
    assert len(served) == limits.ENGINE_OVERTAKES_MAX + 1


def test_those_that_need_not_wait_take_no_room() -> None:
    """While a model is loaded, jobs for its two places are here without waiting for others."""
    queue: FairQueue[str] = FairQueue(1)
    for number in range(3):
        assert queue.room(free=2) == 3 - number
        assert queue.has_room(OWNERS[0], free=2)
        queue.push("a", OWNERS[0], NORMAL, 1)
    assert not queue.has_room(OWNERS[0], free=2)
    assert not queue.has_room(OWNERS[1], free=2)
    assert queue.room() == 0


@pytest.mark.parametrize("bound", [0, 1, 2, 16, 255])
def test_an_owner_alone_fills_half(bound: int) -> None:
    queue: FairQueue[str] = FairQueue(bound)
    while queue.has_room(OWNERS[0]):
        queue.push("a", OWNERS[0], NORMAL, 1)
    assert len(queue) == -(-bound // 2)
    assert queue.has_room(OWNERS[1]) == (bound > 1)


def test_owners_that_come_once_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue(4)
    for number in range(3 * limits.ENGINE_OWNERS_MAX):
        queue.push(number, number.to_bytes(32, "big"), NORMAL, 1 + number)
        queue.pop()
    assert len(queue._accounts) <= limits.ENGINE_OWNERS_MAX


COSTS = st.integers(1, 1_000)


class Queue(RuleBasedStateMachine):
    """Any arrivals, departures and corrections: counts, bounds and the announced order hold."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(12)
        self.waiting: dict[int, Ticket[int]] = {}
        self.running: list[Ticket[int]] = []
        self.overtaken: Counter[int] = Counter()
        self.arrived = 0

    @rule(owner=st.sampled_from(OWNERS), priority=st.sampled_from(Priority), cost=COSTS)
    def arrive(self, owner: bytes, priority: Priority, cost: int) -> None:
        if self.queue.has_room(owner):
            ahead = self.queue.ahead(owner, priority)
            ticket = self.queue.push(self.arrived, owner, priority, cost)
            going = order(self.queue)
            assert going[: going.index(ticket)] == ahead
            self.waiting[self.arrived] = ticket
            self.arrived += 1

    @precondition(lambda self: self.waiting)
    @rule()
    def go(self) -> None:
        first = order(self.queue)[0]
        ticket = self.queue.pop()
        assert ticket is first
        assert self.waiting.pop(ticket.job) is ticket
        self.running.append(ticket)
        heads: dict[tuple[bytes, Priority], int] = {}
        for number in sorted(self.waiting):
            other = self.waiting[number]
            heads.setdefault((other.owner, other.priority), number)
        for number in heads.values():
            self.overtaken[number] += number < ticket.job
            assert self.overtaken[number] <= limits.ENGINE_OVERTAKES_MAX

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.queue.remove(self.waiting[number])
        assert not self.queue.remove(self.waiting.pop(number))

    @precondition(lambda self: self.running)
    @rule(cost=COSTS)
    def end(self, cost: int) -> None:
        ticket = self.running.pop()
        self.queue.settle(ticket, cost)
        assert not self.queue.remove(ticket)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting) == 12 - self.queue.room()
        assert set(self.queue.tickets()) == set(self.waiting.values())
        assert set(order(self.queue)) == set(self.waiting.values())


TestQueue = Queue.TestCase


@given(st.lists(st.tuples(COSTS, COSTS), min_size=8, max_size=40))
def test_two_that_always_want_are_served_alike(pairs: list[tuple[int, int]]) -> None:
    """What they were given differs by one largest job at most, at any time."""
    queue: FairQueue[int] = FairQueue(256)
    for pair in pairs:
        for owner, cost in zip(OWNERS, pair, strict=False):
            queue.push(owner[0], owner, NORMAL, cost)
    largest = max(map(max, pairs))
    given = [0, 0]
    left = [len(pairs)] * 2
    while all(left):
        ticket = queue.pop()
        given[ticket.job] += ticket.cost_ns
        left[ticket.job] -= 1
        assert abs(given[0] - given[1]) <= largest


def test_every_class_has_a_weight_that_shares_evenly() -> None:
    assert all(16 % WEIGHTS[priority] == 0 for priority in Priority)
