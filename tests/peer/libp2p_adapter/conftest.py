"""Real nodes on loopback: real TCP, Noise, Yamux and gossip, ports chosen by the system."""

import random
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from peer.libp2p_adapter import Network, NetworkSettings, Session
from protocol.crypto import Signer

DEADLINE_S = 20.0  # generous: the machine is shared; nothing here waits for it to pass


class Node:
    """A network and what its callbacks were told."""

    def __init__(self, seed: int, standing: Sequence[bytes] = (), **settings: object) -> None:
        self.heard: list[tuple[bytes, bytes]] = []
        self.bids: list[tuple[bytes, bytes]] = []
        self.sessions: list[Session] = []
        self.peer_events: list[tuple[bytes, bool]] = []
        self.accept: Callable[[bytes, bytes], bool] = lambda data, forwarder: True
        self._changed = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.swallow: type[Exception] | None = None
        self.error: Exception | None = None
        self.last_address = ""
        self.network = Network(
            NetworkSettings(**{"network": "test", **settings}),  # type: ignore[arg-type]
            Signer(seed.to_bytes(32, "big")),
            validate=self._validate,
            on_session=lambda session: self._note(self.sessions, session),
            on_bid=lambda peer, data: self._note(self.bids, (peer, data)),
            on_peer=lambda peer, connected: self._note(self.peer_events, (peer, connected)),
            now_ns=time.time_ns,
            rng=random.Random(seed),
            standing=lambda: standing,
        )

    def _note(self, items: list, item: object) -> None:
        items.append(item)
        self._changed.set()
        self._changed = trio.Event()

    def _validate(self, data: bytes, forwarder: bytes) -> bool:
        self._note(self.heard, (data, forwarder))
        return self.accept(data, forwarder)

    @property
    def key(self) -> bytes:
        return self.network.public_key

    @property
    def messages(self) -> list[bytes]:
        return [data for data, _ in self.heard]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for callbacks until `condition` holds."""
        with trio.fail_after(DEADLINE_S):
            while not condition():
                await self._changed.wait()

    async def run(self, *, task_status: trio.TaskStatus = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self.scope:
                await self.network.run(task_status=task_status)
        except Exception as error:
            if self.swallow is None or not isinstance(error, self.swallow):
                raise
            self.error = error
        finally:
            self.ended.set()

    async def stop(self) -> None:
        self.last_address = self.network.addresses[0].rsplit("/p2p/", 1)[0]
        self.scope.cancel()
        with trio.fail_after(DEADLINE_S):
            await self.ended.wait()


Start = Callable[..., Awaitable[Node]]


@pytest.fixture
def start(nursery: trio.Nursery) -> Start:
    """Start a node with this seed and these settings."""

    async def start_node(seed: int, **settings: object) -> Node:
        node = Node(seed, **settings)  # type: ignore[arg-type]
        with trio.fail_after(DEADLINE_S):
            await nursery.start(node.run)
        return node

    return start_node


@pytest.fixture
def join() -> Callable[..., Awaitable[None]]:
    """Connect two nodes and wait until both can gossip."""

    async def join_nodes(one: Node, other: Node) -> None:
        with trio.fail_after(DEADLINE_S):
            await one.network.dial(other.key, other.network.addresses)
            await one.network.wait_topic_peers(1)
            await other.network.wait_topic_peers(1)

    return join_nodes
