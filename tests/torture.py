"""Real daemons stream jobs while one after another is killed with kill -9; money must add up.

    python -m tests.torture --kills 100 [--seed 1] [--providers 2] [--askers 3] [--json]

Killed are daemons, some of them while channels close or are topped up, and engine workers. After
every kill: the victim's log verifies, no total that was ever seen has gone back, and the
two ends of every channel agree within W and a chunk. At the end every provider answers again,
all channels close, and all logs are audited against each other. Every job has to finish, fail
with a code, or be cut off by the death of the daemon that was asked. Exit status 1 if not.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from peer.cli.audit import audit
from protocol import limits
from protocol.errors import CODES
from tests.e2e.judging import check_windows, ledger_of, shared_channels
from tests.e2e.support import (
    LONG_PROMPT,
    NETWORK,
    Daemon,
    Json,
    Market,
    ask_params,
    provider_flags,
    until,
)

# So that a job of 8 to 80 tokens takes 0.1 to 1.3 s: most kills hit some in mid-stream.
STEPS_PER_S = 60
ALIVE_S = (0.05, 1.5)
TOP_UP_UCR = 10_000
# One fewer than what withdraws a model.
WORKER_DEATHS_MAX = limits.ENGINE_CRASHES_MAX - 1


def free_port() -> int:
    """A port that keeps its number over restarts, so that peers find each other again."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Tally:
    """What became of the jobs; `wrong` are ends that nothing explains."""

    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cut_off: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, last: Json | None, *, died: bool) -> None:
        """Count one job by its last event; `died`: the daemon that was asked, meanwhile."""
        ended = last is not None and ("error" in last or last["event"] in ("done", "failed"))
        with self.lock:
            if died and not ended:
                self.cut_off += 1
            elif last is None:
                self.wrong.append("nothing was answered")
            elif last.get("event") == "done":
                self.done += 1
            elif last.get("event") == "failed" and last["code"] in CODES:
                self.failed[last["code"]] += 1
            elif last.get("error") in CODES:
                self.refused += 1
            else:
                self.wrong.append(json.dumps(last)[:200])


class Asker(threading.Thread):
    """Asks the requester's daemon one long job after another."""

    def __init__(self, requester: Daemon, moments: Counter[str], tally: Tally, seed: int) -> None:
        super().__init__(daemon=True)
        self._moments = moments
        self._requester = requester
        self._tally = tally
        self._rng = random.Random(seed)
        self.stop = threading.Event()

    def run(self) -> None:
        """Until `stop`; a daemon that is down is asked again a little later."""
        while not self.stop.is_set():
            params = ask_params(
                messages=[["user", LONG_PROMPT]],
                max_tokens=self._rng.randint(8, 80),
                bid_window_ms=200,
                timeout_ms=15_000,
            )
            before = self._moments[self._requester.directory.name]
            last: Json | None = None
            try:
                for event in self._requester.stream("ask", **params):
                    last = event
            except (ConnectionRefusedError, FileNotFoundError):
                self.stop.wait(0.1)
                continue
            except (OSError, ValueError):
                pass
            after = self._moments[self._requester.directory.name]
            self._tally.add(last, died=after != before or before % 2 == 1)


