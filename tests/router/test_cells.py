"""Each cell of the channel's and the lane's table is taken by code, in the test named for it.

Source: protocol/channel.py, protocol/lane.py. What an event does is shown by those tests; absent
cells are in tests/protocol/test_machine.py. No cell may be left that nothing reaches.
"""

from collections.abc import Callable
from functools import partial

import pytest

from protocol.channel import CHANNEL_TRANSITIONS, Channel, ChannelEvent, ChannelState
from protocol.lane import LANE_TRANSITIONS, Lane, LaneEvent
from protocol.messages import Accept
from protocol.records import ChannelFrozen
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from tests.router import (
    test_breaks,
    test_challenges,
    test_channels,
    test_denials,
    test_holdback,
    test_lifetimes,
    test_reconnects,
    test_resuming,
    test_top_ups,
)
from tests.router import test_dishonest_provider as bad_provider
from tests.router.support import channels, codes_against, complete, make_ask, make_world, tamper

Scenario = Callable[[], object]


def accept_is_forged() -> None:
    """A payee that can't even sign its acceptance: the new channel is frozen."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, provider, Accept, lambda m: Accept(m.cid, m.lane, bytes(64)))
    world.give(requester, make_ask())
    world.run(NS_PER_S)
    assert codes_against(requester, provider) == ["channel.bad_signature"]
    assert channels(requester)[0].state is ChannelState.FROZEN


def closed_alone_while_it_opens() -> None:
    """A payee that never answers the opening does not lock the deposit."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    while not channels(requester):
        world.run(NS_PER_MS)
    (channel,) = channels(requester)
    assert channel.state is ChannelState.OPENING
    world.give(requester, act.ForceClose((channel.cid,)))
    world.run(25 * 3_600 * NS_PER_S)
    assert channel.settled_ucr == channel.total_ucr == channels(provider)[0].settled_ucr


def frozen_under_a_running_lane() -> None:
    """What comes on a frozen channel is not taken, and the lane ends."""
    world = make_world()
    _, requester = world.peers
    complete(world, requester, 1)
    world.give(requester, make_ask(2, 100))
    world.run(500 * NS_PER_MS)
    (channel,) = channels(requester)
    frozen = ChannelFrozen(channel.cid, "head.equivocation", world.clock.now_ns)
    requester.node.context.append(frozen)
    due = channel.due_ucr
    world.run(NS_PER_S)
    assert not channel.lanes
    assert channel.due_ucr == due


SCENARIOS: dict[str, Scenario] = {
    "refused": test_channels.test_a_refusal_that_comes_after_a_cancel_ends_the_lane,
    "never taken": test_reconnects.test_a_channel_that_the_payee_never_took_is_settled_at_nothing,
    "paused": test_denials.test_who_denied_still_buys_for_payment_in_advance,
    "bad chunk": bad_provider.test_a_chunk_of_no_lane_is_dropped_and_the_hole_is_noticed,
    "vanished": test_breaks.test_a_provider_that_vanishes_mid_stream,
    "topped up": test_top_ups.test_a_person_tops_up,
    "not counter-signed": test_resuming.test_a_receipt_that_is_never_countersigned,
    "audited": partial(
        test_holdback.test_what_is_held_back_is_paid_when_the_audit_passes, "auditor"
    ),
    "disputed": test_holdback.test_a_dispute_outlasts_a_break,
    "closed alone under audit": test_holdback.test_closing_alone_ends_an_audit,
    "close lost": test_reconnects.test_a_close_that_never_arrived_leaves_the_channel_usable,
    "both ways": test_challenges.test_a_close_alone_crosses_a_close_by_agreement,
    "answered": partial(test_challenges.test_a_voucher_that_was_lost_is_shown_in_time, 0),
    "forged notice": test_challenges.test_a_notice_that_is_forged,
    "frozen, closed alone": test_challenges.test_a_frozen_channel_can_be_closed_alone,
    "never paid, away": test_lifetimes.test_a_channel_without_a_voucher_ends_at_nothing,
    "never paid, here": partial(
        test_lifetimes.test_the_channel_of_a_payer_that_never_pays_ends_at_nothing,
        frozen=False,
    ),
    "never paid, frozen": partial(
        test_lifetimes.test_the_channel_of_a_payer_that_never_pays_ends_at_nothing,
        frozen=True,
    ),
    "other total": partial(
        test_challenges.test_an_agreement_to_another_total_freezes_the_channel, 1
    ),
    "forged accept": accept_is_forged,
    "closed while opening": closed_alone_while_it_opens,
    "closed alone, never taken": partial(
        test_challenges.test_closed_alone_a_channel_that_the_payee_never_took_costs_nothing, 0
    ),
    "frozen while running": frozen_under_a_running_lane,
}
Cell = tuple[object, object]


@pytest.fixture(scope="module")
def taken() -> dict[str, set[Cell]]:
    """The cells that each scenario takes, recorded where states change."""
    patch = pytest.MonkeyPatch()
    cells: set[Cell] = set()
    of_channel, of_lane = Channel.step, Lane.step

    def channel_step(self: Channel, event: ChannelEvent) -> None:
        before = self.state
        of_channel(self, event)
        cells.add((before, event))

    def lane_step(self: Lane, *steps: LaneEvent) -> None:
        for event in steps:
            before = self.state
            of_lane(self, event)
            cells.add((before, event))

    found = {}
    with patch.context() as patched:
        patched.setattr(Channel, "step", channel_step)
        patched.setattr(Lane, "step", lane_step)
        for name, scenario in SCENARIOS.items():
            cells.clear()
            scenario()
            found[name] = set(cells)
    return found


@pytest.mark.parametrize(
    "cell",
    [*CHANNEL_TRANSITIONS, *LANE_TRANSITIONS],
    ids=lambda cell: " ".join(part.value for part in cell),
)
def test_no_cell_is_out_of_reach(cell: Cell, taken: dict[str, set[Cell]]) -> None:
    """Some scenario takes it, by the code that a node runs."""
    assert [name for name, cells in taken.items() if cell in cells]


def test_states_change_in_the_tables_alone() -> None:
    """Nobody sets a state but `step`: seen in the source of the cores."""
    from tests.test_house import CORES, read

    for path in CORES:
        lines = read(path).splitlines()
        setting = [line for line in lines if ".state = " in line and "job" not in path]
        allowed = {
            "protocol/channel.py": 1,
            "protocol/lane.py": 1,
            "router/job.py": 1,
            "router/breaker.py": 1,
        }
        assert len(setting) <= allowed.get(path, 0), (path, setting)
