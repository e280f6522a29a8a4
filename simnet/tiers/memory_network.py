"""A daemon's network in memory: the links, streams and gossip of the simulation beneath it.

Stands where libp2p stands (`peer.surroundings.AnyNetwork`); what it carries takes as long, and
breaks, as in the event-heap tier.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from protocol import limits
from protocol.errors import NetworkError
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import SessionKey
from simnet.tiers.life import Life

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from simnet.tiers.shell import ShellSimulation


class MemoryStream:
    """One end of a job stream; each piece is received as it was sent."""

    def __init__(self, network: "MemoryNetwork", key: SessionKey) -> None:
        self.peer = key.peer
        self._network, self._key = network, key
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._news = trio.Event()

    def came(self, data: bytes) -> None:
        """A piece arrived; b"" is the end."""
        self._pieces.append(data)
        self._ended = self._ended or not data
        self._news.set()

    def send_nowait(self, data: bytes) -> None:
        """As in `Stream`. NetworkError `session.closed`."""
        if self._ended:
            raise NetworkError("session.closed")
        self._network.send(self._key, data)

    async def receive(self) -> bytes:
        """As in `Stream`."""
        while not self._pieces:
            self._news = trio.Event()
            await self._news.wait()
        return self._pieces.popleft()

    async def aclose(self) -> None:
        """As in `Stream`: what was sent is on its way already."""
        await trio.lowlevel.checkpoint()
        self.close_nowait()

    def close_nowait(self) -> None:
        """As in `Stream`."""
        if not self._ended:
            self._network.hang_up(self._key, self)
            self.came(b"")


class MemoryNetwork:
    """One node's. `validate`, `on_session` and `on_bid` are as in libp2p's."""

    def __init__(
        self,
        world: "ShellSimulation",
        life: Life,
        validate: Callable[[bytes, bytes], bool],
        on_session: Callable[[MemoryStream], None],
        on_bid: Callable[[bytes, bytes], None],
    ) -> None:
        self._world, self._life, self._peer = world, life, life.peer
        self._validate, self._on_session, self._on_bid = validate, on_session, on_bid
        self._streams: dict[SessionKey, MemoryStream] = {}
        self._dials: dict[SessionKey, trio.Event] = {}

    # --- what the daemon asks for -----------------------------------------------------------

    @property
    def peer_id(self) -> str:
        """A name."""
        return f"node {self._peer.index}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """One."""
        return (self._peer.address,)

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Its neighbours."""
        neighbours = self._world.gossip.neighbours[self._peer.index]
        return tuple(self._world.peers[other].signer.public_key for other in neighbours)

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """There is nothing to do."""
        task_status.started()
        await trio.sleep_forever()

    def topic_peers(self) -> int:
        """Its neighbours, too."""
        return len(self._world.gossip.neighbours[self._peer.index])

    async def wait_topic_peers(self, count: int) -> None:
        """They are there from the start."""

    async def publish(self, data: bytes) -> None:
        """To the model of gossip, if our own admission lets it out."""
        # As dials and bids do: what one moment brings leaves in the order of the node's actions.
        await trio.lowlevel.checkpoint()
        if not self._life.over and self._validate(data, b""):
            self._world.published_by(self._peer, data)

    async def open_session(self, peer: bytes, addresses: tuple[str, ...]) -> MemoryStream:
        """Dial. NetworkError `network.unreachable`."""
        key = SessionKey(peer, outbound=True)
        if key in self._dials:
            self._dials.pop(key).set()  # the newer dial's stream is the one that will be
        dialled = self._dials[key] = trio.Event()
        self._streams.pop(key, None)
        self._world.streams.open(self._peer, key)
        await dialled.wait()
        if key in self._dials or key not in self._streams:
            raise NetworkError("network.unreachable", self._world.name_of(peer))
        return self._streams[key]

    async def send_bid(self, peer: bytes, addresses: tuple[str, ...], data: bytes) -> None:
        """One bid. NetworkError `network.unreachable`."""
        if not self._world.carry_bid(self._peer, peer, data):
            await trio.sleep(limits.DIAL_TIMEOUT_NS / NS_PER_S)
            raise NetworkError("network.unreachable", self._world.name_of(peer))

    def penalize(self, peer: bytes) -> None:
        """Keep away from a peer."""
        offender = self._world.number_of(peer)
        self._world.keep_away(self._peer, offender, "")

    # --- what its streams ask for -------------------------------------------------------------

    def send(self, key: SessionKey, data: bytes) -> None:
        """Bytes for the other end."""
        self._world.streams.send(self._peer, key, data)

    def hang_up(self, key: SessionKey, stream: MemoryStream) -> None:
        """A stream is over, unless a newer one of the same key took its place."""
        if self._streams.get(key) is stream and not self._life.over:
            del self._streams[key]
            self._world.streams.hang_up(self._peer, key)

    # --- what comes out of the simulation -----------------------------------------------------

    def came(self, item: act.Input) -> None:
        """Something for this node has arrived."""
        match item:
            case act.SessionData():
                if item.session in self._streams:
                    self._streams[item.session].came(item.data)
            case act.SessionOpened():
                self._opened(item.session)
            case act.SessionClosed():
                if item.session in self._dials:
                    self._dials.pop(item.session).set()
                elif item.session in self._streams:
                    self._streams.pop(item.session).came(b"")
            case act.BidReceived():
                self._on_bid(item.peer, item.data)
            case _:
                raise AssertionError(item)

    def _opened(self, key: SessionKey) -> None:
        stream = self._streams[key] = MemoryStream(self, key)
        if not key.outbound:
            self._on_session(stream)
        elif key in self._dials:
            self._dials.pop(key).set()
