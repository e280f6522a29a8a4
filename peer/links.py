"""Between the node and the network: job streams by key, gossip and bids out, penalties."""

from collections.abc import Callable

import structlog
import trio

from peer.surroundings import AnyNetwork, Stream
from protocol.errors import NetworkError, RemoteError
from router.actions import (
    BidUndelivered,
    Input,
    OpenSession,
    Send,
    SendBid,
    SessionClosed,
    SessionData,
    SessionKey,
    SessionOpened,
)

log = structlog.get_logger()

_DIALS_AT_ONCE = 32


class Links:
    """The streams of one node. Each key has at most one stream; a newer one replaces it."""

    def __init__(self, network: AnyNetwork, feed: Callable[[Input], None]) -> None:
        self._network = network
        self._feed = feed
        self._sessions: dict[SessionKey, Stream] = {}
        self._dials = trio.CapacityLimiter(_DIALS_AT_ONCE)

    def accept(self, nursery: trio.Nursery, session: Stream) -> None:
        """A payer opened a stream to us."""
        key = SessionKey(session.peer, outbound=False)
        self._adopt(key, session)
        nursery.start_soon(self._read, key, session)

    def _adopt(self, key: SessionKey, session: Stream) -> None:
        older = self._sessions.get(key)
        self._sessions[key] = session
        if older is not None:
            older.close_nowait()
        self._feed(SessionOpened(key))

    async def open(self, action: OpenSession) -> None:
        """Dial, then read until the stream ends; the node is told either way."""
        key = action.session
        try:
            async with self._dials:
                session = await self._network.open_session(key.peer, action.addresses)
        except NetworkError as error:
            log.debug("session.failed", peer_id=key.peer, detail=error.detail)
            self._feed(SessionClosed(key, "provider.unreachable"))
            return
        self._adopt(key, session)
        await self._read(key, session)

    async def _read(self, key: SessionKey, session: Stream) -> None:
        while data := await session.receive():
            if self._sessions.get(key) is not session:
                return
            self._feed(SessionData(key, data))
        session.close_nowait()
        if self._sessions.get(key) is session:
            del self._sessions[key]
            self._feed(SessionClosed(key, "session.closed"))

    def send(self, action: Send) -> None:
        """Queue frames; a stream that is gone or full ends, and the node is told."""
        session = self._sessions.get(action.session)
        if session is None:
            return  # its end is already known
        try:
            session.send_nowait(action.data)
        except (NetworkError, RemoteError) as error:
            session.close_nowait()
            del self._sessions[action.session]
            self._feed(SessionClosed(action.session, error.code))

    async def close(self, key: SessionKey) -> None:
        """End a stream; what is queued is still written."""
        session = self._sessions.pop(key, None)
        if session is not None:
            await session.aclose()

    async def send_bid(self, action: SendBid) -> None:
        """Send a sealed bid, or give it back."""
        try:
            async with self._dials:
                await self._network.send_bid(action.peer, action.addresses, action.data)
        except NetworkError as error:
            log.debug("bid.undelivered", peer_id=action.peer, detail=error.detail)
            self._feed(BidUndelivered(action.request_id, action.data))

    async def publish(self, data: bytes) -> None:
        """Gossip; nobody there to hear it is not our failure."""
        try:
            await self._network.publish(data)
        except NetworkError as error:
            log.debug("gossip.unheard", detail=error.detail)

    async def end_all(self) -> None:
        """Write what is queued on every stream and end them, for an orderly stop."""
        async with trio.open_nursery() as nursery:
            for session in self._sessions.values():
                nursery.start_soon(session.aclose)
        self._sessions.clear()
