"""A group of requesters: each of its requests comes to one of them when its time has come."""

from collections.abc import Callable
from typing import Final

from protocol.units import NS_PER_S
from router import events
from router.actions import GiveFeedback, Input
from simnet.clock import EventHeap
from simnet.entropy import Entropy
from simnet.market.people import Market
from simnet.market.workload import Arrival, Asking
from simnet.peer import Peer

BAD: Final = 2
READ_NS: Final = 5 * NS_PER_S  # from the end of an answer to its reader's word


class Crowd:
    """One group; one request ahead is on the clock, however many will come."""

    def __init__(
        self,
        clock: EventHeap,
        market: Market,
        give: Callable[[Peer, Input], None],
        asking: Asking,
        members: list[Peer],
        seed: int,
    ) -> None:
        self._clock, self._market, self._give = clock, market, give
        self._asking, self._members = asking, members
        self._draw = Entropy(seed, f"askers {asking.group.name}")
        self._pending = asking.arrivals()
        self._start_ns = 0
        self._readings = Entropy(seed, f"readers {asking.group.name}")
        if asking.group.notices_permille:
            market.readers[asking.group.name] = self._read

    def begin(self, start_ns: int) -> "Crowd":
        """The first request comes no sooner than `start_ns`."""
        self._start_ns = start_ns
        self._await()
        return self

    def rush(self, requests: int) -> None:
        """So many requests now, besides those that come anyway."""
        for _ in range(requests):
            self._ask(Arrival(self._clock.now_ns - self._start_ns))

    def _await(self) -> None:
        following = next(self._pending, None)
        if following is not None:
            self._clock.at(self._start_ns + following.at_ns, self._come, following)

    def _come(self, arrival: Arrival) -> None:
        self._await()
        self._ask(arrival)

    def _read(self, peer: Peer, receipt_id: bytes, made: bool) -> None:
        """An answer is there; one that no machine made is seen for what it is, or not."""
        if not made and self._readings.below(1_000) < self._asking.group.notices_permille:
            bad = GiveFeedback(receipt_id, BAD)
            self._clock.after(READ_NS, self._say, peer, bad)

    def _say(self, peer: Peer, feedback: GiveFeedback) -> None:
        if peer.alive:
            self._give(peer, feedback)

    def _ask(self, arrival: Arrival) -> None:
        peer = self._members[self._draw.below(len(self._members))]
        now_ns = self._clock.now_ns
        ask = self._market.ask(peer, self._asking, arrival, now_ns)
        if ask is None:
            return
        if peer.alive:
            self._give(peer, ask)
        else:
            down = events.Failed("request.cancelled", "the node is down", 0, 0)
            self._market.told(peer, ask.ask_id, down, now_ns)
