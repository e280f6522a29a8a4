"""What a packet goes through: the sender's uplink queue, the way, jitter, loss.

Uplinks queue: what a node sends leaves one after the other at its rate. Downlinks only add the
time that the bytes take, as a queue there would need the order of arrivals in advance. A lost
packet is a lost copy in gossip, and a wait for its repetition on a stream.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from protocol.units import NS_PER_MS, NS_PER_S
from simnet.clock import EventHeap
from simnet.cpu import Cpu
from simnet.entropy import SCATTER_SIZE, Entropy, Scatter
from simnet.latency import ACCESS_LINKS, AccessLink, Distances, jitter_table
from simnet.peer import Peer
from simnet.scenario_network import Access, Latency

HEADER_BYTES: Final = 66  # IP, TCP, Noise and Yamux around a frame, roughly
PACKET_BYTES: Final = 1_400
DIAL_BYTES: Final = 1_500  # what the handshakes of a new connection carry
RESENDS_MAX: Final = 8


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
        self._one_way_ns = distances.one_way_ns
        self._retransmit_ns = access.retransmit_ms * NS_PER_MS
        self._duplicates = access.duplicate_ppm * SCATTER_SIZE // 1_000_000
        self.regions = distances.regions
        self.region = _places(distances.regions, latency.regions, nodes, seed)
        self.classes, chosen = _classes(access, nodes, seed)
        self._extra_ns = [link.extra_ns for link in chosen]
        self._ns_per_kib = [1_024 * 8 * NS_PER_S // link.bits_per_s for link in chosen]
        self._loss = [
            min(SCATTER_SIZE - 1, (link.loss_ppm + access.loss_ppm) * SCATTER_SIZE // 1_000_000)
            for link in chosen
        ]
        self._lossy = any(self._loss) or bool(self._duplicates)
        self._free_ns = [0] * nodes
        self._n = 0
        self.sent_bytes = 0
        self.copies_lost = 0
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
        arrive: Callable[..., None],
        *arguments: Any,
    ) -> None:
        """Send a copy to each target: `arrive(target, source, *arguments)` when it is there.

        `n` names the draws: with it the same pair draws anew for each message.
        """
        clock_at = self._clock.at
        table, jitter, ns_per_kib = self._scatter.table, self._jitter_ns, self._ns_per_kib
        row, region, extra = self._one_way_ns[self.region[source]], self.region, self._extra_ns
        length += HEADER_BYTES
        up_ns = length * ns_per_kib[source] >> 10
        start_ns = max(self._clock.now_ns, self._free_ns[source], self._cpu.free_ns[source])
        own = table[source & 65_535]
        base_ns = extra[source]
        plain = not self._lossy and self.blocked is None and self.clogged_ns is None
        for target in targets:
            start_ns += up_ns
            way_ns = row[region[target]]
            drift = jitter[table[(table[(own + target) & 65_535] + n) & 65_535]]
            if drift < 0 and drift < -(way_ns >> 2):
                drift = -(way_ns >> 2)
            arrival_ns = (
                start_ns
                + way_ns
                + drift
                + base_ns
                + extra[target]
                + (length * ns_per_kib[target] >> 10)
            )
            if plain:
                clock_at(arrival_ns, arrive, target, source, *arguments)
                continue
            for copy in range(self._copies(source, target, n)):
                clock_at(
                    arrival_ns + self._clog_ns(source, target) + copy * NS_PER_MS,
                    arrive,
                    target,
                    source,
                    *arguments,
                )
        self._free_ns[source] = start_ns
        self.sent_bytes += length * len(targets)

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

    def trip_ns(self, source: int, target: int, length: int) -> int:
        """One way of `length` bytes from now, with losses sent again."""
        self._n += 1
        length += HEADER_BYTES * (1 + length // PACKET_BYTES)
        self.sent_bytes += length
        now_ns = self._clock.now_ns
        start_ns = max(now_ns, self._free_ns[source], self._cpu.free_ns[source])
        start_ns += length * self._ns_per_kib[source] >> 10
        self._free_ns[source] = start_ns
        way_ns = self._one_way_ns[self.region[source]][self.region[target]]
        drift = self._jitter_ns[self._scatter.draw(source, target, self._n)]
        trip_ns = way_ns + max(drift, -(way_ns >> 2))
        trip_ns += self._extra_ns[source] + self._extra_ns[target]
        trip_ns += length * self._ns_per_kib[target] >> 10
        trip_ns += self._clog_ns(source, target)
        loss = self._loss[source] + self._loss[target]
        if loss:
            for resend in range(RESENDS_MAX):
                if self._losses.draw(source, target, self._n + resend * 8_191) >= loss:
                    break
                trip_ns += self._retransmit_ns + 2 * way_ns
        return start_ns - now_ns + trip_ns

    def delay_ns(self, source: Peer, target: Peer, length: int) -> int:
        """As in `streams.Wire`."""
        return self.trip_ns(source.index, target.index, length)

    def dial_ns(self, source: Peer, target: Peer) -> tuple[int, int]:
        """As in `streams.Wire`: TCP, Noise and the muxer take three round trips."""
        there_ns = sum(self.trip_ns(source.index, target.index, DIAL_BYTES) for _ in range(3))
        back_ns = sum(self.trip_ns(target.index, source.index, DIAL_BYTES) for _ in range(2))
        up_ns = there_ns + back_ns
        return up_ns, up_ns + self.trip_ns(target.index, source.index, 0)

    def reachable(self, source: Peer, target: Peer) -> bool:
        """As in `streams.Wire`: it lives, and nothing is between."""
        if not target.alive:
            return False
        blocked = self.blocked
        return blocked is None or not (
            blocked(source.index, target.index) or blocked(target.index, source.index)
        )


def _places(names: tuple[str, ...], weights: dict[str, int], nodes: int, seed: int) -> list[int]:
    """The region of each node, in shares as the weights say."""
    shares = [weights.get(name, 0) for name in names] if weights else [1] * len(names)
    draw = Entropy(seed, "regions")
    return [draw.pick(shares) for _ in range(nodes)]


def _classes(access: Access, nodes: int, seed: int) -> tuple[list[str], list[AccessLink]]:
    names = sorted(access.links)
    weights = [access.links[name] for name in names]
    draw = Entropy(seed, "access")
    classes = [names[draw.pick(weights)] for _ in range(nodes)]
    return list(classes), [ACCESS_LINKS[name] for name in classes]
