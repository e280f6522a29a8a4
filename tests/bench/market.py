"""What the market adds to an engine: to the first token, to a stream, to a request's cost.

    python -m tests.bench.market [--requests 60] [--streams 8] [--tokens 100] [--json]

Two real daemons on loopback, each a process: a provider with a scripted engine, so that the
engine's own times are exact, and a requester with its gateway, which this process asks as any
HTTP client. Processor time is read from the processes' own clocks; wall times are medians and
only told beside the engine's own. `stages` are shares of the requester's and the provider's
processor time, by the module that spent it, under cProfile, whose own cost is spread over all.
"""

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog
import trio

from engine.scripted import Script, ScriptedEngine
from peer.config import RequesterConfig
from peer.daemon import DaemonSettings, open_daemon
from peer.gateway import ApiSettings, serve_gateway
from peer.identity import create_key
from peer.keys import Keys
from peer.libp2p_adapter.network import NetworkSettings
from peer.offered import offered_models
from peer.service import control_methods
from protocol.units import NS_PER_MS, UCR_PER_CREDIT
from router.anchoring import AnchorSettings
from tests.bench.serving.timing import processor_ns

Json = dict[str, Any]

LISTEN = ("/ip4/127.0.0.1/tcp/0",)
TTFT_MS = 20
TOKEN_MS = 20
WINDOW_MS = 500
PLACES = 16
IDLE_S = 3.0
SETTLE_S = 0.05  # for receipts, before the next request
PATIENCE_S = 60.0
MARK = "bench."  # models: their scripts differ

# The first that a module's path contains decides.
STAGES = (
    ("HTTP", ("hypercorn", "starlette", "h11", "peer/gateway", "wsproto", "h2/")),
    ("sign", ("nacl", "protocol/crypto", "protocol/signing", "protocol/transcript")),
    ("gossip", ("pubsub", "libp2p_adapter/router", "router/admission", "router/telling")),
    ("streams", ("libp2p", "multiaddr", "noise", "google/protobuf", "base58")),
    ("log", ("peer/journal", "peer/writer", "protocol/log", "protocol/segments", "framing")),
    ("wire", ("protocol/wire", "protocol/envelope", "msgspec", "msgpack", "registry")),
    (
        "bid",
        (
            *("router/bid", "router/auction", "router/selection", "router/quoting"),
            *("router/offers", "router/placing", "router/publishing", "router/self_sel"),
            *("router/counting", "router/reputation", "router/standing", "router/clearings"),
            *("router/market_prices", "protocol/ranking"),
        ),
    ),
    (
        "award",
        (
            *("router/awarding", "router/racing", "router/opening", "router/pay", "router/lanes"),
            *("router/ledger", "router/judging", "router/provider.py", "router/requester"),
            *("protocol/channel", "router/deposits", "router/balance", "router/rooms"),
        ),
    ),
    (
        "chunk",
        (
            *("router/delivery", "router/chunking", "router/progress", "router/pace"),
            *("router/serving", "router/provider_job", "router/receipts", "router/resending"),
            *("protocol/transcript", "protocol/framing", "engine/"),
        ),
    ),
    ("node", ("router/", "protocol/", "peer/")),
    ("loop", ("trio", "selectors", "outcome")),
)


def scripts(tokens: int) -> dict[str, Script]:
    """One answers at once with one token, one as an engine of TTFT_MS and TOKEN_MS would."""
    paced = Script(((" word", 1),) * tokens, TTFT_MS * NS_PER_MS, TOKEN_MS * NS_PER_MS)
    return {f"{MARK}short": Script(((" word", 1),), 0, 0), f"{MARK}paced": paced}


async def daemon_side(role: str, profiled: bool, bootstrap: str, tokens: int) -> None:
    """A daemon that runs until its input ends; its last line has its profile."""
    profile = cProfile.Profile(time.thread_time)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        signer = create_key(directory)
        network = NetworkSettings("bench", LISTEN, bootstrap=(bootstrap,) if bootstrap else ())
        engine = ScriptedEngine(scripts(tokens), places=PLACES) if role == "provider" else None
        credit = AnchorSettings(1_000 * UCR_PER_CREDIT)
        prices = 15 * UCR_PER_CREDIT, 60 * UCR_PER_CREDIT
        settings = DaemonSettings(directory, network, *prices, anchor=credit)
        async with trio.open_nursery() as nursery:
            if engine is not None:
                await nursery.start(engine.run)
            async with open_daemon(settings, signer, engine) as daemon:
                url = ""
                if engine is None:
                    defaults = RequesterConfig(standing_offers=role == "offers")
                    models, methods = partial(offered_models, daemon), control_methods(daemon)
                    api = ApiSettings("127.0.0.1", 0)
                    keys = Keys(daemon)
                    serve = partial(serve_gateway, api, daemon, models, defaults, methods, keys)
                    url = await nursery.start(serve)
                told = {"pid": os.getpid(), "url": url, "address": daemon.network.addresses[0]}
                print(json.dumps(told), flush=True)
                if profiled:
                    await trio.to_thread.run_sync(sys.stdin.readline)  # warm from here on
                    profile.enable()
                await trio.to_thread.run_sync(sys.stdin.readline)
                profile.disable()
                if os.environ.get("PROF"):
                    profile.dump_stats(os.environ["PROF"] + role)
            nursery.cancel_scope.cancel()
    print(json.dumps(stages(profile) if profiled else {}), flush=True)


