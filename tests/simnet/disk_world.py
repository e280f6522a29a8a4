"""A World whose nodes keep their logs as the daemon does: real segments, on disks that fail.

What the nodes append is framed, chained, written and synced by protocol.segments, and read back
by protocol.recovery after every crash; only the trio part of the daemon's journal is not here.
"""

from collections.abc import Callable
from contextlib import suppress
from enum import Enum

from protocol import limits
from protocol.errors import StorageError
from protocol.log import SNAPSHOT_TYPE, LogWriterState
from protocol.recovery import recover
from protocol.segments import SegmentWriter
from simnet.disk import VirtualDisk, VirtualFile
from simnet.peer import Peer, SimEngine, WorldSettings
from simnet.world import World

DIRECTORY = "log"
IMAGES_MAX = 40

Choose = Callable[[int], int]


class Loss(Enum):
    """What is left of a write that was under way when the node stopped."""

    KILLED = "the process dies, the system writes on what it has"
    CLEAN = "power is cut, and nothing that was not synced is left"
    TORN = "power is cut inside a sector"
    REORDERED = "power is cut, and sectors were written in any order"


class _PowerCut(Exception):
    """Not an OSError: the node doesn't live to see it."""


def _cut_power() -> None:
    raise _PowerCut


class DiskWorld(World):
    """`repaired` counts damaged logs that were put back to what was last durable."""

    def __init__(self, settings: WorldSettings) -> None:
        super().__init__(settings)
        self.disks: list[VirtualDisk] = []
        self.repaired = 0
        self._writers: dict[int, SegmentWriter] = {}
        self._states: dict[int, LogWriterState] = {}
        self._images: list[list[dict[str, bytes]]] = []

    def add(self, engine: SimEngine | None = None) -> Peer:
        """A new peer on an empty disk."""
        peer = super().add(engine)
        self.disks.append(VirtualDisk())
        self._images.append([])
        self._open(peer)
        return peer

    def _open(self, peer: Peer) -> None:
        """Recover the log on the peer's disk. StorageError `storage.corrupt`."""
        disk, network, owner = self.disks[peer.index], self.network, peer.signer.public_key
        disk.make_directory(DIRECTORY)
        writer = SegmentWriter(disk, DIRECTORY, network, owner, limits.SEGMENT_BYTES_MAX)
        log: list[tuple[int, bytes]] = []
        report = recover(disk, writer, network, owner, lambda e: log.append((e.type, e.payload)))
        peer.log[:] = log
        peer.durable = len(log)
        self._writers[peer.index] = writer
        self._states[peer.index] = LogWriterState(report.records, report.head)

    # --- writing ---------------------------------------------------------------------------

    def _commit(self, peer: Peer, target: int) -> None:
        records, state = peer.log[peer.durable : target], self._states[peer.index]
        frames = [state.append(number, payload) for number, payload in records]
        snapshots = any(number == SNAPSHOT_TYPE for number, _ in records)
        self._writers[peer.index].commit(frames, snapshots=snapshots)

    def _synced(self, peer: Peer, incarnation: int) -> None:
        if incarnation != peer.incarnation or not peer.alive:
            return
        try:
            self._commit(peer, peer.sync_target)
        except OSError:
            self.crash(peer)  # a log that failed once is dead, and so is its node
            return
        images = self._images[peer.index]
        names = self.disks[peer.index].durable_names
        images.append({path: file.durable for path, file in names.items()})
        del images[:-IMAGES_MAX]
        super()._synced(peer, incarnation)

    # --- faults ----------------------------------------------------------------------------

    def stop_hard(self, peer: Peer, how: Loss, choose: Choose) -> None:
        """The node stops while what it had appended is being written."""
        disk = self.disks[peer.index]
        if how is not Loss.CLEAN and len(peer.log) > peer.durable:
            target = peer.durable + 1 + choose(len(peer.log) - peer.durable)
            disk.on["fdatasync"] = _cut_power
            with suppress(_PowerCut, OSError):
                self._commit(peer, target)
        super().crash(peer, len(peer.log))
        if how is Loss.KILLED:
            disk.on.clear()
            disk.locked.clear()
            return
        after = {
            Loss.CLEAN: disk.crash,
            Loss.TORN: lambda: disk.crash_torn(choose),
            Loss.REORDERED: lambda: disk.crash_reordered(choose),
        }[how]
        self.disks[peer.index] = after()

    def crash(self, peer: Peer, lost_records: int = 0) -> None:
        """As `stop_hard`, with nothing left that was not synced."""
        self.stop_hard(peer, Loss.CLEAN, lambda _: 0)

    def restart(self, peer: Peer) -> None:
        """From the disk. A log that is damaged, which only reordered writes can do, is put back
        by its operator to what was last durable; a disk that fails is given a new controller."""
        try:
            self._open(peer)
        except StorageError as error:
            if error.code == "storage.corrupt":
                self.repaired += 1
                self.put_back(peer, 0)
            else:
                self.disks[peer.index].on.clear()
                self.disks[peer.index].locked.clear()
                self._open(peer)
        super().restart(peer)

    def put_back(self, peer: Peer, commits: int) -> None:
        """A dead node's disk as it was so many commits before the last; at most to the oldest
        that is kept, or to an empty one."""
        images = self._images[peer.index]
        del images[max(1, len(images) - commits) :]
        disk = VirtualDisk()
        disk.directories.add(DIRECTORY)
        for path, content in (images[-1] if images else {}).items():
            disk.files[path] = VirtualFile(content)
        disk.durable_names = dict(disk.files)
        self.disks[peer.index] = disk
        self._open(peer)
