"""Connections: who is connected, dialling, penalties, and one connection a peer.

Must not know gossip's messages, sessions or the peer book.
"""

from collections.abc import Callable
from typing import Any

import structlog
import trio
from libp2p.abc import INotifee
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID

from peer.libp2p_adapter.addresses import Address, parse_dialable, peer_id, public_key_of
from peer.libp2p_adapter.host import DIAL_TIMEOUT_S, NodeHost
from protocol import limits
from protocol.errors import NetworkError

log = structlog.get_logger()

_CLOSE_TIMEOUT_S = 2.0


class Links(INotifee):  # type: ignore[misc]
    """What connections there are. `on_peer` is told of a peer's first and last one."""

    def __init__(
        self, host: NodeHost, on_peer: Callable[[bytes, bool], None], now_ns: Callable[[], int]
    ) -> None:
        self._host = host
        self._swarm = host.get_network()
        self._on_peer = on_peer
        self._now_ns = now_ns
        self._own_key = public_key_of(host.get_id())
        self._peers: dict[bytes, None] = {}
        self._dials: dict[bytes, trio.Lock] = {}
        self._penalized: dict[bytes, int] = {}
        self._nursery: trio.Nursery | None = None
        self.changed = trio.Event()
        self._swarm.register_notifee(self)

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Keys of the connected peers, oldest first."""
        return tuple(self._peers)

    def connected_to(self, peer: bytes) -> bool:
        """Whether there is a connection to `peer`."""
        return peer in self._peers

    async def run(self) -> None:
        """Own the tasks that close connections; until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # `close_all` closes what is left

    # --- dialling -------------------------------------------------------------------------

    async def dial(self, peer: bytes, texts: tuple[str, ...]) -> None:
        """Be connected to `peer`: try its addresses in order, DIAL_TIMEOUT in all.

        The remote proves that it holds `peer`'s key (Noise), or it is not connected.
        NetworkError `network.unreachable`.
        """
        if self.connected_to(peer):
            return
        if peer == self._own_key:
            raise NetworkError("network.unreachable", "that is this node itself")
        if self.is_penalized(peer):
            raise NetworkError("network.unreachable", "the peer is penalised")
        lock = self._dials.setdefault(peer, trio.Lock())
        try:
            async with lock:
                if not self.connected_to(peer):
                    await self._dial(peer, parse_dialable(texts, peer))
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._dials.pop(peer, None)

    async def _dial(self, peer: bytes, found: list[Address]) -> None:
        reason = "no usable address"
        with trio.move_on_after(DIAL_TIMEOUT_S) as scope:
            for address in found:
                try:
                    await self._swarm.dial_addr(address.multiaddr, peer_id(peer))
                    return
                except SwarmException as error:
                    reason = f"{address.text}: {error.__cause__ or error}"
                except Exception as error:  # noqa: BLE001 - resolver and handshakes raise anything
                    reason = f"{address.text}: {type(error).__name__}"
        if scope.cancelled_caught:
            reason = "no answer in time"
        raise NetworkError("network.unreachable", " ".join(reason.split())[:200])

    # --- penalties ------------------------------------------------------------------------

    def penalize(self, peer: bytes, duration_ns: int) -> None:
        """Disconnect `peer` and refuse it for a time."""
        until_ns = self._now_ns() + duration_ns
        self._penalized.pop(peer, None)
        if len(self._penalized) >= limits.PENALIZED_PEERS_MAX:
            del self._penalized[next(iter(self._penalized))]
        self._penalized[peer] = until_ns
        log.info("peer.penalized", peer=peer.hex()[:16], seconds=duration_ns // 10**9)
        self.disconnect(peer)

    def is_penalized(self, peer: bytes) -> bool:
        """Whether `peer` is refused at present."""
        until_ns = self._penalized.get(peer)
        if until_ns is None:
            return False
        if self._now_ns() < until_ns:
            return True
        del self._penalized[peer]
        return False

    def disconnect(self, peer: bytes) -> None:
        """Close all connections to `peer`, soon."""
        for connection in self._swarm.get_connections(peer_id(peer)):
            self._close_soon(connection)

    def _close_soon(self, connection: Any) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._close, connection)

    async def _close(self, closable: Any) -> None:
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_TIMEOUT_S):
                await closable.close()
        except Exception as error:  # noqa: BLE001 - a connection that is broken anyhow
            log.debug("peer.close_failed", error=type(error).__name__)

    async def close_all(self) -> None:
        """Close every listener, then every connection, all at once: each takes 0.2 s.

        Stock's own end does it under cancellation, so that listeners stay open.
        """
        async with trio.open_nursery() as nursery:
            for listener in list(self._swarm.listeners.values()):
                nursery.start_soon(self._close, listener)
        async with trio.open_nursery() as nursery:
            for connection in self._swarm.get_connections():
                nursery.start_soon(self._close, connection)

    # --- what libp2p tells ----------------------------------------------------------------

    async def connected(self, network: Any, conn: Any) -> None:
        """A connection is up, ours or theirs."""
        peer = public_key_of(conn.muxed_conn.peer_id)
        if not peer or self.is_penalized(peer):
            self._close_soon(conn)
            return
        if peer not in self._peers:
            self._peers[peer] = None
            log.info(
                "peer.connected", peer=peer.hex()[:16], inbound=not conn.muxed_conn.is_initiator
            )
            self._on_peer(peer, True)
            self._signal()
        self._keep_one(peer)

    def _keep_one(self, peer: bytes) -> None:
        """Of several connections to a peer, close all but one, the same one on both sides.

        Stock keeps what each side likes best: when both dialled at once, each may close the
        one that the other keeps. Here the one that the smaller key dialled stays; of two in
        the same direction the newer, as the older's owner must have forgotten it.
        """
        open_ones = [c for c in self._swarm.get_connections(peer_id(peer)) if not c.is_closed]
        if len(open_ones) < 2:
            return
        ours = [c for c in open_ones if c.muxed_conn.is_initiator]
        theirs = [c for c in open_ones if not c.muxed_conn.is_initiator]
        preferred = (ours or theirs) if self._own_key < peer else (theirs or ours)
        for connection in open_ones:
            if connection is not preferred[-1]:
                self._close_soon(connection)

    async def disconnected(self, network: Any, conn: Any) -> None:
        """A connection is gone."""
        identity: ID = conn.muxed_conn.peer_id
        peer = public_key_of(identity)
        left = [c for c in self._swarm.get_connections(identity) if not c.is_closed]
        if not left and peer in self._peers:
            del self._peers[peer]
            # Nothing is stored of a peer that is gone: stock's stores grow per peer seen.
            self._host.get_peerstore().peer_data_map.pop(identity, None)
            log.info("peer.disconnected", peer=peer.hex()[:16])
            self._on_peer(peer, False)
            self._signal()

    def _signal(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def opened_stream(self, network: Any, stream: Any) -> None:
        """Not of interest."""

    async def closed_stream(self, network: Any, stream: Any) -> None:
        """Not of interest."""

    async def listen(self, network: Any, multiaddr: Any) -> None:
        """Not of interest."""

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        """Not of interest."""
