"""Unix time in ns that never jumps: the wall clock once, the monotonic clock from then on."""

import time


class Clock:
    """Call it for now, in Unix ns; later calls never give less."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        """Now, in Unix ns."""
        return time.monotonic_ns() + self._offset_ns
