"""The daemon's end of one worker process: spawn, frames, diagnosis, end.

Knows nothing of jobs or models. Rule: engine/README.md.
"""

import os
import resource
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.frames import FrameBuffer, FrameError, FromWorker, ToWorker, decode_from_worker, encode
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S

# -P: a directory named `engine` where the daemon happens to run is not ours.
COMMAND = (sys.executable, "-P", "-m", "engine.worker")
READ_BYTES = 64 * 1024
HUGE_PAGES = "glibc.malloc.hugetlb=1"
# After the worker is gone its stderr ends at once; nothing else should hold it open.
STDERR_END_S = 1


def _spawn() -> subprocess.Popen[bytes]:
    """Start a worker with pipes on all three descriptors. OSError.

    Called in the thread that runs trio, on purpose: the worker asks the kernel to be killed
    when the *thread* that made it ends, and a pool thread ends after seconds of idling. It
    takes a few milliseconds.
    """
    packages = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    tunables = os.environ.get("GLIBC_TUNABLES")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{packages}{os.pathsep}{inherited}" if inherited else packages,
        "GGML_NO_BACKTRACE": "1",
        # Huge pages for what the C library allocates, where the system gives them on request:
        # 1 to 4 % faster, most with quantised weights. Another C library ignores it.
        "GLIBC_TUNABLES": f"{tunables}:{HUGE_PAGES}" if tunables else HUGE_PAGES,
    }
    return subprocess.Popen(
        [*COMMAND, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def _streams(popen: subprocess.Popen[bytes]) -> list[trio.lowlevel.FdStream]:
    """A process's input, output and stderr as trio's. OSError, with all of them closed."""
    files = [file for file in (popen.stdin, popen.stdout, popen.stderr) if file is not None]
    found: list[int] = []
    try:
        for file in files:
            # FdStream owns a descriptor, and so does Popen's file: each gets its own.
            found.append(os.dup(file.fileno()))
    except OSError:
        for descriptor in found:
            os.close(descriptor)
        raise
    finally:
        for file in files:
            file.close()
    return [trio.lowlevel.FdStream(descriptor) for descriptor in found]


def _not_started(error: OSError) -> EngineError:
    return EngineError("engine.crashed", f"a worker can't be started: {error.strerror}")


def resident_bytes(pid: int) -> int:
    """The memory that a process has in RAM; 0 when it is gone, or the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


class WorkerProcess:
    """One worker; made by `open_worker`.

    EngineError `engine.crashed` when the system has no process or descriptors for it.
    """

    def __init__(self) -> None:
        try:
            self._popen = _spawn()
        except OSError as error:
            raise _not_started(error) from None
        try:
            self._input, self._output, self._errors = _streams(self._popen)
        except OSError as error:
            self._popen.kill()
            self._popen.wait()
            raise _not_started(error) from None
        self._buffer = FrameBuffer()
        self._nonsense: FrameError | None = None
        self._unsent: deque[bytes] = deque()
        self._wake = trio.Event()
        self._stderr = b""
        self._stderr_ended = trio.Event()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def send_nowait(self, message: ToWorker) -> None:
        """Queue a message; the caller bounds how many. FrameError when it is too long."""
        self._unsent.append(encode(message))
        self._wake.set()

    async def receive(self) -> list[FromWorker]:
        """What the worker said, at least one message; none when its output has ended.

        FrameError when it wrote something else.
        """
        messages: list[FromWorker] = []
        while not messages:
            if self._nonsense is not None:
                raise self._nonsense
            data = await self._output.receive_some(READ_BYTES)
            if not data:
                break
            try:
                for body in self._buffer.push(data):
                    messages.append(decode_from_worker(body))
            except FrameError as error:
                # What came before it was meant.
                self._nonsense = error
        return messages

    async def run_writer(self) -> None:
        """Write what is queued, until cancelled or the worker is gone."""
        while True:
            while self._unsent:
                try:
                    await self._input.send_all(self._unsent.popleft())
                except trio.BrokenResourceError:
                    # It can't be told anything any more, whether it is gone or not.
                    self._popen.kill()
                    return
            self._wake = trio.Event()
            await self._wake.wait()

    async def run_errors(self) -> None:
        """Keep the end of stderr for `diagnosis`, until it closes."""
        try:
            while data := await self._errors.receive_some(READ_BYTES):
                self._stderr = (self._stderr + data)[-limits.ENGINE_DIAGNOSIS_BYTES_MAX :]
        finally:
            # Also when cancelled: nobody waits for a diagnosis then.
            self._stderr_ended.set()

    async def end(self) -> None:
        """Kill it, wait until it is gone and its stderr was read; safe to repeat."""
        if self._popen.poll() is None:
            self._popen.kill()
        with trio.CancelScope(shield=True):
            # A process that waits for a dead disk can't even be killed: it is left behind.
            with trio.move_on_after(limits.ENGINE_END_NS_MAX / NS_PER_S):
                await trio.to_thread.run_sync(
                    self._popen.wait,
                    abandon_on_cancel=True,  # type: ignore[call-arg]  # stubs of an older trio
                )
            with trio.move_on_after(STDERR_END_S):
                await self._stderr_ended.wait()

    async def close(self) -> None:
        """Close the pipes, after the tasks that use them are over."""
        with trio.CancelScope(shield=True):
            for stream in (self._input, self._output, self._errors):
                await stream.aclose()

    def diagnosis(self) -> str:
        """How it ended and the last line that it wrote to stderr, on one line."""
        code = self._popen.returncode
        if code is None:
            how = "still running"
        elif code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        else:
            how = f"exit status {code}"
        lines = self._stderr.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        readable = "".join(letter if letter.isprintable() else "?" for letter in last)[:160]
        return f"{how}: {readable}" if readable else how


@asynccontextmanager
async def open_worker() -> AsyncIterator[WorkerProcess]:
    """A worker for the length of a block, which must not raise; dead at its end.

    EngineError `engine.crashed` when it can't be started.
    """
    worker = WorkerProcess()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run_writer)
            nursery.start_soon(worker.run_errors)
            try:
                yield worker
            finally:
                await worker.end()
                nursery.cancel_scope.cancel()
    finally:
        await worker.close()
