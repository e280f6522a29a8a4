"""One life of a daemon in memory: from its start, from what its disk holds, to its death.

A crash ends it as SIGKILL ends a process: what its tasks still do while they unwind reaches
nobody, and the next life finds what the disk kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from peer.journal import Journal
from peer.surroundings import Surroundings
from router.actions import Input
from router.fold import Fold
from simnet.clock import EventHeap
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

    def end(self) -> None:
        """The run is over, and with it this life."""
        self._incarnation = -1

    @property
    def over(self) -> bool:
        """Whether it has died, though its tasks may not know yet."""
        return self.peer.incarnation != self._incarnation

    def entropy(self, length: int) -> bytes:
        """The peer's chance, which goes on in its next life; the dead draw nothing."""
        return bytes(length) if self.over else self.peer.entropy.bytes(length)


class LifeJournal(Journal):
    """Tells its peer's `log` what is appended, durable or not. The dead append nothing."""

    life: Life

    def append_nowait(self, type: int, payload: bytes) -> int:
        """As in `Journal`."""
        if self.life.over:
            return self.durable_sequence
        self.life.peer.log.append((type, payload))
        return super().append_nowait(type, payload)


@dataclass(frozen=True, slots=True)
class LifeSurroundings(Surroundings):
    """Those of one life."""

    life: Life = field(kw_only=True)

    def open_journal(self, directory: Path, fold: Fold) -> Journal:
        """As in `Surroundings`."""
        journal = LifeJournal.open(
            directory,
            network=fold.ledger.network,
            owner=fold.ledger.owner,
            on_entry=fold.take,
            disk=self.disk,
            caller=self.caller,
        )
        assert isinstance(journal, LifeJournal)
        journal.life = self.life
        return journal


class SyncTime:
    """Makes a journal's calls here, after as long as the disk takes: `sync_ns` says it.

    The wait is an event of the queue: what comes to the node in the moment of its end, and before
    it in the queue, is written with the next call, as in the other tier.
    """

    def __init__(self, clock: EventHeap, sync_ns: Callable[[], int]) -> None:
        self._clock, self._sync_ns = clock, sync_ns

    async def run(self, call: Callable[[], None]) -> None:
        """As in `Caller`."""
        over = trio.Event()
        self._clock.after(self._sync_ns(), over.set)
        await over.wait()  # a crash, or the end of the run, breaks it off
        call()


def after_crash(
    disk: VirtualDisk,
    directory: Path,
    network: str,
    owner: bytes,
    spared: list[Record],
    lost: Record | None,
) -> VirtualDisk:
    """The disk as a crash left it: what was synced, then the records `spared` of what was written,
    and half of the first `lost` one, if there is any."""
    left = disk.crash()
    journal = Journal.open(
        directory,
        network=network,
        owner=owner,
        on_entry=lambda entry: None,
        disk=left,
    )
    for number, payload in spared:
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
