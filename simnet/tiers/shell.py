"""A scenario whose nodes are whole daemons: journal, driver, streams, engine jobs, askers.

Who asks when, what a machine makes and what a seller charges is the simulation's, as in the
event-heap tier; what a node does with it goes through `peer`'s own code.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import trio

from engine.interface import Engine
from peer.daemon import LOG_DIRECTORY, Daemon, DaemonSettings, open_daemon
from peer.journal import read_entries
from peer.libp2p_adapter.network import NetworkSettings
from peer.surroundings import AnyNetwork, Stream, Surroundings
from protocol.crypto import Signer
from protocol.errors import RemoteError
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from router.actions import Action, Input
from router.choosing import RequesterSettings
from simnet.disk import VirtualDisk
from simnet.entropy import Entropy
from simnet.network.gossip import Message
from simnet.peer import Peer
from simnet.simulation import NETWORK, Simulation
from simnet.tiers.machine_engine import MachineEngine
from simnet.tiers.memory_network import MemoryNetwork
from simnet.tiers.task_clock import TaskClock


class SyncTime:
    """Makes a journal's calls here, after as long as the node's disk takes."""

    def __init__(self, world: "ShellSimulation", peer: Peer) -> None:
        self._world, self._peer = world, peer

    async def run(self, call: Callable[[], None]) -> None:
        """As in `Caller`."""
        with trio.CancelScope(shield=True):
            await trio.sleep(self._world.sync_ns(self._peer) / NS_PER_S)
        call()


class ShellDaemon(Daemon):
    """A node's daemon. Bids and jobs are told to its seller and its machine first."""

    def __init__(
        self,
        world: "ShellSimulation",
        peer: Peer,
        settings: DaemonSettings,
        signer: Signer,
        engine: Engine | None,
        nursery: trio.Nursery,
    ) -> None:
        self._world, self._peer = world, peer
        super().__init__(settings, signer, engine, nursery, world.surroundings(peer))

    def _make_network(self, signer: Signer) -> AnyNetwork:
        return self._world.make_network(self._peer, self) or super()._make_network(signer)

    def take_session(self, stream: Stream) -> None:
        """A peer opened a job stream."""
        self._links.accept(self._nursery, stream)

    def perform(self, action: Action) -> None:
        """As in `Daemon`."""
        match action:
            case act.SendBid() if not self._world.bids(self._peer, action.request_id):
                return
            case act.StartJob():
                self._world.engines[self._peer.index].awarded(action)
            case act.Deliver(events.CONTROL_ASK):
                self._world.told(self._peer, action)
            case act.Penalize():
                codes = self._world.penalties
                codes[action.code] = codes.get(action.code, 0) + 1
        super().perform(action)


