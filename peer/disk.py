"""The operating system's files, as the log asks for them. Rule: protocol/disk.py."""

import errno
import fcntl
import os
import sys
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class RealDisk:
    """`protocol.disk.Disk` by system calls."""

    def make_directory(self, path: str) -> None:
        wanted = Path(path)
        missing = [one for one in (wanted, *wanted.parents) if not one.exists()]
        for directory in reversed(missing):
            directory.mkdir(DIRECTORY_MODE, exist_ok=True)
            self.sync_directory(str(directory.parent))
        if not wanted.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
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

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def remove(self, path: str) -> None:
        os.remove(path)

    def sync_directory(self, directory: str) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
