"""The live tier: a scenario's market on real stacks, py-libp2p over loopback, by the wall clock.

Who asks when, what a machine makes and what a seller charges is the scenario's; links, gossip,
processors and disks are those of this machine, and all nodes share them.
"""

import os
import random
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from peer.libp2p_adapter.network import Network, NetworkSettings
from peer.surroundings import AnyNetwork, Surroundings
from protocol.errors import ConfigError
from router import actions as act
from simnet.network.gossip import Message
from simnet.peer import Peer
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.simulation import EPOCH_NS, NETWORK, Simulation
from simnet.tiers.decisions import fingerprint
from simnet.tiers.life import Life
from simnet.tiers.shell import ShellDaemon, ShellSimulation
from simnet.tiers.shell_run import quiet_daemons, run_shell

LIVE_NODES_MAX: Final = 50
JOIN_S: Final = 20.0


def check_fits(scenario: Scenario) -> None:
    """ConfigError `config.tier` for what this tier can't run."""
    if scenario.nodes > LIVE_NODES_MAX:
        raise ConfigError(
            "config.tier",
            f"{scenario.name} has {scenario.nodes} nodes; --tier live takes {LIVE_NODES_MAX} at "
            "most, in this process: take fewer, or the tier des",
        )
    for what, there in (("adversaries", scenario.adversaries), ("faults", scenario.faults)):
        if there:
            raise ConfigError(
                "config.tier",
                f"{scenario.name} has {what}; --tier live runs honest daemons on a network that "
                "works: take them out, or the tier des",
            )


class LiveSimulation(ShellSimulation):
    """Daemons with libp2p's network and real disks. The models of links and gossip stand idle."""

    def __init__(self, scenario: Scenario, seed: int, *rest: Any, directory: Path) -> None:
        self._directory = directory
        self.libp2p: dict[int, Network] = {}
        self._messages: dict[bytes, Message] = {}
        idle = msgspec.structs.replace(scenario.gossip, router="flood")
        super().__init__(msgspec.structs.replace(scenario, gossip=idle), seed, *rest)

    def directory(self, peer: Peer) -> Path:
        """Where a node's log is."""
        return self._directory / f"node-{peer.index}"

    def surroundings(self, life: Life) -> Surroundings:
        """This machine's, but for a clock that starts with the run."""
        return Surroundings(now_ns=lambda: self.clock.now_ns)

    def network_settings(self, peer: Peer) -> NetworkSettings:
        """Any port of loopback; it joins by those neighbours that are up."""
        neighbours = self.gossip.neighbours[peer.index]
        up = [self.libp2p[other].addresses[0] for other in neighbours if other in self.libp2p]
        anybody = [self.libp2p[0].addresses[0]] if self.libp2p else []
        return NetworkSettings(NETWORK, bootstrap=tuple(up or anybody))

    def make_network(self, peer: Peer, daemon: ShellDaemon) -> AnyNetwork:
        """libp2p's, with an ear at its validator."""

        def validate(data: bytes, forwarder: bytes) -> bool:
            good = daemon.driver.gossip(data, forwarder)
            if good:
                self._heard(peer, data, forwarder)
            return good

        network = self.libp2p[peer.index] = Network(
            daemon.settings.network,
            peer.signer,
            validate=validate,
            on_session=daemon.take_session,
            on_bid=lambda key, data: daemon.driver.feed(act.BidReceived(key, data)),
            on_peer=lambda key, connected: None,
            now_ns=daemon.now_ns,
            rng=random.Random(os.urandom(16)),
        )
        return network

    async def open(self, nursery: trio.Nursery) -> None:
        """As in `ShellSimulation`, until each node hears another on the topic."""
        await super().open(nursery)
        for daemon in self.daemons.values():
            await daemon.wait_connected(JOIN_S)

    async def collect(self) -> None:
        """As in `ShellSimulation`; and what gossip did."""
        await super().collect()
        self.gossip.duplicates = sum(network.duplicates for network in self.libp2p.values())
        for message in self._messages.values():
            born_ns = message.born_ns - EPOCH_NS
            row = (message.serial, message.kind, message.origin, born_ns, len(message.data))
            self.recorder.add("messages", (*row, message.reached, 0))

    def _heard(self, peer: Peer, data: bytes, forwarder: bytes) -> None:
        """A node let a message through; its own if it has no forwarder."""
        name, now_ns = sha256(data).digest(), self.clock.now_ns
        if not forwarder:
            self.gossip.messages += 1
            serial, kind = self.gossip.messages, type(self._opened(data, now_ns).message).__name__
            message = Message(serial, data, kind, peer.index, now_ns, len(self.peers))
            message.hops[peer.index] = 1
            self._messages[name] = message
            return
        message = self._messages[name]
        source = self.number_of(forwarder)
        message.reached += 1
        self.gossip.deliveries += 1
        message.hops[peer.index] = min(255, message.hops[source] + 1)
        latency_ns = now_ns - message.born_ns
        hops = message.hops[peer.index] - 1
        self.recorder.add("deliveries", (message.serial, peer.index, source, hops, latency_ns))


@dataclass
class LiveRun(Run):
    """One run by the wall clock. Checks are made at its end."""

    simulation: LiveSimulation = field(init=False)
    directory: Path = field(init=False)

    def go(self) -> dict[str, Any]:
        """As in `Run`; `trace_hash` is over all nodes' logs, and each time another."""
        self.check = "off" if self.check == "off" else "end"
        with tempfile.TemporaryDirectory(prefix="simnet-live-") as directory, quiet_daemons():
            self.directory = Path(directory)
            summary = super().go() | {"tier": "live"}
        summary["trace_hash"] = fingerprint(self.simulation.peers)
        return summary

    def _make(self) -> Simulation:
        self.simulation = LiveSimulation(
            self.scenario, self.seed, self.recorder, self.beside, directory=self.directory
        )
        return self.simulation

    def _phases(self, simulation: Simulation) -> None:
        trio.run(run_shell, self, self.simulation)
