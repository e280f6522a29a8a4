"""One life of a daemon in memory: from its start, from what its disk holds, to its death.

A crash ends it as SIGKILL ends a process: what its tasks still do while they unwind reaches
nobody, and the next life finds what the disk kept.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from peer.journal import Journal
from peer.surroundings import Surroundings
from protocol.units import NS_PER_S
from router.actions import Input
from router.fold import Fold
from simnet.disk import VirtualDisk
from simnet.peer import Peer

Record = tuple[int, bytes]


class Life:
    """Which of a peer's daemons this is. `asks` runs its requests while it is up; what comes in
    the moment of its start waits in `early`."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self._incarnation = peer, peer.incarnation
        self.scope = trio.CancelScope()
        self.asks: trio.Nursery | None = None
        self.early: list[Input] = []

    @property
    def over(self) -> bool:
        """Whether it has died, though its tasks may not know yet."""
        return self.peer.incarnation != self._incarnation

    def entropy(self, length: int) -> bytes:
        """The peer's chance, which goes on in its next life; the dead draw nothing."""
        return bytes(length) if self.over else self.peer.entropy.bytes(length)


class WatchedJournal(Journal):
    """Tells what is appended, durable or not."""

    wrote: Callable[[Record], None]

    def append_nowait(self, type: int, payload: bytes) -> int:
        """As in `Journal`."""
        sequence = super().append_nowait(type, payload)
        self.wrote((type, payload))
        return sequence


@dataclass(frozen=True, slots=True)
class LifeSurroundings(Surroundings):
    """Those of one life; its peer's `log` is what was appended."""

    life: Life = field(kw_only=True)

    def open_journal(self, directory: Path, fold: Fold) -> Journal:
        """As in `Surroundings`."""
        journal = WatchedJournal.open(
            directory,
            network=fold.ledger.network,
            owner=fold.ledger.owner,
            on_entry=fold.take,
            disk=self.disk,
            caller=self.caller,
        )
        assert isinstance(journal, WatchedJournal)
        life, log = self.life, self.life.peer.log

        def wrote(record: Record) -> None:
            if not life.over:
                log.append(record)

        journal.wrote = wrote
        return journal


class SyncTime:
    """Makes a journal's calls here, after as long as the disk takes: `sync_ns` says it."""

    def __init__(self, sync_ns: Callable[[], int]) -> None:
        self._sync_ns = sync_ns

    async def run(self, call: Callable[[], None]) -> None:
        """As in `Caller`."""
        with trio.CancelScope(shield=True):
            await trio.sleep(self._sync_ns() / NS_PER_S)
        call()


def after_crash(
    disk: VirtualDisk, directory: Path, network: str, owner: bytes, kept: list[Record], lost: Any
) -> VirtualDisk:
    """The disk as a crash left it: what was synced, then the records `kept` of what was written,
    and half of the first `lost` one, if there is any."""
    left = disk.crash()
    journal = Journal.open(
        directory,
        network=network,
        owner=owner,
        on_entry=lambda entry: None,
        disk=left,
        caller=lambda: nullcontext(SyncTime(int)),
    )
    for number, payload in kept:
        journal.append_nowait(number, payload)
    journal.flush()
    path = max(path for path in left.files if path.endswith(".log"))
    whole = len(left.files[path].content)
    if lost is not None:
        journal.append_nowait(*lost)
    journal.close()
    file = left.files[path]
    file.content = file.durable = file.content[: (whole + len(file.content)) // 2]
    return left
