"""Job streams between peers: ordered, broken as a whole, and never half open.

Each stream has a serial number; whatever belongs to one that broke, bytes or its end, is lost
and can't reach the next stream between the same peers. Must not know what the bytes mean.
"""

from collections.abc import Callable
from typing import Protocol

from protocol import limits
from router import actions as act
from router.actions import Input, SessionKey
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.peer import Peer, WorldSettings

Link = tuple[int, int]

DIAL_BYTES = 1_500  # the handshakes of a new connection, roughly


class Wire(Protocol):
    """What carries bytes between two peers."""

    def delay_ns(self, source: Peer, target: Peer, length: int) -> int:
        """From now until `length` bytes of a stream have arrived."""
        ...

    def dial_ns(self, source: Peer, target: Peer) -> tuple[int, int]:
        """From now until a new stream is up at `target`, and at `source`."""
        ...

    def reachable(self, source: Peer, target: Peer) -> bool:
        """Whether `source` could dial `target` now."""
        ...


class Latency:
    """Delays drawn evenly from the world's range, in ns."""

    def __init__(self, settings: WorldSettings, entropy: Entropy) -> None:
        self._min_ns = settings.latency_ns_min
        self._span_ns = settings.latency_ns_max - settings.latency_ns_min
        self._entropy = entropy

    def next_ns(self) -> int:
        """One more delay; no draw when the range is empty."""
        return self._min_ns + (self._entropy.below(self._span_ns) if self._span_ns else 0)

    def delay_ns(self, source: Peer, target: Peer, length: int) -> int:
        """As in `Wire`: one delay."""
        return self.next_ns()

    def dial_ns(self, source: Peer, target: Peer) -> tuple[int, int]:
        """As in `Wire`: one delay there, two for the answer."""
        return self.next_ns(), 2 * self.next_ns()

    def reachable(self, source: Peer, target: Peer) -> bool:
        """As in `Wire`: whoever lives."""
        return target.alive


class Streams:
    """All streams of a world, by (payer, payee)."""

    def __init__(
        self,
        clock: EventHeap,
        peers: list[Peer],
        by_key: dict[bytes, Peer],
        give: Callable[[Peer, Input], None],
        wire: Wire,
    ) -> None:
        self._clock = clock
        self._peers = peers
        self._by_key = by_key
        self._give = give
        self._wire = wire
        self._serial = 0
        self._serials: dict[Link, int] = {}  # the newest stream of a pair, unless it broke
        self._arrived_ns: dict[Link, int] = {}
        self._answered_ns: dict[Link, int] = {}  # when the newest dial of a pair is over
        self._links: dict[int, dict[Link, None]] = {}  # peer -> its streams

    def _link(self, peer: Peer, session: SessionKey) -> tuple[Peer, Link]:
        target = self._by_key[session.peer]
        ends = (peer.index, target.index)
        return target, ends if session.outbound else (ends[1], ends[0])

    def _arrival_ns(self, source: Peer, target: Peer, delay_ns: int) -> int:
        """Streams keep their order: nothing arrives before what was sent earlier."""
        direction = (source.index, target.index)
        now_ns = self._clock.now_ns + delay_ns
        self._arrived_ns[direction] = max(now_ns, self._arrived_ns.get(direction, 0))
        return self._arrived_ns[direction]

    def open(self, peer: Peer, session: SessionKey) -> None:
        """Dial: SessionOpened at both ends, or SessionClosed at `peer`."""
        target = self._by_key.get(session.peer)
        if target is None or not self._wire.reachable(peer, target):
            closed = act.SessionClosed(session, "provider.unreachable")
            self._clock.after(
                limits.DIAL_TIMEOUT_NS, self._if_same, peer, peer.incarnation, closed
            )
            return
        self._serial += 1
        link = (peer.index, target.index)
        self._serials[link] = self._serial
        for end in link:
            self._links.setdefault(end, {})[link] = None
        inbound = SessionKey(peer.signer.public_key, outbound=False)
        accepted_delay_ns, answered_delay_ns = self._wire.dial_ns(peer, target)
        accepted_ns = self._arrival_ns(peer, target, accepted_delay_ns)
        answered_ns = max(accepted_ns, self._clock.now_ns + answered_delay_ns)
        self._answered_ns[link] = answered_ns
        opened = act.SessionOpened
        self._arrive(accepted_ns, link, target, opened(inbound))
        self._arrive(answered_ns, link, peer, opened(session))

    def _if_same(self, peer: Peer, incarnation: int, item: Input) -> None:
        if peer.incarnation == incarnation:
            self._give(peer, item)

    def _arrive(self, at_ns: int, link: Link, end: Peer, item: Input) -> None:
        serial = self._serials[link]
        self._clock.at(at_ns, self._if_up, link, serial, end, end.incarnation, item)

    def _if_up(self, link: Link, serial: int, end: Peer, incarnation: int, item: Input) -> None:
        # A node that restarted meanwhile hears nothing of the streams that it had.
        if self._serials.get(link) == serial and end.incarnation == incarnation:
            self._give(end, item)

    def send(self, peer: Peer, session: SessionKey, data: bytes) -> None:
        """Bytes for the other end; lost when the stream breaks before they arrive."""
        target, link = self._link(peer, session)
        if link not in self._serials:
            return
        received = act.SessionData(SessionKey(peer.signer.public_key, not session.outbound), data)
        delay_ns = self._wire.delay_ns(peer, target, len(data))
        arrival_ns = self._arrival_ns(peer, target, delay_ns)
        self._arrive(arrival_ns, link, target, received)

    def hang_up(self, peer: Peer, session: SessionKey) -> None:
        """`peer` closed its end; the other notices behind what was sent before."""
        target, link = self._link(peer, session)
        delay_ns = self._wire.delay_ns(peer, target, 0)
        self._end_later(link, target, self._arrival_ns(peer, target, delay_ns))

    def _end_later(self, link: Link, end: Peer, at_ns: int) -> None:
        serial = self._serials.get(link)
        if serial is not None:
            self._clock.at(at_ns, self._ended, link, serial, end)

    def _ended(self, link: Link, serial: int, end: Peer) -> None:
        if self._serials.get(link) == serial:
            self._forget(link)
            self._give(end, self._closed(link, end))

    def _forget(self, link: Link) -> None:
        del self._serials[link]
        for end in link:
            self._links[end].pop(link, None)

    def _closed(self, link: Link, end: Peer) -> Input:
        outbound = end.index == link[0]
        other = self._peers[link[1] if outbound else link[0]].signer.public_key
        dialling = outbound and self._clock.now_ns < self._answered_ns[link]
        code = "provider.unreachable" if dialling else "session.closed"
        return act.SessionClosed(SessionKey(other, outbound), code)

    def pairs(self) -> list[Link]:
        """The streams that are up, as (payer, payee), oldest first."""
        return list(self._serials)

    def cut(self, one: Peer, other: Peer) -> None:
        """Both streams between two peers break; both ends notice at once."""
        for link in ((one.index, other.index), (other.index, one.index)):
            if link in self._serials:
                self._forget(link)
                for end in (one, other):
                    self._give(end, self._closed(link, end))

    def died(self, peer: Peer) -> None:
        """A peer is gone: the other ends of its streams notice a little later."""
        for link in list(self._links.get(peer.index, {})):
            end = self._peers[link[1] if link[0] == peer.index else link[0]]
            delay_ns = self._wire.delay_ns(peer, end, 0)
            self._end_later(link, end, self._clock.now_ns + delay_ns)
