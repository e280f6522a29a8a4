"""A scenario whose nodes are whole daemons: journal, driver, streams, engine jobs, askers.

Who asks when, what a machine makes and what a seller charges is the simulation's, as in the
event-heap tier; what a node does with it goes through `peer`'s own code.
"""

from contextlib import nullcontext
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
from router import actions as act
from router import events
from router.actions import Action, Input
from router.choosing import RequesterSettings
from router.node import Node
from simnet.disk import VirtualDisk
from simnet.network.gossip import Message
from simnet.peer import Peer
from simnet.simulation import NETWORK, Simulation
from simnet.tiers.life import Life, LifeSurroundings, Record, SyncTime, after_crash
from simnet.tiers.machine_engine import MachineEngine
from simnet.tiers.memory_network import MemoryNetwork
from simnet.tiers.task_clock import TaskClock


class ShellDaemon(Daemon):
    """A node's daemon. Bids and jobs are told to its seller and its machine first."""

    def __init__(
        self,
        world: "ShellSimulation",
        life: Life,
        settings: DaemonSettings,
        signer: Signer,
        engine: Engine | None,
        nursery: trio.Nursery,
    ) -> None:
        self._world, self.life, self._peer = world, life, life.peer
        super().__init__(settings, signer, engine, nursery, world.surroundings(life))
        self._peer.node = self.node
        world.daemons[self._peer.index] = self

    def _make_network(self, signer: Signer) -> AnyNetwork:
        return self._world.make_network(self._peer, self) or super()._make_network(signer)

    def take_session(self, stream: Stream) -> None:
        """A peer opened a job stream."""
        self._links.accept(self._nursery, stream)

    def perform(self, action: Action) -> None:
        """As in `Daemon`."""
        if self.life.over:
            return
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
        self.lives: dict[int, Life] = {}
        self.daemons: dict[int, ShellDaemon] = {}
        self.disks: dict[int, VirtualDisk] = {}
        self.networks: dict[int, MemoryNetwork] = {}
        self.engines: dict[int, MachineEngine] = {}
        self._nodes: trio.Nursery | None = None  # where daemons run
        super().__init__(*arguments)
        self.gossip.admit = self._through_shell

    def make_signer(self, seed: bytes) -> Signer:
        """A key like any other: here every signature is checked by whom it concerns."""
        return Signer(seed)

    # --- daemons ----------------------------------------------------------------------------

    async def open(self, nursery: trio.Nursery) -> None:
        """Start every node in a nursery."""
        self._nodes = nursery
        for peer in self.peers:
            life = self.lives[peer.index] = Life(peer)
            await nursery.start(self._live, peer, life)

    async def _live(
        self, peer: Peer, life: Life, *, task_status: Any = trio.TASK_STATUS_IGNORED
    ) -> None:
        settings = DaemonSettings(
            directory=self.directory(peer),
            network=self.network_settings(peer),
            anchor=self._anchor(peer),
            standing_offers=self.scenario.standing_offers,
            bids_wanted=self.scenario.bids_wanted,
            requester=RequesterSettings(tell_clearing=self.scenario.bids_wanted > 0),
        )
        if machine := self.machines.get(peer.index):
            self.engines[peer.index] = MachineEngine(machine, partial(self._start_job, life))
        make, engine = partial(ShellDaemon, self, life), self.engines.get(peer.index)
        with life.scope:
            async with (
                open_daemon(settings, peer.signer, engine, make),
                trio.open_nursery() as life.asks,
            ):
                task_status.started()
                if peer.incarnation and peer.index in self.sellers:
                    self.sellers[peer.index].forget_offers()
                    self.stir(peer)
                early, life.early = life.early, []
                for item in early:
                    self.give(peer, item)
                await trio.sleep_forever()

    def _start_job(self, life: Life, action: act.StartJob) -> None:
        if not life.over:
            self.start_job(life.peer, action)

    def crash(self, peer: Peer, lost_records: int = 0) -> None:
        """As in `Simulation`: its tasks are cancelled, and its disk keeps what it must, whole
        records of what it may, and half of the next one."""
        daemon = self.daemons[peer.index]
        peer.durable = daemon.journal.durable_sequence + 1
        written = list(peer.log)
        super().crash(peer, lost_records)
        kept = len(peer.log)
        spared, lost = written[peer.durable : kept], written[kept] if kept < len(written) else None
        self.disks[peer.index] = self._after_crash(peer, self.disks[peer.index], spared, lost)
        peer.durable = kept
        daemon.life.scope.cancel()

    def _after_crash(
        self, peer: Peer, disk: VirtualDisk, spared: list[Record], lost: Record | None
    ) -> VirtualDisk:
        directory, owner = self.directory(peer) / LOG_DIRECTORY, peer.signer.public_key
        return after_crash(disk, directory, self.network, owner, spared, lost)

    def restart(self, peer: Peer) -> None:
        """As in `Simulation`: a new daemon starts from the disk."""
        assert self._nodes is not None
        if len(peer.log) < peer.durable:  # somebody put an old copy in its place
            self.disks[peer.index] = self._after_crash(peer, VirtualDisk(), peer.log, None)
        peer.alive = True
        life = self.lives[peer.index] = Life(peer)
        self._nodes.start_soon(self._live, peer, life)

    def set_skew(self, peer: Peer, skew_ns: int) -> None:
        """As in `Driver`. No daemon's clock is ever set while it runs, so none looks out for it:
        its timers are made to."""
        peer.skew_ns = skew_ns
        if peer.alive:
            self.daemons[peer.index].driver.look_at_clock()

    def directory(self, peer: Peer) -> Path:
        """Where a node's log is, on its disk."""
        return Path(f"/node-{peer.index}")

    def network_settings(self, peer: Peer) -> NetworkSettings:
        """How a node's network is set up."""
        return NetworkSettings(NETWORK)

    def surroundings(self, life: Life) -> Surroundings:
        """What a node's daemon has instead of a machine: all of it as in the other tier."""
        peer = life.peer
        return LifeSurroundings(
            now_ns=lambda: self.clock.now_ns + peer.skew_ns,
            entropy=life.entropy,
            disk=self.disks.setdefault(peer.index, VirtualDisk()),
            caller=lambda: nullcontext(SyncTime(self.clock, partial(self._sync_ns, peer))),
            core=partial(self._make_core, peer),
            life=life,
        )

    def _make_core(self, peer: Peer, *arguments: Any, **options: Any) -> Node:
        """The code that a node runs: an adversary's, told what to do, where it is one."""
        core = self._core(peer)(*arguments, **options)
        self.intruders.instruct(peer.index, core)
        return core

    def make_network(self, peer: Peer, daemon: ShellDaemon) -> AnyNetwork | None:
        """The node's network; None for libp2p's."""
        network = MemoryNetwork(
            self,
            daemon.life,
            daemon.driver.gossip,
            daemon.take_session,
            lambda key, data: daemon.driver.feed(act.BidReceived(key, data)),
        )
        self.networks[peer.index] = network
        return network

    async def collect(self) -> None:
        """Take over what every node's disk holds, once all of it is written."""
        for peer in self.peers:
            if self.daemons[peer.index].life.over:
                continue  # the run was stopped meanwhile
            await self.daemons[peer.index].driver.wait_idle()
            log = self.directory(peer) / LOG_DIRECTORY
            entries = read_entries(log, disk=self.disks.get(peer.index))
            peer.log = [(entry.type, entry.payload) for entry in entries]
            peer.durable = len(peer.log)
        for life in self.lives.values():
            life.end()

    def close_channels(self) -> None:
        """As in `Simulation`; who is about to start from its log may have some, too."""
        for peer in self.peers:
            self.give(peer, act.CloseChannels(()))

    def settled(self) -> bool:
        """Whether no channel is open."""
        return not any(peer.node.context.ledger.open_channels for peer in self.peers)

    # --- in ---------------------------------------------------------------------------------

    def give(self, peer: Peer, item: Input) -> None:
        """An input, by the way that it takes through the shell."""
        life, daemon = self.lives[peer.index], self.daemons[peer.index]
        if life.over:
            return
        if life.asks is None:
            life.early.append(item)
            return
        match item:
            case act.Ask():
                life.asks.start_soon(self._ask, daemon, item)
            case act.JobStarted() | act.JobTokens() | act.JobFinished():
                self.engines[peer.index].came(item)
            case act.SessionOpened() | act.SessionData() | act.SessionClosed() | act.BidReceived():
                self.networks[peer.index].came(item)
            case act.GossipReceived():
                pass  # the driver has fed it
            case _:
                daemon.driver.feed(item)

    async def _ask(self, daemon: ShellDaemon, ask: act.Ask) -> None:
        async with daemon.ask(ask) as stream:
            async for event in stream:
                self.market.told(daemon.life.peer, ask.ask_id, event, self.clock.now_ns)

    def _through_shell(self, peer: Peer, message: Message, source: int) -> None:
        forwarder, daemon = self.peers[source].signer.public_key, self.daemons[peer.index]
        if daemon.life.over or not daemon.driver.gossip(message.data, forwarder):
            raise RemoteError("admission.rate", penalize=False)

    # --- out --------------------------------------------------------------------------------

    def told(self, peer: Peer, action: act.Deliver) -> None:
        """An event that belongs to no request."""
        self.market.told(peer, action.ask_id, action.event, self.clock.now_ns)

    def published_by(self, peer: Peer, data: bytes) -> None:
        """A message that its own node has let out."""
        now_ns = self.clock.now_ns
        signed = self._opened(data, now_ns + peer.skew_ns)
        self.published.publish(peer.index, data, signed, now_ns)

    def name_of(self, key: bytes) -> str:
        """A node, for people."""
        return f"node {self.number_of(key)}"
