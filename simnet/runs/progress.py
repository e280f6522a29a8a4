"""One line on stderr while a run is under way: on a terminal in place, else every few seconds."""

import sys
import time

import click

from protocol.units import NS_PER_S
from simnet.runs.estimate import MIB, memory_used_bytes

TERMINAL_S = 0.25
PLAIN_S = 5.0


class Progress:
    """What is told to the person who waits; nothing when `quiet`."""

    def __init__(self, *, quiet: bool, total_ns: int) -> None:
        self._quiet = quiet
        self._total_ns = max(1, total_ns)
        self._terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = self._started + (0 if self._terminal else PLAIN_S)
        self._shown = False

    def show(self, passed_ns: int, events: int, requests: int, ended: int) -> None:
        """Where the run is, if it is time to say so again."""
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        self._next = now + (TERMINAL_S if self._terminal else PLAIN_S)
        wall_s = max(1e-9, now - self._started)
        part = min(1.0, passed_ns / self._total_ns)
        left_s = wall_s * (1 - part) / part if part else 0.0
        text = (
            f"{part:4.0%}  {passed_ns / NS_PER_S:.0f} virtual s in {wall_s:.0f} s  "
            f"{events / wall_s / 1_000:.0f} k events/s  {memory_used_bytes() // MIB} MiB  "
            f"{ended}/{requests} requests  {left_s:.0f} s left"
        )
        if self._terminal:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
            self._shown = True
        else:
            click.echo(text, err=True)

    def done(self) -> None:
        """The line is finished."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)
