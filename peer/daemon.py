"""One running node: the sans-IO Node with its journal, network, engine and local askers.

Knows how the parts are wired, in which order they start and stop, and nothing of the market.
"""

import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import trio

from engine.interface import Engine
from peer.driver import Driver
from peer.jobs import Jobs
from peer.libp2p_adapter.network import Network, NetworkSettings
from peer.links import Links
from peer.reports import recovery_json
from peer.surroundings import AnyNetwork, Surroundings
from protocol.channel import ChannelState, Role
from protocol.crypto import Signer
from router import actions as act
from router import events
from router.anchoring import AnchorSettings
from router.cheques import ChequeTerms
from router.choosing import RequesterSettings
from router.fold import Fold

log = structlog.get_logger()

LOG_DIRECTORY = "log"
_FLUSH_S = 2.0
_DRAIN_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """How one node runs. Prices are ucr per 1,000,000 tokens; `preferred` requesters wait less."""

    directory: Path
    network: NetworkSettings
    input_price_ucr: int = 0
    output_price_ucr: int = 0
    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    standing_offers: bool = True
    bids_wanted: int = 0
    preferred: tuple[bytes, ...] = ()
    requester: RequesterSettings = field(default_factory=RequesterSettings)
    cheques: ChequeTerms = field(default_factory=ChequeTerms)


