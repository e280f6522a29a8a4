"""The few things that the log asks of a file system, and the real one.

Knows nothing of records. Each call is the system call of that name and raises its OSError;
what an error means is the log's business. Tests and the simulator put faulty disks here.
Rule: protocol/log.py.
"""

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Protocol

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Disk(Protocol):
    """A file system as the log uses it; handles are the disk's own numbers."""

    def make_directory(self, path: Path) -> None:
        """Creates the directory and its missing parents, 0700, durably; fine if it exists."""

    def list(self, directory: Path) -> list[str]:
        """Names in the directory, sorted."""

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
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

    def sync_directory(self, directory: Path) -> None:
        """Returns when the names in the directory are durable."""


class RealDisk:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for directory in reversed(missing):
            directory.mkdir(DIRECTORY_MODE, exist_ok=True)
            self.sync_directory(directory.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))

    def list(self, directory: Path) -> list[str]:
        return sorted(os.listdir(directory))

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        flags = os.O_CLOEXEC | (os.O_RDWR if write else os.O_RDONLY)
        return os.open(path, flags | (os.O_CREAT if create else 0), FILE_MODE)

    def close(self, handle: int) -> None:
        os.close(handle)

    def lock(self, handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(handle, length, offset)):
            parts.append(part)
            length -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pwrite(self, handle: int, data: memoryview, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        if sys.platform == "darwin":
            # There, fsync stops at the drive's cache.
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(handle)

    def settle(self, handle: int) -> None:
        # After a failed fsync Linux keeps the unwritten pages in memory, marked clean: a later
        # process reads them back, and its own fsync succeeds, without them ever being on the
        # disk. So: write out what is still dirty, then drop the rest.
        self.fdatasync(handle)
        if sys.platform == "linux":
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync_directory(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
