"""A scenario in virtual time: production nodes over gossip, links, disks, processors, machines.

Puts the parts together and carries out what the nodes want. Faults, adversaries and checkers act
through `peers`, `links`, `gossip`, `cpu`, `machines`, `crash` and `restart`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from protocol import limits
from protocol.errors import RemoteError
from protocol.units import NS_PER_MS, NS_PER_S, NS_PER_US
from router import actions as act
from router.actions import Action, Input
from router.anchoring import AnchorSettings
from router.node import Node
from simnet.adversaries.intruders import Intruders
from simnet.driver import Driver
from simnet.entropy import Entropy
from simnet.faults import Faults
from simnet.market.crowd import Crowd
from simnet.market.inference import Machine
from simnet.market.people import Market
from simnet.market.pricing import Seller
from simnet.market.workload import Asking
from simnet.network import topology
from simnet.network.cpu import Cpu, input_costs
from simnet.network.gossip import GossipModel, Message
from simnet.network.latency import cloud_regions, read_matrix
from simnet.network.links import Links
from simnet.network.streams import Streams
from simnet.peer import Peer
from simnet.recording.published import Published
from simnet.recording.recorder import Recorder
from simnet.recording.series import Series
from simnet.scenario import Scenario
from simnet.scenario.roles import Roles

EPOCH_NS: Final = 1_700_000_000 * NS_PER_S
NETWORK: Final = "sim"


class Simulation(Driver):
    """One run of a scenario. Equal scenarios, seeds and commits give equal traces."""

    def __init__(self, scenario: Scenario, seed: int, recorder: Recorder, beside: Path) -> None:
        super().__init__(NETWORK, EPOCH_NS)
        self.scenario = scenario
        self.standing_offers, self.bids_wanted = scenario.standing_offers, scenario.bids_wanted
        self.seed = seed
        self.recorder = recorder
        self._beside = beside
        nodes = scenario.nodes
        latency = scenario.latency
        distances = read_matrix(beside / latency.matrix) if latency.matrix else cloud_regions()
        self.roles = Roles(scenario, seed)
        self.intruders = Intruders(self.roles)
        self.cpu = Cpu(nodes)
        self.links = Links(self.clock, self.cpu, distances, latency, scenario.access, nodes, seed)
        neighbours = topology.build(scenario.topology, nodes, seed, self.links.region, beside)
        self.gossip = GossipModel(
            self.clock,
            self.links,
            self.cpu,
            self.peers,
            self.intruders.surround(neighbours) if scenario.adversaries else neighbours,
            scenario.gossip,
            scenario.costs,
            seed,
            self._admitted,
            self.keep_away,
        )
        self.streams = Streams(self.clock, self.peers, self.by_key, self._arrived, self.links)
        self.sellers: dict[int, Seller] = {}
        self.market = Market(recorder, self.number_of, EPOCH_NS, self.sellers)
        self.machines: dict[int, Machine] = {}
        self.penalties: dict[str, int] = {}  # offences seen, by code
        self.published = Published(self.gossip, recorder, EPOCH_NS)
        self.series = Series(scenario, recorder, EPOCH_NS)
        self._anchors = AnchorSettings(scenario.credit_limit_ucr)
        self._sync = scenario.disk.sync_us * NS_PER_US
        self.slow_disks_ns: dict[int, int] = {}
        self.crowds: dict[str, Crowd] = {}
        self.faults = Faults(self, scenario.faults)
        self.before_send: Callable[[Peer, bytes], None] | None = None  # for checkers
        self._costs = input_costs(scenario.costs)
        self._bid_ns = scenario.costs.bid_us * NS_PER_US
        self._kept = scenario.record.deliveries_ppm
        self._build()

    # --- building --------------------------------------------------------------------------

    def _build(self) -> None:
        draws = Entropy(self.seed, "providers")
        for index in range(self.scenario.nodes):
            entropy = Entropy(self.seed, f"peer {index}")
            signer = self.make_signer(entropy.bytes(32))
            peer = Peer(index, signer, None, entropy, f"/memory/{index}")
            peer.node = self.make_node(peer)
            self.peers.append(peer)
            self.by_key[signer.public_key] = peer
        for index, group in self.roles.providers.items():
            peer, gpu = self.peers[index], self.roles.gpu(group)
            speed = 1_000 + draws.spread(group.speed_spread_permille)
            machine = Machine(self.clock, peer, gpu, speed, self.give, self.stir)
            spread = 1_000 + draws.spread(group.price_spread_permille)
            self.machines[index] = machine
            self.sellers[index] = Seller(group, machine, self.roles.sells(index), spread)
        for index, asker in self.roles.requesters.items():
            self.gossip.unsubscribed[index] = not asker.subscribed
        self.gossip.keep = self._keeps

    def _keeps(self, serial: int) -> bool:
        """Whether each delivery of a message is a row."""
        return self.recorder.keeps and serial * self._kept % 1_000_000 < self._kept

    def begin(self) -> None:
        """Heartbeats and offers now; requests and faults after the warm-up."""
        self.gossip.start()
        for index in self.sellers:
            self.stir(self.peers[index])
        start_ns = self.clock.now_ns + self.scenario.warmup_s * NS_PER_S
        for group in self.scenario.requesters:
            members = [self.peers[index] for index in self.roles.members[group.name]]
            asking = Asking(self.scenario, group, self.seed, self._beside)
            crowd = Crowd(self.clock, self.market, self.give, asking, members, self.seed)
            self.crowds[group.name] = crowd.begin(start_ns)
        self.intruders.begin(self, start_ns)
        self.faults.begin(start_ns, start_ns + self.scenario.duration_s * NS_PER_S)
        self.clock.at(start_ns, self._sample)

    def _sample(self) -> None:
        """Rows of the time series, for ever."""
        self.clock.after(self.scenario.record.series_ms * NS_PER_MS, self._sample)
        self.series.sample(self)

    def close_channels(self) -> None:
        """Every payer asks to settle what it has open."""
        for peer in self.peers:
            if peer.alive and peer.node.context.ledger.open_channels:
                self.give(peer, act.CloseChannels(()))

    def finish(self) -> None:
        """The run is over: what is under way becomes rows."""
        self.published.retire(self.clock.now_ns)

    # --- what the driver asks for ----------------------------------------------------------

    def _core(self, peer: Peer) -> type[Node]:
        return self.intruders.core(peer.index)

    def make_node(self, peer: Peer) -> Node:
        """As any driver's; an adversary's is told what it is to do."""
        node = super().make_node(peer)
        self.intruders.instruct(peer.index, node)
        return node

    def _anchor(self, peer: Peer) -> AnchorSettings:
        return self._anchors

    def _sync_ns(self, peer: Peer) -> int:
        return self.slow_disks_ns.get(peer.index, self._sync)

    def number_of(self, key: bytes) -> int:
        """The node of a key; -1 for none."""
        peer = self.by_key.get(key)
        return -1 if peer is None else peer.index

    def is_adversary(self, node: int) -> bool:
        """Whether a node does not keep the rules."""
        return node in self.intruders.kinds

    def advance_ucr(self, node: int) -> int:
        """A: the most that a node lends ahead of delivery."""
        group = self.roles.requesters.get(node)
        return 0 if group is None else group.advance_ucr

    # --- inputs, through the processor -----------------------------------------------------

    def _arrived(self, peer: Peer, item: Input) -> None:
        """Something came from the network: it waits for the processor."""
        cost_ns = self._costs.get(type(item), 0)
        done_ns = self.cpu.take(peer.index, self.clock.now_ns, cost_ns)
        self.clock.at(done_ns, self.give, peer, item)

    def _admitted(self, peer: Peer, message: Message, source: int, signed: Any) -> None:
        """Admission let a gossip message through; its cost is the hop's."""
        if message.kept:
            now_ns = self.clock.now_ns
            hops = message.hops[peer.index] - 1
            row = (message.serial, peer.index, source, hops, now_ns - message.born_ns)
            self.recorder.add("deliveries", row)
        self.give(peer, act.GossipReceived(signed))

    # --- actions ---------------------------------------------------------------------------

    def _perform(self, peer: Peer, action: Action) -> None:
        match action:
            case act.Note():
                pass
            case act.Send():
                if self.before_send is not None:
                    self.before_send(peer, action.data)
                self.streams.send(peer, action.session, action.data)
            case act.SendBid():
                if self.bids(peer, action.request_id):
                    self.soon(peer, self._send_bid, peer, action)
            case act.Publish():
                self.soon(peer, self._publish, peer, action)
            case act.OpenSession():
                self.soon(peer, self.streams.open, peer, action.session)
            case act.CloseSession():
                self.soon(peer, self.streams.hang_up, peer, action.session)
            case act.StartJob():
                self.soon(peer, self.start_job, peer, action)
            case act.CancelJob():
                if peer.index in self.machines:
                    self.soon(peer, self.machines[peer.index].cancel, action.job_id)
            case act.Deliver():
                self.market.told(peer, action.ask_id, action.event, self.clock.now_ns)
            case act.Penalize():
                self.keep_away(peer, self.number_of(action.peer), action.code)
            case _:
                raise AssertionError(action)

    def _publish(self, peer: Peer, action: act.Publish) -> None:
        try:
            signed = peer.node.admit(action.data, self.clock.now_ns + peer.skew_ns)
        except RemoteError:
            return  # over its own rate: no neighbour would take it either
        self.published.publish(peer.index, action.data, signed, self.clock.now_ns)

    def _send_bid(self, peer: Peer, action: act.SendBid) -> None:
        if not self.carry_bid(peer, action.peer, action.data):
            undelivered = act.BidUndelivered(action.request_id, action.data)
            self.soon(peer, self.give, peer, undelivered, after_ns=limits.DIAL_TIMEOUT_NS)

    def bids(self, peer: Peer, request_id: bytes) -> bool:
        """Whether a seller bids at all."""
        seller = self.sellers.get(peer.index)
        if seller is not None and seller.bid(request_id):
            self.stir(peer)
            return True
        return seller is None

    def carry_bid(self, peer: Peer, to: bytes, data: bytes) -> bool:
        """Make a bid and send it on its way; False when nobody is there."""
        self.market.totals.bids_sent += 1
        self.cpu.take(peer.index, self.clock.now_ns, self._bid_ns)
        target = self.by_key.get(to)
        if target is None or not self.links.reachable(peer, target):
            return False
        received = act.BidReceived(peer.signer.public_key, data)
        delay_ns = self.links.delay_ns(peer, target, len(data))
        self.clock.after(delay_ns, self._arrived, target, received)
        return True

    def start_job(self, peer: Peer, action: act.StartJob) -> None:
        """A provider's machine takes a job."""
        seller = self.sellers[peer.index]
        model = next(model for model in seller.models if model.name == action.model)
        self.machines[peer.index].start(action, model, self.market.tokens_left(action, peer.index))
        seller.won()
        self.stir(peer)

    def stir(self, peer: Peer) -> None:
        """A provider's offers, anew when they changed."""
        self.clock.after(0, self._offer, peer)

    def _offer(self, peer: Peer) -> None:
        offers = self.sellers[peer.index].offers()
        if offers is not None:
            self.give(peer, act.OffersChanged(offers))

    def keep_away(self, peer: Peer, offender: int, code: str) -> None:
        """A node saw an offence, which `code` counts: it keeps apart from the offender."""
        if code:
            self.penalties[code] = self.penalties.get(code, 0) + 1
        if offender < 0 or offender == peer.index:
            return
        self.links.penalties.add(peer.index, offender, self.clock.now_ns)
        self.gossip.meshes.part(peer.index, offender)
        self.clock.after(0, self.streams.cut, peer, self.peers[offender])

    # --- faults ----------------------------------------------------------------------------

    def crash(self, peer: Peer, lost_records: int = 0) -> None:
        """Stop a node at once; `lost_records` un-synced ones survive less."""
        self.stop(peer, lost_records)
        self.gossip.gone(peer.index)
        self.streams.died(peer)
        self.market.died(peer.index, self.clock.now_ns)

    def restart(self, peer: Peer) -> None:
        """Start a crashed node from its log."""
        self.start(peer)
        if peer.index in self.sellers:
            self.sellers[peer.index].forget_offers()
            self.stir(peer)
