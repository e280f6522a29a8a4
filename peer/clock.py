"""Unix time in ns that never jumps: the wall clock once, a steady clock from then on.

The steady clock goes on while the machine sleeps, where the system has one that does.
"""

import time

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """Call it for now, in Unix ns; later calls never give less."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(_STEADY)

    def __call__(self) -> int:
        """Now, in Unix ns."""
        return time.clock_gettime_ns(_STEADY) + self._offset_ns
