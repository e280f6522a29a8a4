"""Idempotency keys: hashes that stand for them, what the log says of them, answers on disk.

Answers lie in `answers/` of the data directory, a file a key, mode 0600, for a day. The log
holds no text, so an answer that is not there is gone, but what it cost is known.
Rule: peer/gateway/README.md, "Once".
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec
import structlog
from msgspec import Meta

from peer.daemon import Daemon
from peer.disk import FILE_MODE, RealDisk
from protocol import limits
from protocol.crypto import digest
from protocol.units import NS_PER_S
from router.actions import RequestKey
from router.keyed import Bought

log = structlog.get_logger()

DIRECTORY: Final = "answers"
_KEPT_S: Final = limits.KEYED_KEPT_NS / NS_PER_S


class KeptAnswer(msgspec.Struct, frozen=True):
    """An HTTP answer as it was sent; `body` is the request's hash."""

    body: bytes
    status: Annotated[int, Meta(ge=100, le=599)]
    headers: list[tuple[bytes, bytes]]
    content: bytes


@dataclass(slots=True)
class _File:
    size: int
    kept_at_s: float


class Answers:
    """The kept answers of a directory, within API_KEYS_MAX, API_KEPT_BYTES_MAX and a day.

    Calls read and write files: from a thread.
    """

    def __init__(self, directory: Path, now_s: Callable[[], float] = time.time) -> None:
        self._directory = directory / DIRECTORY
        self._now_s = now_s
        self._disk = RealDisk()
        self._files: dict[str, _File] = {}  # oldest first
        if not self._directory.exists():
            return
        found = []
        for path in self._directory.iterdir():
            if path.suffix:  # one that was not finished
                path.unlink(missing_ok=True)
                continue
            stat = path.stat()
            found.append((stat.st_mtime, path.name, stat.st_size))
        for at_s, name, size in sorted(found):
            self._files[name] = _File(size, at_s)
        self._make_room(0)

    def __contains__(self, name: bytes) -> bool:
        return name.hex() in self._files

    def put(self, name: bytes, answer: KeptAnswer) -> None:
        """Keep an answer, durably before this returns. OSError."""
        data = msgspec.msgpack.encode(answer)
        self._make_room(len(data))
        self._disk.make_directory(str(self._directory))
        path = self._directory / name.hex()
        unfinished = path.with_suffix(".part")
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        self._disk.sync_directory(str(self._directory))
        self._files[path.name] = _File(len(data), self._now_s())

    def get(self, name: bytes) -> KeptAnswer | None:
        """The answer of a key; None when there is none, or it can't be read."""
        self._make_room(0)
        if name.hex() not in self._files:
            return None
        try:
            data = (self._directory / name.hex()).read_bytes()
            return msgspec.msgpack.decode(data, type=KeptAnswer)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("answer.unreadable", name=name.hex(), error=str(error))
            return None

    def remove(self, name: bytes) -> None:
        """Keep the answer of a key no longer."""
        if self._files.pop(name.hex(), None) is not None:
            (self._directory / name.hex()).unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove what is too old, and the oldest while `size` bytes more are too many."""
        oldest_s = self._now_s() - _KEPT_S
        kept = sum(one.size for one in self._files.values()) + size
        for name, one in list(self._files.items()):
            full = len(self._files) + bool(size) > limits.API_KEYS_MAX
            if one.kept_at_s > oldest_s and not full and kept <= limits.API_KEPT_BYTES_MAX:
                return
            with contextlib.suppress(OSError):
                (self._directory / name).unlink()
            del self._files[name]
            kept -= one.size


class Keys:
    """What a node knows of keys."""

    def __init__(self, daemon: Daemon) -> None:
        self._ledger = daemon.ledger
        self._secret = digest(b"idempotency", key=daemon.node.context.signer.seed)
        self._orphans = frozenset(daemon.ledger.keyed.requests)
        self.answers = Answers(daemon.settings.directory)

    def key(self, path: str, key: bytes, body: bytes) -> RequestKey:
        """What stands for a key of a path, and for a body; nobody else can make either."""
        name = digest(path.encode(), b"\0", key, key=self._secret)
        return RequestKey(name, digest(name, body, key=self._secret))

    def bought(self, name: bytes) -> Bought | None:
        """What a key bought by the log; None when it cost nothing."""
        channels, book = self._ledger.channels, self._ledger.keyed
        return book.bought(name, channels, self._orphans, time.time_ns())
