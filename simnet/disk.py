"""A disk in virtual memory that keeps what was synced apart from what was not, and fails.

Implements `protocol.disk.Disk`. What a real one may do, this one can be told to do: take part of
a write, have no room, fail a write or a sync, turn read-only, flip a bit, and, in a crash, lose
what was not synced, keep some of it, tear it inside a sector or keep its sectors out of order.
"""

import errno
import os
from collections.abc import Callable

SECTOR_BYTES = 512
_ENDLESS = 1 << 40

# Picks a number from 0 up to, not with, its argument; for crashes that have a choice.
Choose = Callable[[int], int]


class VirtualFile:
    """One file: what memory holds, what the disk holds, and whether memory lies.

    It lies after a failed sync, as on Linux: what was not written is kept and is marked clean.
    """

    def __init__(self, durable: bytes = b"") -> None:
        self.content = durable
        self.durable = durable
        self.lying = False

    def sync(self, content: bytes) -> None:
        """The bytes are on the disk, unless memory lies about them."""
        if not self.lying:
            self.durable = content


class VirtualDisk:
    """Files by path, with faults that are set from outside.

    `on[operation]` is called before the operation of that name, and `counts` counts those.
    """

    def __init__(self) -> None:
        self.files: dict[str, VirtualFile] = {}
        self.directories: set[str] = set()
        self.durable_names: dict[str, VirtualFile] = {}
        self.locked: set[str] = set()
        self.handles: dict[int, str] = {}
        self.counts: dict[str, int] = {}
        self.on: dict[str, Callable[[], None]] = {}
        self.write_bytes_max = _ENDLESS
        self.space_bytes = _ENDLESS
        self.read_only = False
        self._opened = 0
        self._held: dict[int, VirtualFile] = {}

    # --- faults ----------------------------------------------------------------------------

    def fail(self, operation: str, error: int, *, after: int = 0, times: int = _ENDLESS) -> None:
        """The operation of that name raises from the call on that `after` others precede, and
        succeeds again after so many `times`, as a sync does that is tried again."""
        calls = 0

        def raise_error() -> None:
            nonlocal calls
            calls += 1
            if after < calls <= after + times:
                raise OSError(error, os.strerror(error))

        self.on[operation] = raise_error

    def flip(self, path: str, place: int, bit: int = 4) -> None:
        """One bit of a file decays, on the disk and in memory."""
        file = self.files[path]
        changed = bytearray(file.content)
        changed[place] ^= 1 << bit
        file.content = file.durable = bytes(changed)

    def crash(self, keep_bytes: int = 0) -> "VirtualDisk":
        """The disk after power was lost: `keep_bytes` of each tail that was not synced made it."""

        def kept(old: bytes, new: bytes) -> bytes:
            return new[: len(old) + keep_bytes] if new[: len(old)] == old else old

        return self._after(kept)

    def crash_torn(self, choose: Choose) -> "VirtualDisk":
        """As `crash`, with a tail cut anywhere and the sector of the cut half old, half new."""

        def torn(old: bytes, new: bytes) -> bytes:
            cut = len(old) + choose(len(new) - len(old) + 1)
            end = min(len(new), (cut // SECTOR_BYTES + 1) * SECTOR_BYTES)
            garbage = bytes(choose(256) for _ in range(choose(end - cut + 1)))
            return new[:cut] + garbage

        return self._after(lambda old, new: torn(old, new) if new[: len(old)] == old else old)

    def crash_reordered(self, choose: Choose) -> "VirtualDisk":
        """Each sector that was not synced made it or not, as `choose(2)` says, and so did the
        length, up to any of them; what is between them reads as zeros."""

        def reordered(old: bytes, new: bytes) -> bytes:
            size = len(old) + choose(max(0, len(new) - len(old)) + 1)
            result = bytearray(old.ljust(size, b"\0"))
            for start in range(0, size, SECTOR_BYTES):
                stop = min(size, start + SECTOR_BYTES)
                if new[start:stop] != bytes(result[start:stop]) and choose(2):
                    result[start:stop] = new[start:stop]
            return bytes(result)

        return self._after(reordered)

    def _after(self, survive: Callable[[bytes, bytes], bytes]) -> "VirtualDisk":
        after = VirtualDisk()
        after.directories = set(self.directories)
        for path in sorted(self.durable_names):
            file = self.durable_names[path]
            left = file.durable if file.lying else survive(file.durable, file.content)
            after.files[path] = VirtualFile(left)
        after.durable_names = dict(after.files)
        return after

    def _call(self, name: str, *, writes: bool = False) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.on.get(name, lambda: None)()
        if writes and self.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # --- the interface ---------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        self._call("make_directory", writes=path not in self.directories)
        self.directories.add(path)

    def list(self, directory: str) -> list[str]:
        if directory not in self.directories:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        start = directory + "/"
        return sorted(path[len(start) :] for path in self.files if path.startswith(start))

    def open(self, path: str, *, write: bool = False, create: bool = False) -> int:
        self._call("open", writes=write)
        if path not in self.files and not create:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._opened += 1
        self.handles[self._opened] = path
        self._held[self._opened] = self.files.setdefault(path, VirtualFile())
        return self._opened

    def close(self, handle: int) -> None:
        self.locked.discard(self.handles.pop(handle))
        del self._held[handle]

    def lock(self, handle: int) -> bool:
        path = self.handles[handle]
        taken = path not in self.locked
        self.locked.add(path)
        return taken

    def size(self, handle: int) -> int:
        return len(self._held[handle].content)

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        self._call("pread")
        return self._held[handle].content[offset : offset + length]

    def pwrite(self, handle: int, data: memoryview, offset: int) -> int:
        self._call("pwrite", writes=True)
        file = self._held[handle]
        taken = bytes(data[: min(self.write_bytes_max, self.space_bytes)])
        if not taken and self.space_bytes == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.space_bytes -= len(taken)
        before = file.content[:offset].ljust(offset, b"\0")
        file.content = before + taken + file.content[offset + len(taken) :]
        return len(taken)

    def truncate(self, handle: int, size: int) -> None:
        self._call("truncate", writes=True)
        file = self._held[handle]
        file.content = file.content[:size].ljust(size, b"\0")

    def fdatasync(self, handle: int) -> None:
        file = self._held[handle]
        content = file.content
        try:
            self._call("fdatasync")
        except OSError:
            file.lying = True
            raise
        file.sync(content)

    def settle(self, handle: int) -> None:
        self._call("settle")
        file = self._held[handle]
        file.sync(file.content)
        file.content = file.durable
        file.lying = False

    def rename(self, old: str, new: str) -> None:
        self._call("rename", writes=True)
        self.files[new] = self.files.pop(old)

    def remove(self, path: str) -> None:
        self._call("remove", writes=True)
        del self.files[path]

    def sync_directory(self, directory: str) -> None:
        self._call("sync_directory")
        start = directory + "/"
        others = {p: f for p, f in self.durable_names.items() if not p.startswith(start)}
        here = {p: f for p, f in self.files.items() if p.startswith(start)}
        self.durable_names = others | here
