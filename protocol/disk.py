"""The few things that the log asks of a file system: an interface, without one behind it.

The daemon's is the operating system's (peer/disk.py), the simulator's is virtual and can fail
(simnet/disk.py). Each call raises OSError as the system call of that name does; what an error
means is the log's business. Paths are text, joined by "/". Rule: protocol/log.py.
"""

from typing import Protocol


class Disk(Protocol):
    """A file system as the log uses it; handles are the disk's own numbers."""

    def make_directory(self, path: str) -> None:
        """Creates the directory and its missing parents, 0700, durably; fine if it exists."""

    def list(self, directory: str) -> list[str]:
        """Names in the directory, sorted; FileNotFoundError where there is none."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        """Opens a file, 0600 when created; with `create` it may exist and is not emptied."""

    def close(self, handle: int) -> None:
        """Gives the handle back, and a lock that was taken through it."""

    def lock(self, handle: int) -> bool:
        """Takes the file's exclusive lock without waiting; False where another has it."""

    def size(self, handle: int) -> int:
        """Length of the file in bytes."""

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes at `offset`; fewer only at the end of the file."""

    def pwrite(self, handle: int, data: memoryview, offset: int) -> int:
        """Writes at `offset` and returns how many bytes went in, perhaps fewer than all."""

    def truncate(self, handle: int, size: int) -> None:
        """Cuts the file to `size` bytes."""

    def fdatasync(self, handle: int) -> None:
        """Returns when the file's bytes, and the length that reading them needs, are durable."""

    def settle(self, handle: int) -> None:
        """Makes what is read next be what the disk holds, not what memory still does."""

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name, in place of whatever had it."""

    def remove(self, path: str) -> None:
        """Takes the file's name away; durable with the directory's next sync."""

    def sync_directory(self, directory: str) -> None:
        """Returns when the names in the directory are durable."""
