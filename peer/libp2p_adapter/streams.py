"""The protocols of a network beside gossip: job sessions and bids, in and out.

Must not know messages: sessions carry bytes, bids are whole frames.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio

from peer.libp2p_adapter.addresses import peer_id, public_key_of
from peer.libp2p_adapter.host import DIAL_TIMEOUT_S, NodeHost
from peer.libp2p_adapter.session import STREAM_ENDED, Session
from protocol import framing, limits
from protocol.errors import NetworkError, RemoteError

log = structlog.get_logger()


class Streams:
    """Opens and accepts streams; owns the task of each session."""

    def __init__(self, host: NodeHost, network: str) -> None:
        self._host = host
        self._network = network
        self._open: Counter[tuple[bytes, str]] = Counter()
        self._bids: dict[bytes, Session] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Own the tasks of outbound sessions; until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # what opens meanwhile has no task to write in

    def protocol_id(self, name: str) -> str:
        """The protocol of this network called job, bid or peers."""
        return f"/peerd/{self._network}/{name}/1.0.0"

    def has_session(self, peer: bytes) -> bool:
        """Whether a job session with `peer` is open, whoever opened it."""
        return self._open[(peer, "job")] > 0 or self._open[(peer, "job inbound")] > 0

    # --- inbound --------------------------------------------------------------------------

    def serve(self, name: str, handle: Callable[[Session], Awaitable[None]]) -> None:
        """Hand each inbound stream of a protocol to `handle`; when that returns, it closes.

        A peer may have STREAMS_PER_PEER_AND_PROTOCOL_MAX at once.
        """

        async def accept(stream: Any) -> None:
            peer = public_key_of(stream.muxed_conn.peer_id)
            kind = f"{name} inbound"
            if not peer or self._open[(peer, kind)] >= limits.STREAMS_PER_PEER_AND_PROTOCOL_MAX:
                await stream.reset()
                return
            with self._counted(peer, kind):
                await self._serve_one(Session(peer, stream), handle)

        self._host.set_stream_handler(self.protocol_id(name), accept)

    @contextmanager
    def _counted(self, peer: bytes, name: str) -> Iterator[None]:
        """Count a stream while it is open; zero counts are not kept."""
        self._open[(peer, name)] += 1
        try:
            yield
        finally:
            self._open[(peer, name)] -= 1
            if not self._open[(peer, name)]:
                del self._open[(peer, name)]

    async def _serve_one(
        self, session: Session, handle: Callable[[Session], Awaitable[None]]
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await handle(session)

    # --- outbound -------------------------------------------------------------------------

    async def open(self, peer: bytes, name: str) -> Session:
        """A new stream to a connected peer. NetworkError `network.unreachable`."""
        try:
            with trio.fail_after(DIAL_TIMEOUT_S):
                stream = await self._host.new_stream(peer_id(peer), [self.protocol_id(name)])
        except (*STREAM_ENDED, trio.TooSlowError) as error:
            raise NetworkError("network.unreachable", str(error)[:100]) from error
        except Exception as error:
            # Negotiation raises a dozen types without a common base.
            raise NetworkError("network.unreachable", type(error).__name__) from error
        if self._nursery is None:
            raise NetworkError("network.unreachable", "the network is not running")
        session = Session(peer, stream)
        self._nursery.start_soon(self._run_counted, session, name)
        return session

    async def _run_counted(self, session: Session, name: str) -> None:
        with self._counted(session.peer, name):
            await session.run()

    async def send_bid(self, peer: bytes, data: bytes) -> None:
        """One bid to a connected peer, over a stream that stays open for the next.

        Opening a stream costs ~3 ms CPU, a frame on an open one 0.45 ms.
        """
        session = self._bids.pop(peer, None)
        if session is None or session.closed:
            session = await self.open(peer, "bid")
        while len(self._bids) >= limits.BID_STREAMS_MAX:
            self._bids.pop(next(iter(self._bids))).close_nowait()
        self._bids[peer] = session
        session.send_nowait(framing.frame(data, limits.BID_FRAME_BYTES_MAX))
        await session.wait_flushed()

    def forget(self, peer: bytes) -> None:
        """Drop what is kept warm for a peer that is gone."""
        session = self._bids.pop(peer, None)
        if session is not None:
            session.close_nowait()


def bid_reader(on_bid: Callable[[bytes, bytes], None]) -> Callable[[Session], Awaitable[None]]:
    """A handler that passes each bid frame on, until the peer ends the stream or breaks it."""

    async def read(session: Session) -> None:
        reader = framing.FrameReader(limits.BID_FRAME_BYTES_MAX)
        try:
            while data := await session.receive():
                for body in reader.feed(data):
                    on_bid(session.peer, body)
        except RemoteError as error:
            log.info("bid.broken", peer=session.peer.hex()[:16], code=error.code)
        session.close_nowait()

    return read
