"""What llama.cpp writes to its log: the only place where it says why, and what it decided.

Must not know models. Rule: engine/README.md.
"""

import ctypes
import re
import resource
import sys
from collections import deque
from pathlib import Path

import llama_cpp

from protocol.errors import EngineError

# Warnings are for people who debug the library; only its errors go to the diagnosis.
LEVEL_ERROR = 4
# llama.cpp decides at load whether the device can; it says so in the log and nowhere else.
_FLASH = re.compile(rb"Flash Attention.*?(enabled|disabled|not supported)")
# What it says of an allocation that fails, and of a thread whose stack does.
_NO_MEMORY = re.compile("alloc|memory|temporarily unavailable")
# What comes before the reason, in a model's errors and an adapter's.
_REASON = re.compile(r".*(?:error loading model|failed to apply lora adapter): ")

_errors: deque[str] = deque(maxlen=64)
_flash: deque[bytes] = deque(maxlen=1)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp is not typed
def _log(level: int, text: bytes, _user_data: object) -> None:
    if said := _FLASH.search(text):
        _flash.append(said[1])
    if level == LEVEL_ERROR:
        line = text.decode("utf-8", "replace")
        _errors.append(line)
        sys.stderr.write(line)


def listen() -> None:
    """Once in a process, before the library is used."""
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))


def forget() -> None:
    """What was said so far concerns another model."""
    _errors.clear()
    _flash.clear()


def load_error(path: Path) -> EngineError:
    """From the first error that was logged: the others only say what followed from it."""
    first = _errors[0].strip() if _errors else ""
    reason = _REASON.match(first)
    why = first[reason.end() if reason else 0 :][:160] or "llama.cpp can't load it"
    # At its memory limit a process may even lack what it takes to hear the library's error.
    limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
    no_room = _NO_MEMORY.search(why) or (limited and not first)
    return EngineError("engine.no_room" if no_room else "engine.bad_model", f"{path}: {why}")


def flash_attention() -> str:
    """What was decided: on, off, or auto where nothing was said."""
    return "auto" if not _flash else "on" if _flash[0] == b"enabled" else "off"