class Daemon:
    """A node that is up inside `open_daemon`'s block."""

    def __init__(
        self,
        settings: DaemonSettings,
        signer: Signer,
        engine: Engine | None,
        nursery: trio.Nursery,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.settings = settings
        self._nursery = nursery
        self._around = around = surroundings or Surroundings()
        self.now_ns = around.now_ns
        self._fold = Fold(settings.network.network, signer.public_key)
        began_s = time.monotonic()
        log_directory = settings.directory / LOG_DIRECTORY
        self.journal = around.open_journal(log_directory, self._fold)
        self.ledger = self._fold.live()
        self.recovery = recovery_json(self.journal.report, self.ledger, time.monotonic() - began_s)
        log.info("log.recovered", **self.recovery)
        self.node = around.core(
            signer,
            settings.network.network,
            self.ledger,
            entropy=around.entropy,
            anchor=settings.anchor,
            log=self._fold,
            standing_offers=settings.standing_offers,
            bids_wanted=settings.bids_wanted,
            requester=settings.requester,
            cheques=settings.cheques,
        )
        self.cheques, self.answering = self.node.provider.cheques, 0
        self.driver = Driver(self.node, self.journal, self, self.now_ns)
        try:
            self.network = self._make_network(signer)
        except BaseException:
            self.journal.close()  # else the directory stays locked by this process
            raise
        self._links = Links(self.network, self.driver.feed)
        self.jobs: Jobs | None = None
        if engine is not None:
            self.jobs = Jobs(
                engine,
                self.driver.feed,
                input_price_ucr=settings.input_price_ucr,
                output_price_ucr=settings.output_price_ucr,
                preferred=settings.preferred,
            )
        self._asks: dict[int, trio.MemorySendChannel[Any]] = {}
        self._next_ask = 1
        self.archiving = trio.Lock()
        self._settled: list[trio.MemorySendChannel[events.ChannelSettled]] = []

    def _make_network(self, signer: Signer) -> AnyNetwork:
        return Network(
            self.settings.network,
            signer,
            validate=self.driver.gossip,
            on_session=lambda session: self._links.accept(self._nursery, session),
            on_bid=lambda peer, data: self.driver.feed(act.BidReceived(peer, data)),
            on_peer=lambda peer, connected: None,
            now_ns=self.now_ns,
            rng=random.Random(self._around.entropy(16)),
            standing=lambda: self.node.offers_for_newcomer(self.now_ns()),
        )

    # --- effects ---------------------------------------------------------------------------

    def perform(self, action: act.Action) -> None:
        """Carry out one action of the node; the driver's `Effects`."""
        start = self._nursery.start_soon
        match action:
            case act.Send():
                self._links.send(action)
            case act.Deliver():
                self._deliver(action)
            case act.Publish():
                start(self._links.publish, action.data)
            case act.SendBid():
                start(self._links.send_bid, action)
            case act.OpenSession():
                start(self._links.open, action)
            case act.CloseSession():
                start(self._links.close, action.session)
            case act.StartJob():
                assert self.jobs is not None, "an award without an engine"
                self.jobs.start(self._nursery, action)
            case act.CancelJob():
                assert self.jobs is not None
                self.jobs.cancel(action.job_id)
            case act.Penalize():
                log.warning("peer.penalized", peer_id=action.peer, code=action.code)
                self.network.penalize(action.peer)
            case _:
                raise AssertionError(action)

    def _deliver(self, action: act.Deliver) -> None:
        if action.ask_id == events.CONTROL_ASK:
            if isinstance(action.event, events.ChannelSettled):
                for channel in list(self._settled):
                    channel.send_nowait(action.event)
            return
        if asker := self._asks.get(action.ask_id):
            asker.send_nowait(action.event)
            if isinstance(action.event, events.TERMINAL):
                del self._asks[action.ask_id]
                asker.close()

    # --- local askers ----------------------------------------------------------------------

    def new_ask_id(self) -> int:
        """A number for the next Ask."""
        self._next_ask += 1
        return self._next_ask

    @asynccontextmanager
    async def ask(
        self, ask: act.Ask | act.ServeCheque
    ) -> AsyncIterator[trio.MemoryReceiveChannel[Any]]:
        """The events of one request, to its end; leaving early cancels the request."""
        # Bounded by what a request may produce: its bids, and a few events a token.
        send, receive = trio.open_memory_channel[Any](math.inf)
        self._asks[ask.ask_id] = send
        self.driver.feed(ask)
        try:
            yield receive
        finally:
            # First of all nothing more is delivered: closing a channel lets others run.
            if self._asks.pop(ask.ask_id, None) is not None:
                send.close()
                self.driver.feed(act.CancelAsk(ask.ask_id))
            receive.close()

    async def close_channels(
        self, cids: tuple[bytes, ...], timeout_s: float
    ) -> list[events.ChannelSettled]:
        """Close payer channels co-operatively; those that settled within the time."""
        wanted = {
            channel.cid
            for channel in self.ledger.channels.values()
            if channel.is_open
            and channel.payer == self.node.context.public_key
            and (not cids or channel.cid in cids)
        }
        send, receive = trio.open_memory_channel[events.ChannelSettled](math.inf)
        self._settled.append(send)
        settled = []
        try:
            self.driver.feed(act.CloseChannels(tuple(wanted)))
            with trio.move_on_after(timeout_s):
                while wanted:
                    event = await receive.receive()
                    if event.cid in wanted:
                        wanted.discard(event.cid)
                        settled.append(event)
        finally:
            self._settled.remove(send)
        return settled

    async def wait_connected(self, timeout_s: float) -> bool:
        """Until somebody listens on the topic; False when nobody came in time."""
        with trio.move_on_after(timeout_s):
            await self.network.wait_topic_peers(1)
        return self.network.topic_peers() > 0

    # --- stopping --------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work and let running jobs finish, to their receipts; False when time
        ran out."""
        self.driver.feed(act.Drain())
        if self.jobs is None:
            return True
        with trio.move_on_after(timeout_s):
            await self.jobs.wait_idle()
            while self._serves():  # noqa: ASYNC110 - lanes end in many ways; stops are rare
                await trio.sleep(_DRAIN_POLL_S)
            await self.driver.wait_idle()
            return True
        return False

    def _serves(self) -> bool:
        """Whether a connected payer's lane, or a cheque's answer, has not ended: text may wait for
        a voucher or a reader, a receipt for its other signature, long after the engine is done."""
        return self.answering > 0 or any(
            channel.lanes and channel.state is ChannelState.READY
            for channel in self.ledger.channels.values()
            if channel.role is Role.PAYEE
        )

    async def flush(self) -> None:
        """Let what was decided be written and sent, within a bound."""
        with trio.move_on_after(_FLUSH_S):
            self.driver.feed(act.SignHead())
            await self.driver.wait_idle()
            await self._links.end_all()


@asynccontextmanager
async def open_daemon(
    settings: DaemonSettings,
    signer: Signer,
    engine: Engine | None = None,
    make: Callable[..., Daemon] = Daemon,
) -> AsyncIterator[Daemon]:
    """A node that is listening and gossiping for the length of the block.

    `engine`, when given, is already running. Raises StorageError, NetworkError
    `network.listen`; a log that fails later ends the block with StorageError.
    """
    async with trio.open_nursery() as nursery:
        daemon = make(settings, signer, engine, nursery)
        journal = daemon.journal
        # The journal outlives everything that appends, so it is cancelled last.
        journal_scope = trio.CancelScope()
        committed = trio.Event()

        async def commit() -> None:
            try:
                with journal_scope:
                    await journal.run()
            finally:
                committed.set()

        try:
            nursery.start_soon(commit)
            await nursery.start(daemon.driver.run)
            await nursery.start(daemon.network.run)
            daemon.node.context.addresses = daemon.network.addresses
            daemon.driver.feed(act.Started())
            if daemon.jobs is not None:
                nursery.start_soon(daemon.jobs.keep_offers)
            yield daemon
            await daemon.flush()
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                journal_scope.cancel()
                await committed.wait()
                journal.close()
