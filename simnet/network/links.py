"""What a packet goes through: the sender's uplink queue, the way, jitter, loss.

Uplinks queue: what a node sends leaves one after the other at its rate. Downlinks only add the
time that the bytes take, as a queue there would need the order of arrivals in advance. A lost
packet is a lost copy in gossip, and a wait for its repetition on a stream.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from protocol.units import NS_PER_MS, NS_PER_S
from simnet.clock import EventHeap
from simnet.entropy import RING, SCATTER_SIZE, STEP, Entropy, Scatter
from simnet.network.cpu import Cpu
from simnet.network.latency import ACCESS_LINKS, AccessLink, Distances, jitter_table, median_ns
from simnet.network.penalties import Penalties
from simnet.peer import Peer
from simnet.scenario.network import Access, Latency

HEADER_BYTES: Final = 66  # IP, TCP, Noise and Yamux around a frame, roughly
PACKET_BYTES: Final = 1_400
DIAL_BYTES: Final = 1_500  # what the handshakes of a new connection carry
RESENDS_MAX: Final = 8
WAYS_KEPT: Final = 256


class Links:
    """The network beneath gossip and streams; nodes are numbers."""

    def __init__(
        self,
        clock: EventHeap,
        cpu: Cpu,
        distances: Distances,
        latency: Latency,
        access: Access,
        nodes: int,
        seed: int,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._scatter = Scatter(seed, "links")
        self._losses = Scatter(seed, "losses")
        self._jitter_ns = jitter_table(latency.jitter_permille)
        # The least that a way takes: so much under its median that jitter brings it back there.
        self._least_ns = [
            [max(way_ns - median_ns(latency.jitter_permille), way_ns * 3 // 4) for way_ns in row]
            for row in distances.one_way_ns
        ]
        self._retransmit_ns = access.retransmit_ms * NS_PER_MS
        self._duplicates = access.duplicate_ppm * SCATTER_SIZE // 1_000_000
        self.regions = distances.regions
        self.region = _places(distances.regions, latency.regions, nodes, seed)
        self.classes, chosen = _classes(access, nodes, seed)
        names = list(ACCESS_LINKS)
        kinds = [names.index(name) for name in self.classes]
        self._kinds = [
            (link.extra_ns, 1_024 * 8 * NS_PER_S // link.bits_per_s)
            for link in ACCESS_LINKS.values()
        ]
        self._extra_ns = [self._kinds[kind][0] for kind in kinds]
        self._ns_per_kib = [self._kinds[kind][1] for kind in kinds]
        # Where a node is and behind which kind of link: an index of what `_ways` returns.
        self._place = [
            region * len(names) + kind for region, kind in zip(self.region, kinds, strict=True)
        ]
        self._ways_ns = lru_cache(WAYS_KEPT)(self._ways)
        self._loss = [
            min(SCATTER_SIZE - 1, (link.loss_ppm + access.loss_ppm) * SCATTER_SIZE // 1_000_000)
            for link in chosen
        ]
        self._lossy = any(self._loss) or bool(self._duplicates)
        self._free_ns = [0] * nodes
        self._nodes = nodes
        self._trips: dict[int, int] = {}
        self.sent_bytes = 0
        self.copies_lost = 0
        self.penalties = Penalties()
        # For faults: whether nothing gets from one node to another now; extra ns on the way.
        self.blocked: Callable[[int, int], bool] | None = None
        self.clogged_ns: Callable[[int, int], int] | None = None

    # --- gossip ----------------------------------------------------------------------------

    def spread(
        self,
        source: int,
        targets: Sequence[int],
        length: int,
        n: int,
        arrive: Callable[[int, Any], None],
        cargo: Any = None,
    ) -> None:
        """Send a copy to each target: `arrive(target, cargo)` when it is there.

        `n` names the draws: with it the same pair draws anew for each message.
        """
        now_ns = self._clock.now_ns
        jitter, start = self._jitter_ns, self._scatter.start(source, n)
        length += HEADER_BYTES
        place, ways_ns = self._place, self._ways_ns(self.region[source], length)
        up_ns = length * self._ns_per_kib[source] >> 10
        at_ns = max(now_ns, self._free_ns[source], self._cpu.free_ns[source])
        self._free_ns[source] = at_ns + up_ns * len(targets)
        self.sent_bytes += length * len(targets)
        at_ns += self._extra_ns[source]
        times_ns = []
        for target in targets:
            at_ns += up_ns
            # `Scatter.draw`, without the call; its upper 12 bits choose the jitter.
            at = (start + target * STEP) & RING
            times_ns.append(at_ns + ways_ns[place[target]] + jitter[at * at >> 20 & 4_095])
        if self._lossy or self.blocked is not None or self.clogged_ns is not None:
            times_ns, targets = self._disturbed(source, targets, times_ns, n)
        self._clock.at_each(times_ns, arrive, targets, cargo)

    def _ways(self, region: int, length: int) -> list[int]:
        """What `length` bytes take from a region to each place, beside the jitter, in ns."""
        down_ns = [extra + (length * per_kib >> 10) for extra, per_kib in self._kinds]
        return [way_ns + ns for way_ns in self._least_ns[region] for ns in down_ns]

    def _disturbed(
        self, source: int, targets: Sequence[int], times_ns: list[int], n: int
    ) -> tuple[list[int], list[int]]:
        """Arrivals and their targets after losses, duplicates, partitions and clogging."""
        kept_ns: list[int] = []
        kept: list[int] = []
        for target, at_ns in zip(targets, times_ns, strict=True):
            for copy in range(self._copies(source, target, n)):
                kept_ns.append(at_ns + self._clog_ns(source, target) + copy * NS_PER_MS)
                kept.append(target)
        return kept_ns, kept

    def _copies(self, source: int, target: int, n: int) -> int:
        """How many copies of a gossip message arrive: 0, 1 or 2."""
        if self.blocked is not None and self.blocked(source, target):
            return 0
        for loss, salt in ((self._loss[source], n), (self._loss[target], n + 32_749)):
            if loss and self._losses.draw(source, target, salt) < loss:
                self.copies_lost += 1
                return 0
        twice = self._duplicates
        return 2 if twice and self._losses.draw(target, source, n) < twice else 1

    def _clog_ns(self, source: int, target: int) -> int:
        return 0 if self.clogged_ns is None else self.clogged_ns(source, target)

    # --- streams ---------------------------------------------------------------------------

    def trip_ns(self, source: int, target: int, length: int, after_ns: int = 0) -> int:
        """One way of `length` bytes that leave `after_ns` from now, with losses sent again."""
        # Counted by pair: what others do at the same moment changes no draw.
        pair = source * self._nodes + target
        self._trips[pair] = n = self._trips.get(pair, 0) + 1
        length += HEADER_BYTES * (1 + length // PACKET_BYTES)
        self.sent_bytes += length
        now_ns = self._clock.now_ns + after_ns
        start_ns = max(now_ns, self._free_ns[source], self._cpu.free_ns[source])
        start_ns += length * self._ns_per_kib[source] >> 10
        if not after_ns:  # what leaves later holds up nothing that leaves before it
            self._free_ns[source] = start_ns
        way_ns = self._least_ns[self.region[source]][self.region[target]]
        trip_ns = way_ns + self._jitter_ns[self._scatter.draw(source, target, n) >> 4]
        trip_ns += self._extra_ns[source] + self._extra_ns[target]
        trip_ns += length * self._ns_per_kib[target] >> 10
        trip_ns += self._clog_ns(source, target)
        loss = self._loss[source] + self._loss[target]
        if loss:
            for resend in range(RESENDS_MAX):
                if self._losses.draw(source, target, n + resend * 8_191) >= loss:
                    break
                trip_ns += self._retransmit_ns + 2 * way_ns
        return start_ns - now_ns + trip_ns

    def delay_ns(self, source: Peer, target: Peer, length: int) -> int:
        """As in `streams.Wire`."""
        return self.trip_ns(source.index, target.index, length)

    def dial_ns(self, source: Peer, target: Peer) -> tuple[int, int]:
        """As in `streams.Wire`: TCP, Noise and the muxer take three round trips."""
        # One after the other: what the first had to wait for, the others find done.
        ends, up_ns = (source.index, target.index), 0
        for trip in range(5):
            from_, to = ends if trip % 2 == 0 else ends[::-1]
            up_ns += self.trip_ns(from_, to, DIAL_BYTES, up_ns)
        return up_ns, up_ns + self.trip_ns(target.index, source.index, 0, up_ns)

    def reachable(self, source: Peer, target: Peer) -> bool:
        """As in `streams.Wire`: it lives, nothing is between, neither keeps away."""
        if not target.alive:
            return False
        now_ns = self._clock.now_ns
        if self.penalties.between(source.index, target.index, now_ns):
            return False
        blocked = self.blocked
        return blocked is None or not (
            blocked(source.index, target.index) or blocked(target.index, source.index)
        )


def _places(names: tuple[str, ...], weights: dict[str, int], nodes: int, seed: int) -> bytes:
    """The region of each node, in shares as the weights say."""
    shares = [weights.get(name, 0) for name in names] if weights else [1] * len(names)
    draw = Entropy(seed, "regions")
    return bytes(draw.pick(shares) for _ in range(nodes))


def _classes(access: Access, nodes: int, seed: int) -> tuple[list[str], list[AccessLink]]:
    names = sorted(access.links)
    weights = [access.links[name] for name in names]
    draw = Entropy(seed, "access")
    classes = [names[draw.pick(weights)] for _ in range(nodes)]
    return list(classes), [ACCESS_LINKS[name] for name in classes]