class Torture:
    """The daemons, what was seen of their totals, and the kills."""

    def __init__(self, home: Path, stack: ExitStack, providers: int) -> None:
        port = free_port()
        listen = "/ip4/127.0.0.1/tcp/{}"
        self.market = Market(home, stack, "--listen", listen.format(port))
        self.requester = self.market.requester
        known = f"{listen.format(port)}/p2p/{self.requester.peer_id}"
        self.market.flags = ()
        flags = provider_flags(steps_per_s_max=STEPS_PER_S)
        ports = [free_port() for _ in range(providers)]
        offers = [(*flags, "--listen", listen.format(one), "--bootstrap", known) for one in ports]
        self.providers = self.market.sell(*offers)
        bootstraps = [
            part
            for one, provider in zip(ports, self.providers, strict=True)
            for part in ("--bootstrap", f"{listen.format(one)}/p2p/{provider.peer_id}")
        ]
        self.requester.flags = (*self.requester.flags, *bootstraps)
        self.kills: Counter[str] = Counter()
        # Odd from before a kill until after the start that follows it.
        self.moments: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self._totals: dict[tuple[str, bytes], int] = {}

    def move(self, rng: random.Random) -> None:
        """Begin to close all channels, or to raise a deposit, so that the next kill finds it."""
        method = rng.choice(["close", "topup"])
        thread = threading.Thread(target=self._move, args=(method, rng.randrange(99)), daemon=True)
        thread.start()
        time.sleep(rng.uniform(0, 0.06))

    def _move(self, method: str, pick: int) -> None:
        with suppress(OSError, ValueError):  # the requester is the one that is killed
            params: Json = {}
            if method == "topup":
                live = [c for c in self.requester.channels() if c["settled_ucr"] is None]
                if not live:
                    return
                channel = live[pick % len(live)]
                deposit = channel["deposit_ucr"] + TOP_UP_UCR
                params = {"channels": [channel["channel"]], "deposit_ucr": deposit}
            self.moved[method] += 1
            self.requester.call(method, **params)

    def kill_worker(self, provider: Daemon) -> bool:
        """kill -9 an engine's worker; its daemon goes on. False: it died often enough lately."""
        (health,) = provider.status()["engine"]
        if health["stage"] != "serving" or health["restarts"] >= WORKER_DEATHS_MAX:
            return False
        os.kill(health["pid"], signal.SIGKILL)
        self.kills[f"{provider.directory.name}'s worker"] += 1
        return True

    def kill(self, victim: Daemon) -> None:
        """kill -9, judge what lies on the disks, start it again."""
        self.kills[victim.directory.name] += 1
        self.moments[victim.directory.name] += 1
        victim.kill()
        self.judge(victim)
        victim.start()
        self.moments[victim.directory.name] += 1

    def judge(self, victim: Daemon) -> None:
        """AssertionError when the victim's log is bad, a total went back, or ends disagree."""
        others = [provider for provider in self.providers if provider is not victim]
        for provider in self.providers if victim is self.requester else [victim]:
            for ends in shared_channels(self.requester, provider):
                check_windows(ends)
        for daemon in (victim, *others):
            for cid, channel in ledger_of(daemon).channels.items():
                key = (daemon.directory.name, cid)
                assert channel.total_ucr >= self._totals.get(key, 0), (key, channel)
                self._totals[key] = channel.total_ucr

    def settle(self) -> Json:
        """Everybody answers again, channels close, logs agree with each other."""
        self.market.wait_joined()
        for provider in self.providers:

            def answers(provider: Daemon = provider) -> bool:
                events = self.requester.ask(
                    max_tokens=8, providers_only=[provider.peer_id], bid_window_ms=2_000
                )
                return events[-1].get("event") == "done"

            until(answers, f"{provider.directory.name} serves again")
        until(lambda: all(not one.status()["running_jobs"] for one in self.providers), "idle")

        def all_closed() -> bool:
            self.requester.call("close")
            return all(item["settled_ucr"] is not None for item in self.requester.channels())

        until(all_closed, "all channels close")
        directories = [self.requester.directory, *(one.directory for one in self.providers)]
        return audit(directories, NETWORK)


def run(kills: int, seed: int, providers: int, askers: int) -> Json:
    """The whole torture; what it counted and found."""
    rng = random.Random(seed)
    tally = Tally()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peerd-torture-") as home, ExitStack() as stack:
        torture = Torture(Path(home), stack, providers)
        threads = [
            Asker(torture.requester, torture.moments, tally, seed * 1_000 + one)
            for one in range(askers)
        ]
        for thread in threads:
            thread.start()
        daemons = [torture.requester, *torture.providers]
        for number in range(1, kills + 1):
            time.sleep(rng.uniform(*ALIVE_S))
            if number % 5 == 0 and torture.kill_worker(rng.choice(torture.providers)):
                continue
            if number % 3 == 0:
                torture.move(rng)
            torture.kill(rng.choice(daemons))
            print(
                f"\r{number} of {kills} kills, {tally.done} jobs done",
                end="",
                file=sys.stderr,
                flush=True,
            )
        print(file=sys.stderr)
        for thread in threads:
            thread.stop.set()
        for thread in threads:
            thread.join(60)
        findings = torture.settle()
        channels = sum(len(ledger_of(one).channels) for one in daemons)
    return {
        "kills": kills,
        "seed": seed,
        "victims": dict(torture.kills),
        "begun_before_a_kill": dict(torture.moved),
        "jobs_done": tally.done,
        "jobs_failed": dict(tally.failed),
        "jobs_cut_off": tally.cut_off,
        "jobs_refused": tally.refused,
        "jobs_wrong": tally.wrong,
        "channel_ends": channels,
        **findings,
        "seconds": round(time.monotonic() - started, 1),
        "ok": all(findings.values()) and not tally.wrong and tally.done > 0,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="kill -9 among real daemons")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--providers", type=int, default=2)
    parser.add_argument("--askers", type=int, default=3)
    parser.add_argument("--json", action="store_true", dest="as_json")
    flags = parser.parse_args()
    found = run(flags.kills, flags.seed, flags.providers, flags.askers)
    if flags.as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:14} {value}")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
