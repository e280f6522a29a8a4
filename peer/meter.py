"""What one model's jobs took and were promised, for quotes and for the operator.

Counts since the daemon started. Must not know engines or the market.
Rule: engine/README.md, "Promises".
"""

from dataclasses import dataclass
from typing import Any

from engine.interface import Estimate, Finished
from engine.promises import Delivered, Promises
from protocol.units import NS_PER_S, milliseconds

Json = dict[str, Any]

# The speed of a shorter output says little.
SPEED_TOKENS_MIN = 8


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the engine estimates for a job that comes now, whatever its prompt."""

    ttft_ns: int
    ttft_ns_per_input_token: int
    tokens_per_s_milli: int
    wait_ns: int

    def of(self, input_tokens: int) -> Estimate:
        """For a job that reads so many tokens."""
        ttft_ns = self.ttft_ns + self.ttft_ns_per_input_token * input_tokens
        return Estimate(ttft_ns, self.tokens_per_s_milli, self.wait_ns)


@dataclass(frozen=True, slots=True)
class JobFigures:
    """What is told of a job that finished; `kept`: its promise."""

    queue_ns: int
    ttft_ns: int
    tokens_per_s_milli: int
    kept: bool


class Meter:
    """One model; `began_ns` is when it was first offered, by trio's clock."""

    def __init__(self, began_ns: int) -> None:
        self.promises = Promises()
        self.places = 0
        self._began_ns = began_ns
        self._jobs = self._failed = 0
        self._input_tokens = self._reused_tokens = self._output_tokens = 0
        self._queue_ns = self._ttft_ns = self._busy_ns = self._output_ns = 0

    def saw_places(self, places: int) -> None:
        """So many jobs run at once, seen before any job waits."""
        self.places = self.places or places

    def correct(self, outlook: Outlook) -> Outlook:
        """What to promise where the engine estimates this."""
        none = self.promises.correct(outlook.of(0))
        each_ns = self.promises.read.apply(outlook.ttft_ns_per_input_token)
        return Outlook(none.ttft_ns, each_ns, none.tokens_per_s_milli, none.wait_ns)

    def finished(
        self, job: Finished, outlook: Outlook, expected: Outlook, told: Estimate | None
    ) -> JobFigures:
        """A job is over: the outlook when it came, the same corrected, what its bid said."""
        speed = _speed(job)
        self._jobs += 1
        self._input_tokens += job.input_tokens
        self._reused_tokens += job.reused_tokens
        self._output_tokens += job.output_tokens
        self._queue_ns += job.queue_ns
        self._ttft_ns += job.ttft_ns
        self._busy_ns += job.duration_ns - job.queue_ns
        self._output_ns += job.duration_ns - job.ttft_ns
        read = max(0, job.input_tokens - job.reused_tokens)
        delivered = Delivered(
            job.queue_ns, job.ttft_ns, speed if job.output_tokens >= SPEED_TOKENS_MIN else 0
        )
        kept = self.promises.take(outlook.of(read), expected.of(read), delivered, told)
        return JobFigures(job.queue_ns, job.ttft_ns, speed, kept)

    def failed(self) -> None:
        """A job ended otherwise."""
        self._failed += 1

    def totals(self, now_ns: int) -> Json:
        """What was done since the start; `utilisation` of its places, by jobs that finished."""
        jobs = max(1, self._jobs)
        room_ns = self.places * (now_ns - self._began_ns)
        return {
            "jobs": self._jobs,
            "failed": self._failed,
            "input_tokens": self._input_tokens,
            "reused_tokens": self._reused_tokens,
            "output_tokens": self._output_tokens,
            "queue_ms_mean": milliseconds(self._queue_ns // jobs),
            "ttft_ms_mean": milliseconds(self._ttft_ns // jobs),
            "tokens_per_s_mean": round(self._output_tokens * NS_PER_S / self._output_ns, 1)
            if self._output_ns
            else 0,
            "utilisation": round(min(1, self._busy_ns / room_ns), 4) if room_ns > 0 else 0,
        }

    def kept_json(self) -> Json:
        """Promised against delivered; errors are signed shares of what was expected."""
        promises = self.promises
        return {
            "jobs": promises.jobs,
            "kept": promises.kept,
            "kept_percent": round(100 * promises.kept / promises.jobs, 1)
            if promises.jobs
            else None,
            "ttft_error": _errors(promises.ttft_errors),
            "tokens_per_s_error": _errors(promises.speed_errors),
            "correction": {
                "wait": promises.wait.factor / 1_000,
                "read": promises.read.factor / 1_000,
                "tokens_per_s": promises.speed.factor / 1_000,
                "overhead_ms": milliseconds(promises.overhead_ns),
            },
        }


def _speed(job: Finished) -> int:
    """Tokens in 1,000 s after the first, as the engine measured, or by the job's durations."""
    gaps, output_ns = job.output_tokens - 1, job.duration_ns - job.ttft_ns
    if job.tokens_per_s_milli or gaps < 1 or output_ns <= 0:
        return job.tokens_per_s_milli
    return 1_000 * NS_PER_S * gaps // output_ns


def _errors(errors: Any) -> Json:
    return {
        "mean": errors.mean / 1_000,
        "p50": errors.quantile(500) / 1_000,
        "p95": errors.quantile(950) / 1_000,
    }
