"""What was found out about model files, kept between starts: SHA-256 and last self-test.

One small JSON file, 0600, replaced as a whole. It only saves time: one that is broken, too
long, or writable by others is ignored and made anew. A file is known by its fingerprint
(device, inode, size, time of change), so moving it costs nothing and changing it asks again.
Two writers at once may lose a note, which is then made again. Must not know llama.cpp or
processes. Rule: engine/README.md.
"""

import os
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.catalogue import Fingerprint, hash_file
from protocol import limits
from protocol.units import NS_PER_S

Whole = Annotated[int, Meta(ge=0, le=limits.U63_MAX)]
Text = Annotated[str, Meta(max_length=256)]


class Trial(msgspec.Struct, frozen=True):
    """A self-test: when (Unix seconds), under which conditions, and what it measured.

    `why` is "" when it passed. `prefill_ns` and `step_ns` are as in `engine.frames.Speed`.
    """

    at_s: Whole
    conditions: Text
    load_ns: Whole
    prefill_ns: Whole
    step_ns: Annotated[tuple[Whole, ...], Meta(max_length=limits.ENGINE_PLACES_MAX)]
    why: Text = ""

    @property
    def passed(self) -> bool:
        """Whether the model worked."""
        return not self.why


class _Note(msgspec.Struct, frozen=True):
    # Numbers of a file system may use all of 64 bits.
    file: tuple[int, int, int, int]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    trial: Trial | None = None


class _Page(msgspec.Struct, frozen=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    notes: Annotated[tuple[_Note, ...], Meta(max_length=limits.MODEL_NOTES_MAX)]


class ModelNotes:
    """The notes in the file at `path`; None keeps them in memory only. Safe in any thread."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._notes: dict[Fingerprint, _Note] = _read(path)

    def digest(self, path: Path, mark: Fingerprint) -> bytes:
        """SHA-256 of the file with this fingerprint, read only if it is not known. OSError."""
        note = self._notes.get(mark)
        if note is not None:
            return bytes.fromhex(note.sha256)
        digest = hash_file(path, mark)
        # Changed twice within its clock's granularity, a file may keep its fingerprint.
        if time.time_ns() - mark[3] >= limits.MODEL_SETTLED_NS:
            self._write(_Note(mark, digest.hex()))
        return digest

    def trial(self, mark: Fingerprint) -> Trial | None:
        """The last self-test of the file with this fingerprint."""
        note = self._notes.get(mark)
        return note.trial if note else None

    def record(self, mark: Fingerprint, digest: bytes, trial: Trial) -> None:
        """Keep the outcome of a self-test. Blocking: it writes the file."""
        self._write(_Note(mark, digest.hex(), trial))

    def _write(self, note: _Note) -> None:
        with self._lock:
            if self._path is not None:
                self._notes.update(_read(self._path))
            # The newest last: the oldest are forgotten first.
            self._notes.pop(note.file, None)
            self._notes[note.file] = note
            while len(self._notes) > limits.MODEL_NOTES_MAX:
                del self._notes[next(iter(self._notes))]
            if self._path is not None:
                # A disk that is full or read-only costs the memory, not the models.
                with suppress(OSError):
                    _replace(
                        self._path, msgspec.json.encode(_Page(1, tuple(self._notes.values())))
                    )


def passed_trial(
    conditions: str, load_ns: int, prefill_ns: int, step_ns: tuple[int, ...]
) -> Trial:
    """A self-test that has just passed."""
    return Trial(time.time_ns() // NS_PER_S, conditions, load_ns, prefill_ns, step_ns)


def failed_trial(conditions: str, why: str) -> Trial:
    """A self-test that has just failed."""
    return Trial(time.time_ns() // NS_PER_S, conditions, 0, 0, (), why[:256] or "failed")


def _read(path: Path | None) -> dict[Fingerprint, _Note]:
    """The notes of a file; none unless it is ours alone, small enough and well formed."""
    if path is None:
        return {}
    try:
        # Not blocking: somebody may have put a pipe there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if not ours or status.st_mode & 0o077:
                return {}
            data = file.read(limits.MODEL_NOTES_BYTES_MAX + 1)
        if len(data) > limits.MODEL_NOTES_BYTES_MAX:
            return {}
        page = msgspec.json.decode(data, type=_Page)
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return {note.file: note for note in page.notes}


def _replace(path: Path, data: bytes) -> None:
    """Write a whole new file, 0600, in the place of the old one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
