"""One model in one process with one thread: `python -m engine.worker <pid of the daemon>`.

llama.cpp aborts on what it does not like, and a busy loop beside it would starve it of the
interpreter: so it lives alone. Reads frames from its input, writes frames to its output, and
dies with the daemon. Must not know the market, the network or trio. Rule: engine/README.md.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def isolate(parent_pid: int) -> tuple[int, int]:
    """Make this process a good child; the descriptors of its input and output.

    Ctrl-C is the daemon's business. An abort leaves no core and starts no debugger. The death
    of the daemon kills, even in the middle of a step. Whatever a library prints goes to
    stderr, never between frames.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["GGML_NO_BACKTRACE"] = "1"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The daemon may have died before the line above.
    if os.getppid() != parent_pid:
        sys.exit(1)
    input_fd, output_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return input_fd, output_fd


def main() -> int:
    """Serve until the input ends; the exit status."""
    input_fd, output_fd = isolate(int(sys.argv[1]))
    # After `isolate`: what these import may already fail or print.
    from engine.frames import Failed, Load
    from engine.pipe import Pipe
    from engine.service import Service
    from protocol.errors import EngineError

    pipe = Pipe(input_fd, output_fd)
    try:
        while not pipe.is_closed:
            pipe.wait(None)
            for message in pipe.receive():
                if isinstance(message, Load):
                    Service(Path(os.fsdecode(message.path)), message, pipe).serve()
                    return 0
    except EngineError as error:
        pipe.send(Failed(error.code, error.detail))
        return 1
    except MemoryError:
        pipe.send(Failed("engine.no_room", "the worker reached its memory limit"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
