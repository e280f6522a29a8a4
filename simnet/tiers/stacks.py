"""Gossip of real stacks on loopback, measured: what it costs, what arrives, by how many hops.

All nodes run in this process, so what is measured is CPU time, by task: those that read, those
that write. Each message is a request that a node's core made and signed, and every node admits it
as a daemon does.
"""

import os
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from peer.libp2p_adapter.network import Network, NetworkSettings
from protocol.crypto import Signer
from protocol.errors import RemoteError
from protocol.units import NS_PER_S
from router import actions as act
from router.anchoring import AnchorSettings
from router.ledger import Ledger
from router.node import Node
from simnet.market.workload import Arrival, Asking
from simnet.network.topology import Neighbours
from simnet.scenario import Scenario
from simnet.simulation import NETWORK
from simnet.tiers.shell_run import quiet_daemons

SETTLE_S: Final = 3.0  # for subscriptions and meshes, before the first message
REPAIR_S: Final = 4.0  # for the last repairs by IHAVE and IWANT
EDGE_S: Final = 0.0015  # between messages, for each connection: one is in flight at a time
INTERVAL_S: Final = 0.02  # but at least
SENDER_PER_S: Final = 8  # under what admission allows a sender
WARM_UP: Final = 10  # messages that are not counted
# Tasks of libp2p by what they do; the rest (heartbeats, pings) is no message's.
WRITERS: Final = ("handle_sending_messages",)
READERS: Final = ("_handle_incoming", "_contain_streams")


def interval_s(neighbours: Neighbours) -> float:
    """How long to wait for a message, before the next."""
    edges = sum(map(len, neighbours)) // 2
    return max(INTERVAL_S, EDGE_S * edges, 1 / (SENDER_PER_S * len(neighbours)))


@dataclass(slots=True)
class Measured:
    """One run's counts; latencies by the clock, other times of CPU, the loop's share included."""

    nodes: int
    expected: int = 0  # deliveries, if all messages came to all others
    firsts: int = 0
    duplicates: int = 0
    hops: int = 0  # sum over first deliveries
    read_ns: int = 0
    write_ns: int = 0
    dial_ns: int = 0  # a connection, both ends
    latencies_ns: list[int] = field(default_factory=list)

    @property
    def copies(self) -> int:
        """Messages that were sent and received."""
        return self.firsts + self.duplicates

    @property
    def ratio(self) -> float:
        """Deliveries, of those that should be."""
        return self.firsts / max(1, self.expected)

    def latency_ns(self) -> int:
        """The median."""
        return round(statistics.median(self.latencies_ns)) if self.latencies_ns else 0


class CpuByTask(trio.abc.Instrument):
    """CPU time by name of task, while it is on."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self._from_ns = time.thread_time_ns()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._from_ns = time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task waits again."""
        spent_ns = time.thread_time_ns() - self._from_ns
        self.ns[task.name] = self.ns.get(task.name, 0) + spent_ns

    def of(self, parts: tuple[str, ...]) -> int:
        """What tasks took whose names hold one of these."""
        found = (ns for name, ns in self.ns.items() if any(part in name for part in parts))
        return sum(found)


class Stack:
    """A core with libp2p beneath it, which admits, passes on and asks; no daemon around it."""

    def __init__(self, stacks: "Stacks", index: int) -> None:
        self._stacks, self.index = stacks, index
        signer = Signer(os.urandom(32))
        ledger = Ledger(NETWORK, signer.public_key)
        self.node = Node(
            signer, NETWORK, ledger, entropy=os.urandom, anchor=AnchorSettings(10_000_000)
        )
        self.network = Network(
            NetworkSettings(NETWORK, peers_wanted=1),
            signer,
            validate=self._validate,
            on_session=lambda session: None,
            on_bid=lambda peer, data: None,
            on_peer=lambda peer, connected: None,
            now_ns=time.time_ns,
            rng=random.Random(index),
        )

    def _validate(self, data: bytes, forwarder: bytes) -> bool:
        now_ns = time.time_ns()
        try:
            signed = self.node.admit(data, now_ns)
        except RemoteError:
            return False
        if forwarder:
            self.node.receive(act.GossipReceived(signed), now_ns)
            self._stacks.heard(self, signed.digest, forwarder)
        else:
            self._stacks.said(self, signed.digest)
        return True

    def ask(self, ask: act.Ask) -> bytes:
        """The signed request that the core makes of it."""
        actions = self.node.receive(ask, time.time_ns())
        return next(action.data for action in actions if isinstance(action, act.Publish))


