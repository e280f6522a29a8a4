"""One run of a sweep as it is handed over, and what every kind of worker has in common."""

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from protocol.errors import ConfigError

REACH_S: Final = 5.0

Handle = TypeVar("Handle")


@dataclass(frozen=True, slots=True)
class Work:
    """One run, as it is handed to a worker."""

    point: int
    seed: int
    scenario: bytes  # TOML, resolved
    beside: str
    directory: str
    tables: bool
    check: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where runs are done: `jobs` at once, 0 for as many as it has; on whose cluster."""

    jobs: int = 0
    cluster: str = ""  # the address of a cluster that is there; empty: this machine
    hear: Callable[[str], None] = lambda line: None
    starts: Callable[[Work], None] = lambda item: None


Ended = Generator[tuple[Work, dict[str, Any]], None, None]
Engine = Callable[[Sequence[Work], Place], Ended]


def by_turns(
    items: Sequence[Work],
    place: Place,
    slots: int,
    begin: Callable[[Work], Handle],
    ended: Callable[[list[Handle]], Sequence[Handle]],
) -> Iterator[tuple[Work, Handle]]:
    """Hand all out, `slots` at a time and in order; those that ended, as they do."""
    waiting: dict[Handle, Work] = {}
    queue = list(reversed(items))
    while queue or waiting:
        while queue and len(waiting) < slots:
            item = queue.pop()
            place.starts(item)
            waiting[begin(item)] = item
        for handle in ended([*waiting]):
            yield waiting.pop(handle), handle


def reach(address: str, hello: bytes = b"", here: str = "") -> bytes:
    """See that something listens there; what it answers to `hello`, its first 9 bytes.

    `here` stands for loopback where that means this machine. ConfigError: `sweep.unreachable`,
    in seconds.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ConfigError("config.bad_value", f"--cluster {address}: expected HOST:PORT")
    if here and host in ("localhost", "127.0.0.1", "::1"):
        host = here
    try:
        with socket.create_connection((host, port), REACH_S) as connection:
            connection.sendall(hello)
            return connection.recv(9) if hello else b""
    except OSError as error:
        raise unreachable(address, error) from error


def unreachable(address: str, error: object) -> ConfigError:
    """The error of a cluster that does not answer as one."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigError("sweep.unreachable", f"--cluster {address}: {lines[0][:200]}")
