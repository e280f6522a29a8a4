"""Timers against the simplest model: a dict of deadlines.

Source: router/README.md, the driver's contract.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import RemoteError
from router.timers import TimerKey, Timers

KEYS = st.builds(
    TimerKey, st.sampled_from(["window", "stall"]), st.integers(0, 3).map(lambda n: bytes([n]))
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("cancel"), KEYS, st.just(0)),
        st.tuples(st.just("run"), KEYS, st.integers(0, 50)),
    ),
    max_size=200,
)


@given(STEPS)
def test_timers_behave_as_a_dict_of_deadlines(steps: list[tuple[str, TimerKey, int]]) -> None:
    """At most one deadline a key; due ones pop in order of time, then of setting."""
    timers = Timers()
    model: dict[TimerKey, tuple[int, int]] = {}
    for serial, (what, key, at_ns) in enumerate(steps):
        if what == "set":
            timers.set(key, at_ns)
            model[key] = (at_ns, serial)
        elif what == "cancel":
            timers.cancel(key)
            model.pop(key, None)
        else:
            expected = sorted((due, key) for key, due in model.items() if due[0] <= at_ns)
            for _, due_key in expected:
                assert timers.pop_due(at_ns) == due_key
                del model[due_key]
            assert timers.pop_due(at_ns) is None
        earliest = min((due[0] for due in model.values()), default=None)
        assert timers.next_at_ns() == earliest


def test_setting_one_timer_again_and_again_takes_no_memory() -> None:
    """Every chunk moves its stall timer: old entries must not pile up."""
    timers = Timers()
    for at_ns in range(10_000):
        timers.set(TimerKey("stall", b"job"), at_ns)
    assert len(timers._heap) < 100
    assert timers.pop_due(10_000) == TimerKey("stall", b"job")
    assert timers.pop_due(10_000) is None


def test_timers_are_bounded() -> None:
    """TIMERS_MAX keys; one that is set already can still be moved."""
    timers = Timers()
    for number in range(limits.TIMERS_MAX):
        timers.set(TimerKey("stall", number.to_bytes(4, "big")), number)
    timers.set(TimerKey("stall", (0).to_bytes(4, "big")), 5)
    with pytest.raises(RemoteError) as caught:
        timers.set(TimerKey("stall", b"one more"), 1)
    assert (caught.value.code, caught.value.penalize) == ("admission.full", False)