def stages(profile: cProfile.Profile) -> Json:
    """Shares of processor time by stage; waiting for events is none."""
    spent: dict[str, float] = {}
    for (path, _, name), (_, _, own_s, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "poll" in name and path == "~":
            continue
        found = (stage for stage, parts in STAGES if any(p in f"{path} {name}" for p in parts))
        stage = next(found, "built-in" if path == "~" else "other")
        spent[stage] = spent.get(stage, 0.0) + own_s
    whole = sum(spent.values()) or 1.0
    return {stage: round(own_s / whole, 3) for stage, own_s in sorted(spent.items())}


class Side:
    """A daemon's process."""

    def __init__(self, role: str, tokens: int, *, bootstrap: str = "", profiled: bool) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.bench.market", "--role", role),
                *("--bootstrap", bootstrap, "--tokens", str(tokens)),
                *(["--profiled"] if profiled else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ready = self._line()
        self.pid, self.url, self.address = ready["pid"], ready["url"], ready["address"]

    def _line(self) -> Json:
        assert self._process.stdout is not None
        found: Json = json.loads(self._process.stdout.readline())
        return found

    def go(self) -> None:
        """Let it profile from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def cpu_ns(self) -> int:
        """What it has computed so far."""
        return processor_ns(self.pid)

    def end(self) -> Json:
        """Stop it; its stages."""
        self.go()
        found = self._line()
        self._process.wait(PATIENCE_S)
        return found


@contextmanager
def market(role: str, tokens: int, *, profiled: bool = False) -> Iterator[tuple[Side, Side, Json]]:
    """Requester and provider, connected; the last value gets their stages at the end."""
    found: Json = {}
    requester = Side(role, tokens, profiled=profiled)
    provider = Side("provider", tokens, bootstrap=requester.address, profiled=profiled)
    try:
        yield requester, provider, found
    finally:
        found.update(provider=provider.end(), requester=requester.end())


@asynccontextmanager
async def open_client(requester: Side) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client, when both models can be asked and their channel is open."""
    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=requester.url, limits=limits, timeout=60) as client:
        with trio.fail_after(PATIENCE_S):
            for model in ("short", "paced", "short"):
                while not await request(client, model, 1):  # noqa: ASYNC110
                    await trio.sleep(0.1)
            while len((await client.get("/models")).json()["data"]) < 2:  # noqa: ASYNC110
                await trio.sleep(0.1)
        yield client


async def request(
    client: httpx.AsyncClient, model: str, tokens: int, came: Callable[[], None] = lambda: None
) -> list[float]:
    """When each piece of text of a streamed answer came, in s from the request on, each told to
    `came`; nothing when no bid came in time, as on a machine that has more to do than
    processors."""
    body = {
        "model": f"{MARK}{model}",
        "messages": [{"role": "user", "content": "Go on."}],
        "max_tokens": tokens,
        "stream": True,
        "peerd": {"window_ms": WINDOW_MS},
    }
    begin_s, times = time.perf_counter(), []
    async with client.stream("POST", "/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if "request.no_bids" in line or "request.not_connected" in line:
                return []
            if '"error"' in line or answer.status_code != 200:
                raise RuntimeError(line)
            if '" word' in line:
                times.append(time.perf_counter() - begin_s)
                came()
    return times


async def idle_ns_per_s(sides: tuple["Side", "Side"]) -> list[float]:
    """What each side computes while nothing is asked."""
    begin_s, before = time.perf_counter(), [side.cpu_ns() for side in sides]
    await trio.sleep(IDLE_S)
    elapsed_s = time.perf_counter() - begin_s
    return [(side.cpu_ns() - was) / elapsed_s for side, was in zip(sides, before, strict=True)]


async def first_tokens(role: str, requests: int, tokens: int) -> Json:
    """One request after the other: what comes on top of the engine's own time.

    The engine waits before its first token and after it, so that what was computed by then is
    what the first token took. What a side computes anyway is taken off.
    """
    spent_ms: tuple[list[float], list[float]] = [], []
    waits: list[float] = []
    with market(role, tokens) as (requester, provider, _):
        sides = requester, provider
        async with open_client(requester) as client:
            idle = await idle_ns_per_s(sides)
            for _ in range(requests):
                before, at_first = [side.cpu_ns() for side in sides], []

                def came() -> None:
                    at_first.append([side.cpu_ns() for side in sides])  # noqa: B023

                times = await request(client, "paced", 2, came)
                if times:
                    waits.append(times[0])
                    for side, spent in enumerate(spent_ms):
                        own_ns = at_first[0][side] - before[side] - idle[side] * times[0]
                        spent.append(own_ns / NS_PER_MS)
                await trio.sleep(SETTLE_S)
    known_ms = TTFT_MS + (0 if role == "offers" else WINDOW_MS)
    return {
        "engine_ttft_ms": TTFT_MS,
        "window_ms": 0 if role == "offers" else WINDOW_MS,
        "without_bids": requests - len(waits),
        "ttft_added_ms": round(statistics.median(waits) * 1_000 - known_ms, 2),
        "requester_cpu_ms": round(statistics.median(spent_ms[0]), 2),
        "provider_cpu_ms": round(statistics.median(spent_ms[1]), 2),
        "cpu_ms": round(sum(map(statistics.median, spent_ms)), 2),
        "idle_cpu_ms_per_s": [round(each / NS_PER_MS, 1) for each in idle],
    }


async def streaming(streams: int, tokens: int) -> Json:
    """Streams side by side: their rate against the engine's."""
    with market("offers", tokens) as (requester, provider, _):
        async with open_client(requester) as client:
            rates: list[float] = []
            before, begin_s = (requester.cpu_ns(), provider.cpu_ns()), time.perf_counter()

            async def one() -> None:
                times = await request(client, "paced", tokens)
                # Pieces of one chunk come together: the whole answer is what is measured.
                rates.append(tokens / (times[-1] - times[0] + TOKEN_MS / 1_000))

            async with trio.open_nursery() as nursery:
                for _ in range(streams):
                    nursery.start_soon(one)
            elapsed_s = time.perf_counter() - begin_s
            spent = requester.cpu_ns() - before[0], provider.cpu_ns() - before[1]
    engine_rate = 1_000 / TOKEN_MS
    ratio = statistics.median(rates) / engine_rate
    made = streams * tokens * NS_PER_MS
    return {
        "streams": streams,
        "tokens": tokens,
        "rate_to_engine": round(ratio, 4),
        "requester_cpu_ms_per_token": round(spent[0] / made, 3),
        "provider_cpu_ms_per_token": round(spent[1] / made, 3),
        "busiest_core_share": round(max(spent) / (elapsed_s * 1e9), 3),
    }


async def throughput(
    role: str, requests: int, streams: int, tokens: int, *, profiled: bool
) -> Json:
    """Short jobs side by side: requests a second of one core's time, and where it goes."""
    with market(role, tokens, profiled=profiled) as (requester, provider, found):
        async with open_client(requester) as client:
            if profiled:
                requester.go()
                provider.go()
            left = iter(range(requests))
            before = requester.cpu_ns(), provider.cpu_ns()

            async def work() -> None:
                for _ in left:
                    await request(client, "short", 1)

            async with trio.open_nursery() as nursery:
                for _ in range(streams):
                    nursery.start_soon(work)
            spent = requester.cpu_ns() - before[0], provider.cpu_ns() - before[1]
    if profiled:
        return found
    return {
        "requester_requests_per_core_s": round(requests * 1e9 / spent[0], 1),
        "provider_requests_per_core_s": round(requests * 1e9 / spent[1], 1),
    }


async def measure(requests: int, streams: int, tokens: int) -> Json:
    """All of it, one after the other."""
    many = 4 * requests, streams, tokens
    return {
        "standing_offer": await first_tokens("offers", requests, tokens),
        "auction": await first_tokens("auction", requests, tokens),
        "streaming": await streaming(streams, tokens),
        "throughput": await throughput("offers", *many, profiled=False),
        "stages": await throughput("offers", *many, profiled=True),
        "stages_auction": await throughput("auction", *many, profiled=True),
    }


def main() -> None:
    """The bench, or one of its sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", default="", help=argparse.SUPPRESS)
    parser.add_argument("--profiled", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
        trio.run(daemon_side, asked.role, asked.profiled, asked.bootstrap, asked.tokens)
        return
    found = trio.run(measure, asked.requests, asked.streams, asked.tokens)
    if asked.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name)
        for key, value in figures.items():
            print(f"  {key:32s} {value}")


if __name__ == "__main__":
    main()
