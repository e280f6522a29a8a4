"""The daemon's end of one worker process: spawn, frames, diagnosis, end.

Knows nothing of jobs or models. Rule: engine/README.md.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.frames import FrameBuffer, FromWorker, ToWorker, decode_from_worker, encode
from protocol import limits

# -P: a directory named `engine` where the daemon happens to run is not ours.
COMMAND = (sys.executable, "-P", "-m", "engine.worker")
READ_BYTES = 64 * 1024
# After the worker is gone its stderr ends at once; nothing else should hold it open.
STDERR_END_S = 1


def _spawn() -> subprocess.Popen[bytes]:
    """Start a worker with pipes on all three descriptors.

    Called in the thread that runs trio, on purpose: the worker asks the kernel to be killed
    when the *thread* that made it ends, and a pool thread ends after seconds of idling. It
    takes a few milliseconds.
    """
    packages = str(Path(__file__).resolve().parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{packages}{os.pathsep}{inherited}" if inherited else packages,
        "GGML_NO_BACKTRACE": "1",
    }
    return subprocess.Popen(
        [*COMMAND, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


class WorkerProcess:
    """One worker; made by `open_worker`."""

    def __init__(self) -> None:
        self._popen = _spawn()
        files = (self._popen.stdin, self._popen.stdout, self._popen.stderr)
        streams = []
        for file in files:
            assert file is not None
            # FdStream owns a descriptor, and so does Popen's file: each gets its own.
            streams.append(trio.lowlevel.FdStream(os.dup(file.fileno())))
            file.close()
        self._input, self._output, self._errors = streams
        self._buffer = FrameBuffer()
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
            data = await self._output.receive_some(READ_BYTES)
            if not data:
                break
            messages = [decode_from_worker(body) for body in self._buffer.push(data)]
        return messages

    async def run_writer(self) -> None:
        """Write what is queued, until cancelled or the worker is gone."""
        while True:
            while self._unsent:
                try:
                    await self._input.send_all(self._unsent.popleft())
                except trio.BrokenResourceError:
                    return  # the end of its output says the same, and more
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
            await trio.to_thread.run_sync(self._popen.wait)
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
    """A worker for the length of a block, which must not raise; dead at its end."""
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
