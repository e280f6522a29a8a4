"""What a daemon takes from the machine that it runs on, named so that it can be given another.

Time, chance, a disk, a thread to sync it in, and a network: with those of a simulation the same
daemon runs on virtual time. And the core that it drives, so that simulations can have another.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import trio

from peer.clock import Clock
from peer.disk import RealDisk
from peer.journal import Journal
from peer.writer_thread import Caller, WriterThread
from protocol.disk import Disk
from router.fold import Fold
from router.node import Node

if TYPE_CHECKING:
    from trio_typing import TaskStatus


class Stream(Protocol):
    """A job stream to one peer. Rule: peer/libp2p_adapter/session.py."""

    @property
    def peer(self) -> bytes:
        """The other end's key."""
        ...

    def send_nowait(self, data: bytes) -> None:
        """Queue bytes. NetworkError, RemoteError: the stream is over."""
        ...

    async def receive(self) -> bytes:
        """Some bytes; b"" when it has ended."""
        ...

    async def aclose(self) -> None:
        """Write what is queued, and end it."""
        ...

    def close_nowait(self) -> None:
        """End it; what is queued is dropped."""
        ...


class AnyNetwork(Protocol):
    """What a daemon asks of its network. Rule: peer/libp2p_adapter/network.py."""

    @property
    def peer_id(self) -> str:
        """Who this node is, as libp2p writes it."""
        ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled."""
        ...

    @property
    def peers(self) -> tuple[bytes, ...]:
        """Keys of the connected peers."""
        ...

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        ...

    def topic_peers(self) -> int:
        """How many peers listen on the topic."""
        ...

    async def wait_topic_peers(self, count: int) -> None:
        """Until so many do."""
        ...

    async def publish(self, data: bytes) -> None:
        """Gossip. NetworkError."""
        ...

    async def open_session(self, peer: bytes, addresses: tuple[str, ...]) -> Stream:
        """A job stream. NetworkError."""
        ...

    async def send_bid(self, peer: bytes, addresses: tuple[str, ...], data: bytes) -> None:
        """One bid. NetworkError."""
        ...

    def penalize(self, peer: bytes) -> None:
        """Keep a peer away for a time."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Those of this machine by default. `now_ns` is Unix time."""

    now_ns: Callable[[], int] = field(default_factory=Clock)
    entropy: Callable[[int], bytes] = os.urandom
    disk: Disk = field(default_factory=RealDisk)
    caller: Callable[[], AbstractContextManager[Caller]] = WriterThread
    core: Callable[..., Node] = Node

    def open_journal(self, directory: Path, fold: Fold) -> Journal:
        """The log in a directory of this disk, folded. Errors as `Journal.open`."""
        return Journal.open(
            directory,
            network=fold.ledger.network,
            owner=fold.ledger.owner,
            on_entry=fold.take,
            disk=self.disk,
            caller=self.caller,
        )
