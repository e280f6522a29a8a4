"""Daemons in processes of their own, as people run them.

Everything is real: the command line, libp2p on loopback ports that the system chooses,
llama.cpp on the embedded model, files in temporary directories.
"""

import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from peer.cli.identity import initialize

Json = dict[str, Any]

NETWORK = "e2e"
LISTEN = "/ip4/127.0.0.1/tcp/0"
PROMPT = "What is the capital of France?"
# The embedded model's longest answer: about 100 tokens, where PROMPT gets 40.
LONG_PROMPT = "Explain how payment works in peerd."
# Generous: the machine is shared, and nothing here waits for it to pass.
PATIENCE_S = 60.0


def command(*arguments: str) -> list[str]:
    """`peerd` with these arguments, of the environment that runs the tests."""
    return [sys.executable, "-m", "peer.cli", *arguments]


def environment(**values: str) -> dict[str, str]:
    """This process's environment without settings of peerd, and with `values`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PEERD_")}
    return {**kept, "COLUMNS": "100", **values}


def hear_interrupts() -> None:
    """In the new process: what a shell starts in the background, a test run too, hands on that
    Ctrl-C is ignored, and Python then leaves it so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(*arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    """A command of peerd, to its end; `values` are environment variables."""
    return subprocess.run(
        command(*arguments),
        env=environment(**values),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def run_json(*arguments: str) -> Json:
    """What a command that must succeed prints with `--json`."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def until(condition: Callable[[], object], what: str) -> None:
    """Ask again and again, for at most PATIENCE_S, until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def ask_params(**changes: Any) -> Json:
    """A greedy request; with `providers_only` the long window ends once they all have bid."""
    params: Json = {
        "model": "embedded",
        "messages": [["user", PROMPT]],
        "chat": True,
        "max_tokens": 40,
        "temperature_milli": 0,
        "seed": 1,
        "stop": [],
        "max_price_ucr": 1_000_000,
        "deposit_ucr": 1_000_000,
        "advance_ucr": 100_000,
        "bid_window_ms": 10_000,
        "timeout_ms": 50_000,
        "price_weight": 1_000,
    }
    return {**params, **changes}


class Daemon:
    """One `peerd run` on a data directory; may be killed and started again."""

    started: list["Daemon"] = []  # noqa: RUF012 - all of this process, for reports of failures

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self.flags = flags
        self.settings: dict[str, str] = {}
        self.file_bytes_max = resource.RLIM_INFINITY
        self.ready: Json = {}
        self.process: subprocess.Popen[str] | None = None
        if not (directory / "key").exists():
            initialize(directory)
        Daemon.started.append(self)

    @property
    def log_path(self) -> Path:
        """What it wrote to stderr, over all its lives."""
        return self.directory / "stderr.log"

    def launch(self) -> "Daemon":
        """Start the process and return at once."""
        flags = ("--network", NETWORK, "--listen", LISTEN, *self.flags)
        with self.log_path.open("ab") as errors:
            self.process = subprocess.Popen(
                command("run", "--json", "--data", str(self.directory), *flags),
                env=environment(**self.settings),
                preexec_fn=self._limit_files,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self

    def _limit_files(self) -> None:
        """In the new process: a write beyond the limit fails, as on a full disk."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes_max, hard))

    def wait_ready(self) -> "Daemon":
        """Until it says that it listens."""
        assert self.process is not None
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_S), "the daemon says nothing"
        line = self.process.stdout.readline()
        assert line, f"the daemon ended: {self.log_path.read_text()[-500:]}"
        self.ready = json.loads(line)
        return self

    def start(self) -> "Daemon":
        """Start it and wait until it listens."""
        return self.launch().wait_ready()

    @property
    def peer_id(self) -> str:
        """Who it is."""
        return str(self.ready["peer_id"])

    @property
    def address(self) -> str:
        """Where it listens now."""
        return str(self.ready["addresses"][0])

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_exit(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status, once it ended."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """kill -9, and gone."""
        self.signal(signal.SIGKILL)
        self.wait_exit()

    def begin_end(self) -> None:
        """Ask it to stop."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)

    def end(self) -> None:
        """Orderly when it can be, gone in any case."""
        self.begin_end()
        if self.process is None:
            return
        if self.running:
            try:
                self.wait_exit(15)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()

    # --- the control socket ----------------------------------------------------------------

    def stream(self, method: str, **params: Any) -> Iterator[Json]:
        """The answers to a call as they come, the error's line included."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(self.directory / "control.sock"))
            connection.sendall(json.dumps({"method": method, "params": params}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    value = json.loads(line)
                    if "error" in value or not value.get("end"):
                        yield value

    def call(self, method: str, **params: Any) -> list[Json]:
        """All answers to a call."""
        return list(self.stream(method, **params))

    def status(self) -> Json:
        """Who and where it is, and what runs."""
        return self.call("status")[0]

    def channels(self) -> list[Json]:
        """Its channels."""
        listed: list[Json] = self.call("channels")[0]["channels"]
        return listed

    def ask(self, **changes: Any) -> list[Json]:
        """All events of one request."""
        return self.call("ask", **ask_params(**changes))

    def ask_stream(self, **changes: Any) -> Iterator[Json]:
        """The events of one request as they come."""
        return self.stream("ask", **ask_params(**changes))


def provider_flags(*, output_price: str = "60", steps_per_s_max: int = 0) -> tuple[str, ...]:
    """A daemon that sells the embedded model."""
    return (
        *("--model", "embedded", "--threads", "1", "--places", "4"),
        *("--input-price", "15", "--output-price", output_price),
        *("--steps-per-s-max", str(steps_per_s_max)),
    )


class Market:
    """A requester daemon and the providers that joined by it; ended with the stack."""

    def __init__(self, home: Path, stack: ExitStack, *flags: str) -> None:
        self.home = home
        self.flags = flags
        self._daemons: list[Daemon] = []
        stack.callback(self._end)
        self.requester = self.add("requester").start()
        self.providers: list[Daemon] = []

    def add(self, name: str, *flags: str) -> Daemon:
        """A daemon that is not started yet."""
        daemon = Daemon(self.home / name, *flags, *self.flags)
        self._daemons.append(daemon)
        return daemon

    def _end(self) -> None:
        """End all, side by side; each is ended even when another can't be."""
        with ExitStack() as ending:
            for daemon in self._daemons:
                daemon.begin_end()
                ending.callback(daemon.end)

    def sell(self, *offers: tuple[str, ...], **settings: str) -> list[Daemon]:
        """Start providers with these flags and variables, and wait until all can be asked."""
        bootstrap = ("--bootstrap", self.requester.address)
        new = []
        for flags in offers:
            daemon = self.add(f"provider-{len(self.providers)}", *flags, *bootstrap)
            daemon.settings = settings
            self.providers.append(daemon)
            new.append(daemon.launch())
        for daemon in new:
            daemon.wait_ready()
        self.wait_joined()
        return new

    def wait_joined(self) -> None:
        """Until the requester is heard by every provider that runs."""
        alive = [provider for provider in self.providers if provider.running]

        def joined() -> bool:
            status = self.requester.status()
            met = {provider.peer_id for provider in alive} <= set(status["peers"])
            return met and status["topic_peers"] >= len(alive)

        until(joined, "the providers join")
