"""The world's streams behave as real ones: no half-open stream lives, no old bytes return.

Source: TCP's and QUIC's contract, on which docs of the session protocol rely.
"""

import pytest

from protocol.crypto import Signer
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.network.streams import Latency, Streams
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import engine, make_ask, make_world, message_of, succeeded


@pytest.mark.parametrize("delay_ms", [201, 210, 220, 230, 240, 250, 260, 270, 280])
def test_a_provider_that_restarts_while_it_is_dialled_can_be_dialled_again(delay_ms: int) -> None:
    """A stream whose far end died while it opened is reported closed, never left half open."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1))
    world.run(delay_ms * NS_PER_MS)
    world.crash(provider)
    world.restart(provider)
    world.run(30 * NS_PER_S)
    world.give(requester, make_ask(2))
    world.run(30 * NS_PER_S)
    assert succeeded(requester, 2)


@pytest.mark.parametrize("seed", range(1, 13))
def test_bytes_of_a_broken_stream_never_arrive_on_the_next_one(seed: int) -> None:
    """What is in flight when a stream breaks is lost with it."""
    world = make_world(seed=seed)
    provider, requester = world.peers
    world.give(requester, make_ask(1, tokens=400))
    world.run(700 * NS_PER_MS)
    assert requester.heard(events.Text)
    world.give(requester, act.CancelAsk(1))  # so that nothing is resumed
    world.cut(provider, requester)
    world.give(requester, act.CloseChannels(()))  # dials again at once
    world.run(NS_PER_S)
    assert [event for event, _ in requester.notes].count("input.ignored") == 0
    assert requester.heard(events.ChannelSettled)


class SlowProvider(World):
    """Providers' disks take their time."""

    def _sync_ns(self, peer: Peer) -> int:
        return 60 * NS_PER_MS if peer.engine else NS_PER_MS


def test_what_waits_for_the_disk_does_not_leave_on_the_next_stream() -> None:
    """A frame behind a record belongs to the stream for which it was made: on the next one it
    would come before the channel is re-established, and look like an offence."""
    settings = WorldSettings(latency_ns_min=NS_PER_MS, latency_ns_max=NS_PER_MS)
    world = SlowProvider(settings)
    provider, requester = world.add(engine()), world.add()
    world.give(requester, make_ask(1, tokens=400))

    def waits() -> bool:
        return any(isinstance(action, act.Send) for _, action in provider.outbox)

    while not (requester.heard(events.Text) and waits()):
        world.run(NS_PER_MS)
    said: list[str] = []

    def listen(source: Peer, _target: Peer, data: bytes) -> bytes:
        if source is provider:
            said.append(type(message_of(data)).__name__)
        return data

    world.cut(provider, requester)
    world.frame_filter = listen
    world.give(requester, act.CloseChannels(()))  # dials again at once, before the disk is done
    world.run(10 * NS_PER_S)
    assert "Reestablish" in said
    before = said[: said.index("Reestablish")]
    assert not {"Chunk", "VoucherAck"} & set(before), before
    assert requester.heard(events.ChannelSettled)


@pytest.mark.parametrize("seed", range(1, 13))
def test_a_node_that_restarts_while_it_dials_can_dial_again(seed: int) -> None:
    """Regression: it was told that the stream was up which the process before had asked for."""
    world = make_world(seed=seed)
    provider, requester = world.peers
    world.give(requester, make_ask(1))
    world.run(300 * NS_PER_MS)
    world.cut(provider, requester)
    world.give(requester, act.CloseChannels(()))  # dials
    world.run(NS_PER_MS)
    world.crash(requester)
    world.restart(requester)
    world.run(NS_PER_S)
    assert not requester.node.sessions
    world.give(requester, make_ask(2))
    world.run(30 * NS_PER_S)
    assert succeeded(requester, 2)


@pytest.mark.parametrize(
    ("after_ms", "code"), [(5, "provider.unreachable"), (25, "session.closed")]
)
def test_a_dial_that_breaks_off_is_a_dial_that_failed(after_ms: int, code: str) -> None:
    """Regression: who was cut off while it dialled was told of the end of a stream, which the
    daemon, having none, can't say. Found by holding the simulator against whole daemons."""
    clock = EventHeap(0)
    told: list[act.Input] = []
    draw = Entropy(1, "test")
    peers = [Peer(index, Signer(bytes([index]) * 32), None, draw, "") for index in range(2)]
    by_key = {peer.signer.public_key: peer for peer in peers}
    even = WorldSettings(latency_ns_min=10 * NS_PER_MS, latency_ns_max=10 * NS_PER_MS)
    wire = Latency(even, draw)
    streams = Streams(clock, peers, by_key, lambda peer, item: told.append(item), wire)
    payer, payee = peers
    key = act.SessionKey(payee.signer.public_key, outbound=True)
    streams.open(payer, key)
    clock.run(after_ms * NS_PER_MS)
    streams.cut(payer, payee)
    assert told[-2:][0] == act.SessionClosed(key, code)
