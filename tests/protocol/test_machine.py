"""The tables of channel, lane and job: every cell, present or absent.

Source: protocol/README.md, the state diagrams; protocol/channel.py, protocol/job.py.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from protocol.channel import CHANNEL_TRANSITIONS, ChannelEvent, ChannelState
from protocol.errors import RemoteError
from protocol.job import JOB_TRANSITIONS, JobEvent, JobState
from protocol.lane import LANE_TRANSITIONS, LaneEvent, LaneState
from protocol.machine import apply, diagram

Table = Mapping[tuple[Any, Any], Any]

# The tables once more, by state: a change is made twice, on purpose, or not at all.
CHANNEL = {
    "new": {"open": "opening"},
    "opening": {
        "accept": "ready",
        "refuse": "closed",
        "lane_open": "opening",
        "voucher": "opening",
        "lane_close": "opening",
        "lost": "detached",
        "challenge": "challenge",
        "fault": "frozen",
    },
    "ready": {
        "lane_open": "ready",
        "chunk": "ready",
        "voucher": "ready",
        "top_up": "ready",
        "lane_close": "ready",
        "lost": "detached",
        "close_request": "closing_coop",
        "challenge": "challenge",
        "fault": "frozen",
    },
    "detached": {
        "lost": "detached",
        "lane_close": "detached",
        "reestablish": "ready",
        "refuse": "closed",
        "close_ack": "closed",
        "challenge": "challenge",
        "fault": "frozen",
    },
    "closing_coop": {
        "close_ack": "closed",
        "close_refuse": "ready",
        "lost": "detached",
        "challenge": "challenge",
        "fault": "frozen",
    },
    "closed": {},
    "challenge": {
        "refuse": "closed",
        "lane_close": "challenge",
        "respond": "challenge",
        "lost": "challenge",
        "close_ack": "closed",
        "deadline": "settled",
    },
    "settled": {},
    "frozen": {
        "lost": "frozen",
        "lane_close": "frozen",
        "challenge": "challenge",
    },
}
LANE = {
    "offered": {"accept": "active", "abort": "aborted"},
    "active": {
        "chunk": "active",
        "voucher": "active",
        "window_full": "paused",
        "result": "done",
        "abort": "aborted",
    },
    "paused": {"voucher": "active", "window_full": "paused", "abort": "aborted"},
    "done": {
        "acknowledge": "audit",
        "abort": "aborted",
    },
    "audit": {"audit_passed": "paid", "dispute": "disputed", "abort": "aborted"},
    "paid": {},
    "disputed": {},
    "aborted": {},
}
JOB = {
    "bidding": {"winner": "connecting", "fail": "failed"},
    "connecting": {
        "connected": "awarded",
        "next_bid": "connecting",
        "auction": "bidding",
        "fail": "failed",
    },
    "awarded": {"chunk": "streaming", "next_bid": "connecting", "fail": "failed"},
    "streaming": {"chunk": "streaming", "result": "done", "fail": "failed"},
    "done": {},
    "failed": {},
}
MACHINES: list[tuple[Table, type[Enum], type[Enum], dict[str, dict[str, str]], str]] = [
    (CHANNEL_TRANSITIONS, ChannelState, ChannelEvent, CHANNEL, "channel.wrong_state"),
    (LANE_TRANSITIONS, LaneState, LaneEvent, LANE, "channel.wrong_state"),
    (JOB_TRANSITIONS, JobState, JobEvent, JOB, "session.protocol"),
]
CELLS = [
    pytest.param(
        table,
        state,
        event,
        cells[state.value].get(event.value),
        code,
        id=f"{states.__name__[:-5].lower()} {state.value} {event.value}",
    )
    for table, states, events, cells, code in MACHINES
    for state in states
    for event in events
]


@pytest.mark.parametrize(("table", "state", "event", "following", "code"), CELLS)
def test_every_cell(
    table: Table, state: Enum, event: Enum, following: str | None, code: str
) -> None:
    """A present cell gives its state; an absent one is an error with the machine's code."""
    if following is not None:
        assert apply(table, state, event, code).value == following
        return
    with pytest.raises(RemoteError) as caught:
        apply(table, state, event, code)
    assert caught.value.code == code
    assert caught.value.detail == f"{event.value} in {state.value}"


@pytest.mark.parametrize(
    ("table", "start", "ends"),
    [
        (CHANNEL_TRANSITIONS, ChannelState.NEW, {"closed", "settled"}),
        (LANE_TRANSITIONS, LaneState.OFFERED, {"paid", "disputed", "aborted"}),
        (JOB_TRANSITIONS, JobState.BIDDING, {"done", "failed"}),
    ],
)
def test_every_state_is_reached_and_every_way_can_end(
    table: Table, start: Enum, ends: set[str]
) -> None:
    """No state is out of reach, none but the ends is a trap, and the ends are ends."""
    reached = [start]
    for state in reached:
        reached += [new for (old, _), new in table.items() if old is state and new not in reached]
    assert set(reached) == set(type(start))
    leaves = {state.value for state in type(start) if not any(old is state for old, _ in table)}
    assert leaves == ends
    can_end = [state for state in type(start) if state.value in ends]
    for state in can_end:
        can_end += [old for (old, _), new in table.items() if new is state and old not in can_end]
    assert set(can_end) == set(type(start))


def test_the_diagram_has_a_line_a_cell() -> None:
    """Mermaid, in table order, states by name and events by value."""
    text = diagram({(JobState.BIDDING, JobEvent.WINNER): JobState.CONNECTING})
    assert text == "stateDiagram-v2\n    BIDDING --> CONNECTING: winner"
    for table, *_ in MACHINES:
        assert diagram(table).count("\n") == len(table)