class ShellSimulation(Simulation):
    """Daemons over the simulation's own links, gossip and streams."""

    clock_kind = TaskClock
    clock: TaskClock

    def __init__(self, *arguments: Any) -> None:
        self.daemons: dict[int, Daemon] = {}
        self.disks: dict[int, VirtualDisk] = {}
        self.networks: dict[int, MemoryNetwork] = {}
        self.engines: dict[int, MachineEngine] = {}
        self.asks: trio.Nursery | None = None  # where each request waits for its answer
        super().__init__(*arguments)
        self.gossip.admit = self._through_shell
        for index, machine in self.machines.items():
            start = partial(self.start_job, self.peers[index])
            self.engines[index] = MachineEngine(machine, start)

    def make_signer(self, seed: bytes) -> Signer:
        """A key like any other: here every signature is checked by whom it concerns."""
        return Signer(seed)

    # --- daemons ----------------------------------------------------------------------------

    async def open(self, nursery: trio.Nursery) -> None:
        """Start every node in a nursery."""
        for peer in self.peers:
            await nursery.start(self._keep_open, peer)

    async def _keep_open(self, peer: Peer, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        settings = DaemonSettings(
            directory=self.directory(peer),
            network=self.network_settings(peer),
            anchor=self._anchor(peer),
            standing_offers=self.scenario.standing_offers,
            bids_wanted=self.scenario.bids_wanted,
            requester=RequesterSettings(tell_clearing=self.scenario.bids_wanted > 0),
        )
        make, engine = partial(ShellDaemon, self, peer), self.engines.get(peer.index)
        async with open_daemon(settings, peer.signer, engine, make) as daemon:
            self.daemons[peer.index] = daemon
            peer.node = daemon.node
            task_status.started()
            await trio.sleep_forever()

    def directory(self, peer: Peer) -> Path:
        """Where a node's log is, on its disk."""
        return Path(f"/node-{peer.index}")

    def network_settings(self, peer: Peer) -> NetworkSettings:
        """How a node's network is set up."""
        return NetworkSettings(NETWORK)

    def surroundings(self, peer: Peer) -> Surroundings:
        """What a node's daemon has instead of a machine: all of it as in the other tier."""
        entropy = Entropy(self.seed, f"peer {peer.index}")
        entropy.bytes(32)  # its key
        self.disks[peer.index] = VirtualDisk()
        return Surroundings(
            now_ns=lambda: self.clock.now_ns,
            entropy=entropy.bytes,
            disk=self.disks[peer.index],
            caller=partial(self._caller, peer),
        )

    def _caller(self, peer: Peer) -> AbstractContextManager[SyncTime]:
        return nullcontext(SyncTime(self, peer))

    def sync_ns(self, peer: Peer) -> int:
        """How long a sync takes now."""
        return self._sync_ns(peer)

    def make_network(self, peer: Peer, daemon: ShellDaemon) -> AnyNetwork | None:
        """The node's network; None for libp2p's."""
        network = MemoryNetwork(
            self,
            peer,
            daemon.driver.gossip,
            daemon.take_session,
            lambda key, data: daemon.driver.feed(act.BidReceived(key, data)),
        )
        self.networks[peer.index] = network
        return network

    async def collect(self) -> None:
        """Take over what every node's disk holds, once all of it is written."""
        for peer in self.peers:
            await self.daemons[peer.index].driver.wait_idle()
            log = self.directory(peer) / LOG_DIRECTORY
            entries = read_entries(log, disk=self.disks.get(peer.index))
            peer.log = [(entry.type, entry.payload) for entry in entries]
            peer.durable = len(peer.log)

    def settled(self) -> bool:
        """Whether no channel is open."""
        return not any(peer.node.context.ledger.open_channels for peer in self.peers)

    # --- in ---------------------------------------------------------------------------------

    def give(self, peer: Peer, item: Input) -> None:
        """An input, by the way that it takes through the shell."""
        match item:
            case act.Ask():
                assert self.asks is not None, "nobody asks yet"
                self.asks.start_soon(self._ask, peer, item)
            case act.JobStarted() | act.JobTokens() | act.JobFinished():
                self.engines[peer.index].came(item)
            case act.SessionOpened() | act.SessionData() | act.SessionClosed() | act.BidReceived():
                self.networks[peer.index].came(item)
            case act.GossipReceived():
                pass  # the driver has fed it
            case _:
                self.daemons[peer.index].driver.feed(item)

    async def _ask(self, peer: Peer, ask: act.Ask) -> None:
        async with self.daemons[peer.index].ask(ask) as stream:
            async for event in stream:
                self.market.told(peer, ask.ask_id, event, self.clock.now_ns)

    def _through_shell(self, peer: Peer, message: Message, source: int) -> None:
        forwarder = self.peers[source].signer.public_key
        if not self.daemons[peer.index].driver.gossip(message.data, forwarder):
            raise RemoteError("admission.rate", penalize=False)

    # --- out --------------------------------------------------------------------------------

    def told(self, peer: Peer, action: act.Deliver) -> None:
        """An event that belongs to no request."""
        self.market.told(peer, action.ask_id, action.event, self.clock.now_ns)

    def published_by(self, peer: Peer, data: bytes) -> None:
        """A message that its own node has let out."""
        now_ns = self.clock.now_ns
        self.published.publish(peer.index, data, self._opened(data, now_ns), now_ns)

    def name_of(self, key: bytes) -> str:
        """A node, for people."""
        return f"node {self.number_of(key)}"
