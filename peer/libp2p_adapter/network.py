"""The node's network: gossip, sessions, bids and peers behind one class.

The daemon's only door to libp2p. Must not know what messages mean, save for peer records.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service

from peer.libp2p_adapter import hardening
from peer.libp2p_adapter.addresses import (
    expand_unspecified,
    machine_hosts,
    parse_address,
    public_key_of,
)
from peer.libp2p_adapter.exchange import Exchange
from peer.libp2p_adapter.host import create_host
from peer.libp2p_adapter.links import Links
from peer.libp2p_adapter.pubsub import TopicPubsub
from peer.libp2p_adapter.router import TopicRouter
from peer.libp2p_adapter.session import Session
from peer.libp2p_adapter.streams import Streams, bid_reader
from protocol import crypto, limits
from protocol.errors import LocalError, NetworkError
from router.peering import PeerBook

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()

_SHUTDOWN_S: Final = 3.0
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Where to listen and whom to know. Addresses are multiaddrs: /ip4/HOST/tcp/PORT.

    `announce` replaces the listen addresses in what others are told; `bootstrap` addresses
    end in /p2p/ID.
    """

    network: str
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    announce: tuple[str, ...] = ()
    bootstrap: tuple[str, ...] = ()
    peers_wanted: int = limits.PEERS_WANTED
    connections_max: int = limits.CONNECTIONS_MAX


