"""Whole markets on virtual time: everyone is served, and a seed says exactly how.

Source: simnet/README.md: one trace for (scenario, seed, commit) under any PYTHONHASHSEED.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from simnet.peer import SimEngine, WorldSettings
from simnet.world import World
from tests.router.support import (
    channels,
    failure,
    key_of,
    make_ask,
    make_world,
    offer,
    same_totals,
    succeeded,
)

PROVIDERS, REQUESTERS, ASKS = 15, 5, 6


def busy_market(seed: int, duplicate_percent: int = 0) -> World:
    """20 nodes; each of 5 requesters asks 6 times, up to three at once; then channels close."""
    world = World(WorldSettings(seed=seed, duplicate_percent=duplicate_percent))
    for number in range(PROVIDERS):
        speed = 20_000 + 7_000 * (number % 5)
        model = offer(
            number + 1,
            output_price=30_000_000 + 2_500_000 * (number % 7),
            tokens_per_s_milli=speed,
            places=3,
        )
        token_ns = 10**12 // speed
        world.add(SimEngine(model, prefill_ns=15 * NS_PER_MS, token_ns=token_ns))
    requesters = [world.add() for _ in range(REQUESTERS)]
    for number in range(1, ASKS + 1):
        for index, requester in enumerate(requesters):
            world.give(requester, make_ask(number, tokens=20 + 5 * number + index))
        world.run(NS_PER_S // 2)
    world.run(60 * NS_PER_S)
    return world


def test_every_ask_of_a_busy_market_is_served() -> None:
    """30 jobs over 20 nodes: each ends with a receipt, each ledger pair agrees, no offence."""
    world = busy_market(1)
    providers, requesters = world.peers[:PROVIDERS], world.peers[PROVIDERS:]
    for requester in requesters:
        assert all(succeeded(requester, number) for number in range(1, ASKS + 1))
    assert not [peer.penalized for peer in world.peers if peer.penalized]
    serving = [peer for peer in providers if peer.node.context.ledger.receipts]
    assert len(serving) > 3
    shared = [
        same_totals(requester, provider)
        for provider in serving
        for requester in requesters
        if key_of(requester) in {channel.peer for channel in channels(provider)}
    ]
    assert shared
    assert all(shared)


def test_money_is_conserved_when_all_channels_close() -> None:
    """What requesters spent is what providers earned, and every deposit is free again."""
    world = busy_market(2)
    for requester in world.peers[PROVIDERS:]:
        world.give(requester, act.CloseChannels(()))
    world.run(10 * NS_PER_S)
    balances = [peer.node.context.ledger.balance() for peer in world.peers]
    assert sum(balance.net_ucr for balance in balances) == 0
    assert sum(balance.spent_ucr for balance in balances) > 30 * 1_000
    assert not any(balance.locked_ucr or balance.unpaid_ucr for balance in balances)
    settled = [event for peer in world.peers for event in peer.heard(events.ChannelSettled)]
    taken = [channel for peer in world.peers[:PROVIDERS] for channel in channels(peer)]
    assert len(settled) == len(taken)
    refunds = [event.settled_ucr + event.refund_ucr for event in settled]
    assert sum(refunds) == sum(channel.deposit_ucr for channel in taken)


def trace_elsewhere(seed: int, hash_seed: str) -> str:
    """The trace of a busy market in a process of its own."""
    program = f"from tests.simnet.test_world import busy_market;print(busy_market({seed}).trace())"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_a_seed_gives_one_trace_under_any_hash_seed() -> None:
    """Nothing depends on the order of a set, the clock or the process."""
    traces = {trace_elsewhere(3, hash_seed) for hash_seed in ("0", "1", "4242")}
    assert traces == {busy_market(3).trace()}


def test_seeds_give_different_worlds() -> None:
    """The seed reaches latencies, links and keys."""
    assert len({busy_market(seed).trace() for seed in (4, 5, 6)}) == 3


def test_duplicates_on_gossip_change_nothing() -> None:
    """Every frame twice: with fixed latencies not one node sees a different input."""
    traces = []
    for duplicate_percent in (0, 100):
        world = make_world(
            6,
            2,
            latency_ns_min=NS_PER_MS,
            latency_ns_max=NS_PER_MS,
            duplicate_percent=duplicate_percent,
        )
        for requester in world.peers[6:]:
            world.give(requester, make_ask())
        world.run(20 * NS_PER_S)
        assert all(succeeded(requester) for requester in world.peers[6:])
        traces.append((world.trace(), world.clock.events))
    (calm, calm_events), (twice, twice_events) = traces
    assert calm == twice
    assert twice_events > calm_events


def test_a_market_with_duplicates_and_jitter_serves_everyone() -> None:
    """Duplicates in any order: nobody bids twice, nobody is blamed."""
    world = busy_market(7, duplicate_percent=50)
    for requester in world.peers[PROVIDERS:]:
        assert all(succeeded(requester, number) for number in range(1, ASKS + 1))
    assert not [peer.penalized for peer in world.peers if peer.penalized]
    for peer in world.peers[:PROVIDERS]:
        bids = [fields["request_id"] for event, fields in peer.notes if event == "bid.sent"]
        assert len(bids) == len(set(bids))


@pytest.mark.parametrize("lost_records", [0, 1, 1_000])
def test_a_crash_never_loses_a_synced_record(lost_records: int) -> None:
    """The world's disk keeps what it called durable, whatever else is lost."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(tokens=200))
    world.run(800 * NS_PER_MS)
    durable = provider.log[: provider.durable]
    assert durable
    world.crash(provider, lost_records)
    assert provider.log[: len(durable)] == durable
    world.restart(provider)
    world.run(60 * NS_PER_S)
    assert failure(requester) == "provider.vanished"
