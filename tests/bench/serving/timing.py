"""What a contestant is asked and what it reports, as lines of JSON over its pipes.

A contestant is a process: it prints one line when it is ready, then answers each line of its
input, a round, with one line. A round is a list of requests and how many streams work them off;
each stream sends its next request when its last one has ended.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tests.bench.serving.model import Request

CPUCLOCK_SCHED = 2  # Linux: another process's clock is its number and this kind of clock


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement; with `busy`, the contestant's event loop has other work all the time.

    With `processor`, all times are what the process that computes has spent of processors.
    """

    streams: int
    requests: list[Request]
    busy: bool = False
    processor: bool = False

    @staticmethod
    def read(line: str) -> "Round":
        """From `line`."""
        found = json.loads(line)
        found["requests"] = [Request(**request) for request in found["requests"]]
        return Round(**found)

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def processor_ns(pid: int) -> int:
    """What a process and all of its threads have computed so far."""
    return time.clock_gettime_ns((~pid << 3) | CPUCLOCK_SCHED)


def stopwatch(pid: int, *, processor: bool) -> Callable[[], int]:
    """A clock in ns: the wall's, or what `pid` has computed."""
    return partial(processor_ns, pid) if processor else time.perf_counter_ns


class Clock:
    """The times of one request's tokens, as its caller sees them."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._last_ns = now_ns()
        self._waits_ns: list[int] = []
        self.input_tokens = self.output_tokens = 0

    def tick(self) -> None:
        """One token or more have come."""
        now_ns = self._now_ns()
        self._waits_ns.append(now_ns - self._last_ns)
        self._last_ns = now_ns

    def figures(self) -> dict[str, Any]:
        """For `tell`."""
        return {
            "ttft_ns": self._waits_ns[0],
            "gaps_ns": self._waits_ns[1:],
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
        }


def tell(message: object) -> None:
    """One line of JSON to the process that asked."""
    print(json.dumps(message), flush=True)


def rounds() -> Iterator[Round]:
    """Those that are asked for, until the input ends."""
    for line in sys.stdin:
        yield Round.read(line)


def report(duration_ns: int, clocks: list[Clock], settings: str = "") -> None:
    """Tell how a round went, and under which settings the engine says that it ran."""
    done = [clock.figures() for clock in clocks]
    tell({"duration_ns": duration_ns, "requests": done, "settings": settings})
