"""The event queue is one heap over (time, order of scheduling), whatever its slots.

Source: simnet/clock.py.
"""

import heapq
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simnet.clock import SLOT_BITS, EventHeap

START_NS = 1_700_000_000 * 10**9
DELAYS = st.integers(0, 5 << SLOT_BITS) | st.sampled_from([0, 1, 1 << SLOT_BITS])


@given(st.lists(st.tuples(DELAYS, st.lists(DELAYS, max_size=3)), max_size=30))
def test_events_run_in_the_order_of_one_heap(plan: list[tuple[int, list[int]]]) -> None:
    """Each event of the plan schedules others when it runs, into its own slot and later ones."""
    clock, ran = EventHeap(START_NS), []
    model: list[tuple[int, int]] = []
    serial = 0

    def schedule(at_ns: int, then: list[int]) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(model, (at_ns, serial))
        clock.at(at_ns, run, serial, then)

    def run(number: int, then: list[int]) -> None:
        ran.append((clock.now_ns, number))
        assert ran[-1] == heapq.heappop(model)
        for delay_ns in then:
            schedule(clock.now_ns + delay_ns, [])

    for delay_ns, then in plan:
        schedule(START_NS + delay_ns, then)
    clock.run(START_NS + (40 << SLOT_BITS))
    assert not model
    assert len(clock) == 0
    assert clock.events == len(ran) == serial


@given(st.lists(DELAYS, max_size=20), st.lists(st.integers(0, 6 << SLOT_BITS), max_size=5))
def test_running_in_pieces_changes_nothing(delays: list[int], pauses: list[int]) -> None:
    """Stopping at any time, or after any number of events, and going on: the same events."""
    ends = [*sorted(pauses), 6 << SLOT_BITS]
    whole, parts = [], []
    for ran, budget in ((whole, 1_000), (parts, 2)):
        clock = EventHeap(START_NS)
        for number, delay_ns in enumerate(delays):
            clock.at(START_NS + delay_ns, ran.append, number)
        for end_ns in ends if ran is parts else ends[-1:]:
            while not clock.run_some(START_NS + end_ns, budget):
                pass
            assert clock.now_ns == START_NS + end_ns
    assert whole == parts


def test_what_is_past_happens_now() -> None:
    """Time never goes back."""
    clock, times = EventHeap(START_NS), []
    clock.run(START_NS + 10**9)
    clock.at(START_NS, lambda: times.append(clock.now_ns))
    clock.run(START_NS + 2 * 10**9)
    assert times == [START_NS + 10**9]


def test_a_loop_is_noticed() -> None:
    """An event that schedules itself for now would never end."""
    clock = EventHeap(START_NS)

    def again() -> None:
        clock.after(0, again)

    again()
    with pytest.raises(RuntimeError, match="a loop"):
        clock.run(START_NS + 1, events_max=1_000)


@given(st.lists(DELAYS, max_size=12), DELAYS)
def test_many_at_once_are_as_one_by_one(delays: list[int], before_ns: int) -> None:
    """`at_each` is `at` in a loop, also for times that are past."""
    ran: list[list[tuple[int, int, str]]] = []
    for together in (True, False):
        clock, told = EventHeap(START_NS), []

        def tell(number: int, what: str, clock: EventHeap = clock, told: Any = told) -> None:
            told.append((clock.now_ns, number, what))

        clock.run(START_NS + before_ns)
        times = [START_NS + delay_ns for delay_ns in delays]
        if together:
            clock.at_each(times, tell, range(len(times)), "x")
        else:
            for number, at_ns in enumerate(times):
                clock.at(at_ns, tell, number, "x")
        clock.run(START_NS + (20 << SLOT_BITS))
        ran.append(told)
    assert ran[0] == ran[1]
    assert len(ran[0]) == len(delays)
