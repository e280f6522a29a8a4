"""What a gossip delivery costs: CPU of both ends and latency, ours against stock libp2p.

    python -m tests.bench.gossip [--nodes 10] [--messages 200] [--json]

All nodes run in one process and are connected to each other. Messages are 300 bytes, one in
flight at a time. Ours and stock run in processes of their own, as the hardening is
process-wide; stock has /meshsub/1.2.0, signatures and a heartbeat of 1 s, and its spam limit
off, which would drop the load.
"""

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

MESSAGE_BYTES = 300
Publish = Callable[[int, bytes], Awaitable[None]]


class Meter:
    """Counts deliveries of the message in flight."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.left = 0
        self.done = trio.Event()

    def delivered(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()

    async def run(self, publish: Publish, messages: int) -> dict[str, float]:
        """Publish `messages`, each from the next node; the first tenth warms up."""
        rng = random.Random(1)
        latencies: list[float] = []
        cpu_before = time.process_time()
        for number in range(-(messages // 10), messages):
            if number == 0:
                latencies.clear()
                cpu_before = time.process_time()
            self.left, self.done = self.nodes - 1, trio.Event()
            started = time.perf_counter()
            await publish(number % self.nodes, rng.randbytes(MESSAGE_BYTES))
            with trio.fail_after(30):
                await self.done.wait()
            latencies.append(time.perf_counter() - started)
        cpu_s = time.process_time() - cpu_before
        return {
            "cpu_ms_per_delivery": round(cpu_s * 1000 / (messages * (self.nodes - 1)), 3),
            "all_received_ms_median": round(statistics.median(latencies) * 1000, 2),
        }


async def measure_ours(nodes: int, messages: int) -> None:
    """Nodes of this project."""
    from peer.libp2p_adapter import Network, NetworkSettings
    from protocol.crypto import Signer

    meter = Meter(nodes)

    def validate(data: bytes, forwarder: bytes) -> bool:
        if forwarder:
            meter.delivered()
        return True

    networks = [
        Network(
            NetworkSettings(network="bench", peers_wanted=0),
            Signer(seed.to_bytes(32, "big")),
            validate=validate,
            on_session=lambda session: None,
            on_bid=lambda peer, data: None,
            on_peer=lambda peer, connected: None,
            now_ns=time.time_ns,
            rng=random.Random(seed),
        )
        for seed in range(1, nodes + 1)
    ]
    async with trio.open_nursery() as nursery:
        for network in networks:
            await nursery.start(lambda *, task_status, n=network: n.run(task_status=task_status))
        for index, network in enumerate(networks):
            for other in networks[:index]:
                await network.dial(other.public_key, other.addresses)
        for network in networks:
            await network.wait_topic_peers(nodes - 1)
        await trio.sleep(2)  # two heartbeats: the mesh is settled
        _report(await meter.run(lambda index, data: networks[index].publish(data), messages))


async def measure_stock(nodes: int, messages: int) -> None:
    """libp2p as it comes, save for the heartbeat and the spam limit."""
    from contextlib import AsyncExitStack

    from libp2p import new_host
    from libp2p.peer.peerinfo import PeerInfo
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    meter = Meter(nodes)
    hosts: list[Any] = []
    pubsubs: list[Any] = []

    async def read(subscription: Any, own: bytes) -> None:
        while True:
            message = await subscription.get()
            if message.from_id != own:
                meter.delivered()

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(nodes):
            host = new_host()
            router = GossipSub(
                protocols=["/meshsub/1.2.0", "/meshsub/1.1.0"],
                degree=8,
                degree_low=6,
                degree_high=12,
                heartbeat_interval=1,
                adaptive_gossip_enabled=False,
                spam_protection_enabled=False,
            )
            pubsub = Pubsub(host, router)
            await stack.enter_async_context(background_trio_service(pubsub))
            await stack.enter_async_context(background_trio_service(router))
            listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
            await stack.enter_async_context(host.run(listen_addrs=listen))
            subscription = await pubsub.subscribe("bench")
            nursery.start_soon(read, subscription, host.get_id().to_bytes())
            hosts.append(host)
            pubsubs.append(pubsub)
        for index, host in enumerate(hosts):
            for other in hosts[:index]:
                await host.connect(PeerInfo(other.get_id(), other.get_transport_addrs()))
        await trio.sleep(4)
        _report(
            await meter.run(lambda index, data: pubsubs[index].publish("bench", data), messages)
        )


def _report(figures: dict[str, float]) -> None:
    """Print and leave at once: stock's shutdown of ten hosts takes longer than the measure."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


def _measure_here(kind: str, nodes: int, messages: int) -> None:
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    trio.run(measure_ours if kind == "ours" else measure_stock, nodes, messages)


def _measure_apart(kind: str, nodes: int, messages: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.gossip", "--only", kind]
    command += ["--nodes", str(nodes), "--messages", str(messages)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure both and print a line each, or one JSON object."""
    parser = argparse.ArgumentParser(description="CPU of a gossip delivery, ours against stock")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=("ours", "stock"), help="in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        _measure_here(options.only, options.nodes, options.messages)
        return
    figures: dict[str, Any] = {
        kind: _measure_apart(kind, options.nodes, options.messages) for kind in ("ours", "stock")
    }
    figures["times_cheaper"] = round(
        figures["stock"]["cpu_ms_per_delivery"] / figures["ours"]["cpu_ms_per_delivery"], 1
    )
    if options.json:
        print(json.dumps({"nodes": options.nodes, "messages": options.messages, **figures}))
        return
    for kind in ("ours", "stock"):
        print(kind, *(f"{name}={value}" for name, value in figures[kind].items()))
    print(f"ours is {figures['times_cheaper']} times cheaper")


if __name__ == "__main__":
    main()
