"""Daemons as child processes, for the demo: started, awaited, stopped."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from peer.cli.identity import initialize
from protocol.errors import NetworkError

Json = dict[str, Any]

_START_S = 40.0
_STOP_S = 15.0


class Running:
    """A daemon of the demo: its directory, its process, and what it says when it is ready."""

    def __init__(self, directory: Path, name: str, process: trio.Process) -> None:
        self.directory = directory
        self.name = name
        self._process = process
        self.ready: Json = {}

    @property
    def peer_id(self) -> str:
        """The node's peer id."""
        return str(self.ready["peer_id"])

    async def wait_ready(self) -> None:
        """Until it listens. NetworkError `control.unavailable` with the last line it logged."""
        assert self._process.stdout is not None
        buffer = b""
        with trio.move_on_after(_START_S):
            while b"\n" not in buffer:
                data = await self._process.stdout.receive_some()
                if not data:
                    break
                buffer += data
        line, newline, _ = buffer.partition(b"\n")
        self.ready = json.loads(line) if newline else {}
        if self.ready.get("event") != "ready":
            log = (self.directory / "daemon.log").read_text(errors="replace")
            last = " ".join(log.strip().splitlines()[-1:])
            detail = f"{self.name} did not start: {last[:200]}"
            raise NetworkError("control.unavailable", detail)

    async def stop(self) -> None:
        """SIGTERM, which drains; SIGKILL when that takes too long."""
        process = self._process
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            with trio.move_on_after(_STOP_S):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def spawn(directory: Path, name: str, flags: tuple[str, ...]) -> Running:
    """Start `peerd run` with `flags` on a new data directory; `wait_ready` comes next."""
    initialize(directory)
    command = [
        *(sys.executable, "-m", "peer.cli", "run", "--json", "--log-level", "warning"),
        *("--data", str(directory), *flags),
    ]
    with (directory / "daemon.log").open("wb") as errors:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
    return Running(directory, name, process)
