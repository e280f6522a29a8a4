"""Drives the peer book: dials whom it wants, exchanges records, lets foreigners go.

The decisions are `router.peering`'s; this file has the clock and the network.
"""

import random
from collections.abc import Callable
from typing import Final

import structlog
import trio

from peer.libp2p_adapter.addresses import parse_address, peer_id
from peer.libp2p_adapter.links import Links
from peer.libp2p_adapter.pubsub import TopicPubsub
from peer.libp2p_adapter.session import Session
from peer.libp2p_adapter.streams import Streams
from protocol import crypto, framing, limits
from protocol.envelope import sign_envelope
from protocol.errors import NetworkError, RemoteError
from protocol.messages import PeerRecord
from protocol.units import NS_PER_S
from router.peering import PeerBook, Target

log = structlog.get_logger()

# How often the book is asked whom to dial.
_TICK_S: Final = 0.5
_EXCHANGE_TIMEOUT_S: Final = limits.DIAL_TIMEOUT_NS / NS_PER_S
_SUBSCRIBE_TIMEOUT_S: Final = limits.SUBSCRIBE_TIMEOUT_NS / NS_PER_S


class Exchange:
    """Keeps the node connected. `addresses` tells where it can be dialled at present."""

    def __init__(
        self,
        book: PeerBook,
        links: Links,
        streams: Streams,
        pubsub: TopicPubsub,
        *,
        network: str,
        signer: crypto.Signer,
        addresses: Callable[[], tuple[str, ...]],
        connections_max: int,
        now_ns: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._book = book
        self._links = links
        self._streams = streams
        self._pubsub = pubsub
        self._network = network
        self._signer = signer
        self._addresses = addresses
        self._connections_max = connections_max
        self._now_ns = now_ns
        self._rng = rng
        self._dialling: dict[bytes, None] = {}
        self._signed: tuple[tuple[str, ...], int] = ((), 0)
        streams.serve("peers", self._answer)

    def add_bootstrap(self, texts: tuple[str, ...]) -> None:
        """Addresses from configuration, each with /p2p/ID. NetworkError `network.bad_address`."""
        by_peer: dict[bytes, list[str]] = {}
        for text in texts:
            address = parse_address(text)
            if not address.peer:
                raise NetworkError("network.bad_address", f"{text!r} does not end in /p2p/ID")
            by_peer.setdefault(address.peer, []).append(text)
        for peer, addresses in by_peer.items():
            self._book.add_bootstrap(peer, tuple(addresses[: limits.ADDRESSES_MAX]))

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_connected, nursery)
            nursery.start_soon(self._keep_exchanging)
            nursery.start_soon(self._watch, nursery)

    # --- connections ----------------------------------------------------------------------

    async def _keep_connected(self, nursery: trio.Nursery) -> None:
        while True:
            connected = self._links.peers
            for peer in self._book.surplus(connected, self._connections_max):
                if not self._streams.has_session(peer):
                    self._links.disconnect(peer)
            targets = self._book.to_dial(connected, self._dialling, self._now_ns(), self._rng)
            for target in targets[: limits.DIALS_MAX - len(self._dialling)]:
                self._dialling[target.peer] = None
                nursery.start_soon(self._dial, target)
            await trio.sleep(_TICK_S)

    async def _dial(self, target: Target) -> None:
        reached = False
        try:
            await self._links.dial(target.peer, target.addresses)
            reached = True
        except NetworkError as error:
            log.debug("peer.unreachable", peer=target.peer.hex()[:16], detail=error.detail)
        finally:
            self._dialling.pop(target.peer, None)
            self._book.dialled(target.peer, reached, self._now_ns(), self._rng)

    async def _watch(self, nursery: trio.Nursery) -> None:
        """Start a check of each peer that connects."""
        watched: set[bytes] = set()
        while True:
            changed = self._links.changed
            connected = set(self._links.peers)
            watched &= connected
            for peer in self._links.peers:
                if peer not in watched:
                    watched.add(peer)
                    nursery.start_soon(self._check_subscribed, peer)
            await changed.wait()

    async def _check_subscribed(self, peer: bytes) -> None:
        """Let a peer go that is not on our network: it speaks libp2p, but not to us."""
        with trio.move_on_after(_SUBSCRIBE_TIMEOUT_S):
            while self._links.connected_to(peer):
                if self._pubsub.has_joined(peer_id(peer)):
                    return
                await self._pubsub.wait_changed()
        if self._links.connected_to(peer):
            log.info("peer.foreign", peer=peer.hex()[:16])
            self._links.penalize(peer, limits.RECONNECT_NS_MAX)

    # --- records --------------------------------------------------------------------------

    async def _keep_exchanging(self) -> None:
        """Ask one peer after the other: often while peers are missing, else now and then."""
        while True:
            joined = [p for p in self._links.peers if self._pubsub.has_joined(peer_id(p))]
            if not joined:
                await self._pubsub.wait_changed()
                continue
            await self._ask(self._rng.choice(joined))
            enough = self._book.satisfied(self._links.peers)
            pause_ns = limits.PEER_EXCHANGE_NS_MAX if enough else limits.PEER_EXCHANGE_NS_MIN
            await trio.sleep(pause_ns / NS_PER_S * self._rng.uniform(0.5, 1.0))

    async def _ask(self, peer: bytes) -> None:
        """Send our list, take theirs."""
        try:
            session = await self._streams.open(peer, "peers")
        except NetworkError:
            return  # it left, or is on another network: both are noticed elsewhere
        try:
            with trio.move_on_after(_EXCHANGE_TIMEOUT_S):
                session.send_nowait(framing.frame(self._list_for(peer)))
                await self._take_from(session)
        except NetworkError:
            return
        finally:
            session.close_nowait()

    async def _answer(self, session: Session) -> None:
        """Take an asker's list, send ours."""
        try:
            with trio.move_on_after(_EXCHANGE_TIMEOUT_S):
                if await self._take_from(session):
                    session.send_nowait(framing.frame(self._list_for(session.peer)))
                    await session.aclose()
        except NetworkError:
            return
        finally:
            session.close_nowait()

    async def _take_from(self, session: Session) -> bool:
        """Read one PeerList into the book; False when none came or it was bad."""
        reader = framing.FrameReader(limits.PEER_LIST_BYTES_MAX)
        try:
            while data := await session.receive():
                for body in reader.feed(data)[:1]:
                    self._book.take_list(body, self._now_ns(), self._rng)
                    return True
        except RemoteError as error:
            log.info("peers.bad_list", peer=session.peer.hex()[:16], code=error.code)
            if error.penalize:
                self._links.penalize(session.peer, limits.PENALTY_NS)
        return False

    def _list_for(self, peer: bytes) -> bytes:
        self._sign_own()
        return self._book.list_for(peer, self._now_ns(), self._rng)

    def _sign_own(self) -> None:
        """Sign our record anew when the addresses changed or it is a quarter of its life old."""
        addresses = tuple(a for a in self._addresses() if len(a) <= limits.ADDRESS_CHARS_MAX)
        now_ns = self._now_ns()
        known, signed_at_ns = self._signed
        if addresses != known or now_ns - signed_at_ns > limits.PEER_RECORD_RENEW_NS:
            record = PeerRecord(addresses=addresses[: limits.ADDRESSES_MAX])
            self._book.set_own_record(sign_envelope(self._signer, self._network, record, now_ns))
            self._signed = (addresses, now_ns)
