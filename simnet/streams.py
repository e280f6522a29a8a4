"""Job streams between peers: ordered, broken as a whole, and never half open.

Each stream has a serial number; whatever belongs to one that broke, bytes or its end, is lost
and can't reach the next stream between the same peers. Must not know what the bytes mean.
"""

from collections.abc import Callable

from protocol import limits
from router import actions as act
from router.actions import Input, SessionKey
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.peer import Peer, WorldSettings

Link = tuple[int, int]


class Latency:
    """Delays drawn evenly from the world's range, in ns."""

    def __init__(self, settings: WorldSettings, entropy: Entropy) -> None:
        self._min_ns = settings.latency_ns_min
        self._span_ns = settings.latency_ns_max - settings.latency_ns_min
        self._entropy = entropy

    def next_ns(self) -> int:
        """One more delay; no draw when the range is empty."""
        return self._min_ns + (self._entropy.below(self._span_ns) if self._span_ns else 0)


class Streams:
    """All streams of a world, by (payer, payee)."""

    def __init__(
        self,
        clock: EventHeap,
        by_key: dict[bytes, Peer],
        give: Callable[[Peer, Input], None],
        latency: Latency,
    ) -> None:
        self._clock = clock
        self._by_key = by_key
        self._give = give
        self._latency = latency
        self._serial = 0
        self._serials: dict[Link, int] = {}  # the newest stream of a pair, unless it broke
        self._arrived_ns: dict[Link, int] = {}

    def _link(self, peer: Peer, session: SessionKey) -> tuple[Peer, Link]:
        target = self._by_key[session.peer]
        ends = (peer.index, target.index)
        return target, ends if session.outbound else (ends[1], ends[0])

    def _arrival_ns(self, source: Peer, target: Peer) -> int:
        """Streams keep their order: nothing arrives before what was sent earlier."""
        direction = (source.index, target.index)
        now_ns = self._clock.now_ns + self._latency.next_ns()
        self._arrived_ns[direction] = max(now_ns, self._arrived_ns.get(direction, 0))
        return self._arrived_ns[direction]

    def open(self, peer: Peer, session: SessionKey) -> None:
        """Dial: SessionOpened at both ends, or SessionClosed at `peer`."""
        target = self._by_key.get(session.peer)
        incarnation = peer.incarnation
        if target is None or not target.alive:
            closed = act.SessionClosed(session, "provider.unreachable")
            self._clock.after(
                limits.DIAL_TIMEOUT_NS, lambda: self._if_same(peer, incarnation, closed)
            )
            return
        self._serial += 1
        serial, link = self._serial, (peer.index, target.index)
        self._serials[link] = serial
        inbound = SessionKey(peer.signer.public_key, outbound=False)

        def opened(end: Peer, name: SessionKey) -> None:
            if self._serials.get(link) == serial:
                self._give(end, act.SessionOpened(name))

        accepted_ns = self._arrival_ns(peer, target)
        answered_ns = max(accepted_ns, self._clock.now_ns + 2 * self._latency.next_ns())
        self._clock.at(accepted_ns, lambda: opened(target, inbound))
        self._clock.at(answered_ns, lambda: opened(peer, session))

    def _if_same(self, peer: Peer, incarnation: int, item: Input) -> None:
        if peer.incarnation == incarnation:
            self._give(peer, item)

    def send(self, peer: Peer, session: SessionKey, data: bytes) -> None:
        """Bytes for the other end; lost when the stream breaks before they arrive."""
        target, link = self._link(peer, session)
        serial = self._serials.get(link)
        if serial is None:
            return
        received = act.SessionData(SessionKey(peer.signer.public_key, not session.outbound), data)

        def arrive() -> None:
            if self._serials.get(link) == serial:
                self._give(target, received)

        self._clock.at(self._arrival_ns(peer, target), arrive)

    def hang_up(self, peer: Peer, session: SessionKey) -> None:
        """`peer` closed its end; the other notices behind what was sent before."""
        target, link = self._link(peer, session)
        self._end_later(link, target, self._arrival_ns(peer, target))

    def _end_later(self, link: Link, end: Peer, at_ns: int) -> None:
        serial = self._serials.get(link)
        if serial is None:
            return

        def ended() -> None:
            if self._serials.get(link) == serial:
                del self._serials[link]
                self._give(end, self._closed(link, end))

        self._clock.at(at_ns, ended)

    def _closed(self, link: Link, end: Peer) -> Input:
        keys = {peer.index: key for key, peer in self._by_key.items() if peer.index in link}
        other = link[1] if end.index == link[0] else link[0]
        return act.SessionClosed(SessionKey(keys[other], end.index == link[0]), "session.closed")

    def cut(self, one: Peer, other: Peer) -> None:
        """Both streams between two peers break; both ends notice at once."""
        for link in ((one.index, other.index), (other.index, one.index)):
            if self._serials.pop(link, None) is not None:
                for end in (one, other):
                    self._give(end, self._closed(link, end))

    def died(self, peer: Peer) -> None:
        """A peer is gone: the other ends of its streams notice a little later."""
        ends = {other.index: other for other in self._by_key.values()}
        for link in [link for link in self._serials if peer.index in link]:
            end = ends[link[1] if link[0] == peer.index else link[0]]
            self._end_later(link, end, self._clock.now_ns + self._latency.next_ns())