class Stacks:
    """Nodes that are connected as a graph says."""

    def __init__(self, neighbours: Neighbours, scenario: Scenario) -> None:
        self._neighbours, self._scenario = neighbours, scenario
        self.result = Measured(len(neighbours))
        self.counting = False
        self._stacks = [Stack(self, index) for index in range(len(neighbours))]
        self._by_key = {stack.network.public_key: stack.index for stack in self._stacks}
        self._born_ns: dict[bytes, int] = {}
        self._hops: dict[tuple[bytes, int], int] = {}

    def said(self, stack: Stack, digest: bytes) -> None:
        """A node's own message leaves."""
        self._born_ns[digest] = time.perf_counter_ns()
        self._hops[digest, stack.index] = 0

    def heard(self, stack: Stack, digest: bytes, forwarder: bytes) -> None:
        """A message came to a node for the first time."""
        hops = self._hops[digest, self._by_key[forwarder]] + 1
        self._hops[digest, stack.index] = hops
        if self.counting:
            self.result.firsts += 1
            self.result.hops += hops
            self.result.latencies_ns.append(time.perf_counter_ns() - self._born_ns[digest])

    async def run(self, messages: int) -> Measured:
        """Connect, publish so many messages from all nodes in turn, and count."""
        async with trio.open_nursery() as nursery:
            for stack in self._stacks:
                await nursery.start(stack.network.run)
            await self._connect()
            await trio.sleep(SETTLE_S)
            asking = Asking(self._scenario, self._scenario.requesters[0], 1, Path())
            every_s = interval_s(self._neighbours)
            for number in range(WARM_UP):
                await self._publish(asking, number + 1, every_s)
            await self._counted(asking, messages, every_s)
            nursery.cancel_scope.cancel()
        return self.result

    async def _connect(self) -> None:
        began_s, edges = time.process_time(), 0
        for stack, others in zip(self._stacks, self._neighbours, strict=True):
            for other in (self._stacks[index] for index in others if index < stack.index):
                await stack.network.dial(other.network.public_key, other.network.addresses)
                edges += 1
        spent_s = time.process_time() - began_s
        self.result.dial_ns = round(spent_s * NS_PER_S / max(1, edges))

    async def _counted(self, asking: Asking, messages: int, every_s: float) -> None:
        result, networks = self.result, [stack.network for stack in self._stacks]
        before = sum(network.duplicates for network in networks)
        by_task = CpuByTask()
        trio.lowlevel.add_instrument(by_task)
        self.counting = True
        began_s = time.process_time()
        for number in range(messages):
            await self._publish(asking, WARM_UP + number + 1, every_s)
        await trio.sleep(REPAIR_S)
        spent_ns = (time.process_time() - began_s) * NS_PER_S
        self.counting = False
        trio.lowlevel.remove_instrument(by_task)
        result.expected = messages * (result.nodes - 1)
        result.duplicates = sum(network.duplicates for network in networks) - before
        # The loop's own time is shared out as the tasks' is.
        share = spent_ns / max(1, sum(by_task.ns.values()))
        result.read_ns = round(by_task.of(READERS) * share)
        result.write_ns = round(by_task.of(WRITERS) * share)

    async def _publish(self, asking: Asking, number: int, every_s: float) -> None:
        stack = self._stacks[number % len(self._stacks)]
        ask, _ = asking.make(number, Arrival(0))
        await stack.network.publish(stack.ask(ask))
        await trio.sleep(every_s)


def measure(neighbours: Neighbours, scenario: Scenario, messages: int) -> Measured:
    """What so many messages do among nodes that are linked so."""
    with quiet_daemons():
        return trio.run(Stacks(neighbours, scenario).run, messages)