class Network:
    """One node's libp2p. All callbacks are called from the event loop and must not block.

    `validate(data, forwarder)` is called once for each new gossip message, our own included
    (forwarder b""), and says whether it is passed on. `on_session`: a peer opened a job
    stream. `on_bid(peer, data)`: one bid came. `on_peer(peer, connected)`. An exception of a
    callback ends `run` with it. `rng` chooses peers. `standing` are gossip messages that a peer
    which joins the topic should have.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        signer: crypto.Signer,
        *,
        validate: Callable[[bytes, bytes], bool],
        on_session: Callable[[Session], None],
        on_bid: Callable[[bytes, bytes], None],
        on_peer: Callable[[bytes, bool], None],
        now_ns: Callable[[], int],
        rng: random.Random,
        standing: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        hardening.apply()
        self.settings: Final = settings
        self.public_key: Final = signer.public_key
        self._validate = validate
        self._on_session = on_session
        self._on_bid = on_bid
        self._on_peer = on_peer
        self._hosts: tuple[str, ...] = ()
        self._failure: Exception | None = None
        self._stop = trio.Event()
        self._listen = [parse_address(text) for text in settings.listen]
        self._announce = [parse_address(text) for text in settings.announce]
        self._host = create_host(signer, settings.connections_max)
        self.peer_id: Final = str(self._host.get_id())
        topic = f"/peerd/{settings.network}/requests/1"
        self._topic = topic
        self._router = TopicRouter(topic, rng, lambda: self._call(standing) or ())
        self._pubsub = TopicPubsub(self._host, self._router, topic, self._judge)
        self._links = Links(self._host, self._peer_changed, now_ns)
        self._streams = Streams(self._host, settings.network)
        self._exchange = Exchange(
            PeerBook(settings.network, signer.public_key, peers_wanted=settings.peers_wanted),
            self._links,
            self._streams,
            self._pubsub,
            network=settings.network,
            signer=signer,
            addresses=lambda: self.addresses,
            connections_max=settings.connections_max,
            now_ns=now_ns,
            rng=rng,
        )
        self._exchange.add_bootstrap(settings.bootstrap)
        self._streams.serve("job", self._serve_session)
        self._streams.serve("bid", bid_reader(self._bid_came))

    # --- callbacks ------------------------------------------------------------------------

    def _call(self, callback: Callable[..., R], *args: Any) -> R | None:
        """Call the application; what it raises must not vanish among strangers' errors."""
        try:
            return callback(*args)
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            self._failure = self._failure or error
            self._stop.set()
            return None

    def _judge(self, data: bytes, forwarder: ID) -> bool:
        peer = public_key_of(forwarder)
        return bool(self._call(self._validate, data, b"" if peer == self.public_key else peer))

    def _peer_changed(self, peer: bytes, connected: bool) -> None:
        if not connected:
            self._streams.forget(peer)
        self._call(self._on_peer, peer, connected)

    def _bid_came(self, peer: bytes, data: bytes) -> None:
        self._call(self._on_bid, peer, data)

    async def _serve_session(self, session: Session) -> None:
        self._call(self._on_session, session)

    # --- running --------------------------------------------------------------------------

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, gossip and serve until cancelled.

        Raises NetworkError `network.listen`, or what a callback raised.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_shielded, task_status)
            try:
                await self._stop.wait()
            finally:
                self._stop.set()
        if self._failure is not None:
            raise self._failure

    async def _run_shielded(self, task_status: "TaskStatus[None]") -> None:
        """Run libp2p out of reach of cancellation, which would leave sockets listening: its
        shutdown awaits. `_stop` ends it instead, within _SHUTDOWN_S."""
        with trio.CancelScope(shield=True) as scope:
            # The order matters: an inbound gossip stream before pubsub runs ends the host.
            async with (
                background_trio_service(self._pubsub),
                background_trio_service(self._router),
            ):
                await self._pubsub.subscribe(self._topic)
                async with self._host.run([a.multiaddr for a in self._listen]):
                    await self._serve(task_status)
                    scope.deadline = trio.current_time() + _SHUTDOWN_S
                    await self._links.close_all()

    async def _serve(self, task_status: "TaskStatus[None]") -> None:
        listening = self._host.get_network().listeners
        for address in self._listen:
            if address.text not in listening:
                self._failure = NetworkError("network.listen", address.text)
                self._stop.set()
                return
        self._hosts = machine_hosts()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._links.run)
            nursery.start_soon(self._streams.run)
            nursery.start_soon(self._exchange.run)
            task_status.started()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    # --- what the daemon asks for ---------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, each with /p2p/ID; empty before `run` listens."""
        if self._announce:
            plain = [address.text for address in self._announce]
        else:
            listening = [str(address) for address in self._host.get_transport_addrs()]
            plain = [text for one in listening for text in expand_unspecified(one, self._hosts)]
        return tuple(f"{text}/p2p/{self.peer_id}" for text in plain[: limits.ADDRESSES_MAX])

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Keys of the connected peers."""
        return self._links.peers

    def topic_peers(self) -> int:
        """How many peers are subscribed to the network's topic and can be written to."""
        return int(self._pubsub.joined())

    @property
    def duplicates(self) -> int:
        """Copies of gossip messages that came after the first."""
        return int(self._pubsub.duplicates)

    async def wait_topic_peers(self, count: int) -> None:
        """Until `topic_peers()` is at least `count`."""
        while self.topic_peers() < count:
            await self._pubsub.wait_changed()

    async def publish(self, data: bytes) -> None:
        """Publish a gossip message, after `validate(data, b"")` said yes.

        LocalError `wire.unencodable` over GOSSIP_BYTES_MAX; NetworkError
        `network.unreachable` when nobody is subscribed.
        """
        if not 0 < len(data) <= limits.GOSSIP_BYTES_MAX:
            raise LocalError("wire.unencodable", f"gossip of {len(data)} bytes")
        if not self.topic_peers():
            raise NetworkError("network.unreachable", "no peer is subscribed")
        await self._pubsub.publish(self._topic, data)

    async def open_session(self, peer: bytes, addresses: tuple[str, ...]) -> Session:
        """A job stream to `peer`, dialled at `addresses` unless it is connected.

        NetworkError `network.unreachable`, at the latest after twice DIAL_TIMEOUT.
        """
        await self._links.dial(peer, addresses)
        return await self._streams.open(peer, "job")

    async def send_bid(self, peer: bytes, addresses: tuple[str, ...], data: bytes) -> None:
        """One bid to `peer`, written out. Errors as `open_session`, and `session.closed`."""
        await self._links.dial(peer, addresses)
        await self._streams.send_bid(peer, data)

    async def dial(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        """Be connected to `peer`. NetworkError `network.unreachable`."""
        await self._links.dial(peer, addresses)

    def disconnect(self, peer: bytes) -> None:
        """Close the connections to `peer`; it may come back."""
        self._links.disconnect(peer)

    def penalize(self, peer: bytes, duration_ns: int = limits.PENALTY_NS) -> None:
        """Disconnect `peer` and refuse it for a time."""
        self._links.penalize(peer, duration_ns)
