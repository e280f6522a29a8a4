"""What was promised against what came of it, and what new promises learn from that.

A ring of the last jobs' ratios, delivered to estimated, corrects the next estimates: a quantile
of a bounded ring is bounded, follows a change within some dozen jobs, and a few wild jobs do not
move it. Pure. Rule: engine/README.md, "Promises".
"""

from collections import deque
from dataclasses import dataclass

from engine.interface import Estimate

UNIT = 1_000
RING_JOBS = 64
# As many jobs that were as promised, before the first: one alone proves little.
PRIOR_JOBS = 8
# Three of four jobs are as fast as promised, or faster.
QUANTILE = 750
# An estimate is taken to be wrong by no more than this; a wait counts on every job ahead making
# all the tokens that it may, and few do.
WAIT_BOUNDS = UNIT // 16, 4 * UNIT
READ_BOUNDS = UNIT // 4, 4 * UNIT
SPEED_BOUNDS = UNIT // 4, 4 * UNIT
# What a job takes beside the model, a pipe and a busy daemon, shows where little is read: a factor
# learned there would be wrong for long prompts.
READ_NS_MIN = 20_000_000
OVERHEAD_NS_MAX = 250_000_000
# A promise is kept within a quarter, and an instant: nobody notices 20 ms.
KEPT_WITHIN = UNIT // 4
KEPT_WITHIN_NS = 20_000_000
# Errors are told up to ten times what was promised.
ERROR_MAX = 10 * UNIT
WEIGHT = 8


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a job got: ns in the queue and to its first token from submission; 0 tokens/s where
    it made too few to tell."""

    queue_ns: int
    ttft_ns: int
    tokens_per_s_milli: int


class Ring:
    """The last RING_JOBS numbers of a kind, and any quantile of them; `first` before them."""

    def __init__(self, first: tuple[int, ...] = ()) -> None:
        self._items: deque[int] = deque(first, maxlen=RING_JOBS)

    def add(self, item: int) -> None:
        """One more; the oldest goes."""
        self._items.append(item)

    def quantile(self, milli: int) -> int:
        """The smallest number that at least `milli` thousandths do not exceed; 0 for none."""
        if not self._items:
            return 0
        ordered = sorted(self._items)
        rank = -(-milli * len(ordered) // UNIT)
        return ordered[max(0, rank - 1)]


class Correction:
    """A factor in thousandths within bounds, from what estimates were worth."""

    def __init__(self, bounds: tuple[int, int], quantile: int) -> None:
        self._low, self._high = bounds
        self._quantile = quantile
        self._ratios = Ring((UNIT,) * PRIOR_JOBS)

    def add(self, delivered: int, estimated: int) -> None:
        """One job; nothing is learned from an estimate of nothing."""
        if estimated > 0:
            ratio = delivered * UNIT // estimated
            self._ratios.add(min(self._high, max(self._low, ratio)))

    @property
    def factor(self) -> int:
        """What to multiply the next estimate by."""
        return self._ratios.quantile(self._quantile)

    def apply(self, estimated: int) -> int:
        """The estimate, corrected."""
        return estimated * self.factor // UNIT


class Errors:
    """Signed errors of promises in thousandths of them: above 0 is more than was promised."""

    def __init__(self) -> None:
        self._ring = Ring()
        self.mean = 0

    def add(self, delivered: int, promised: int) -> None:
        """One job."""
        if promised > 0:
            error = (delivered - promised) * UNIT // promised
            error = min(ERROR_MAX, max(-UNIT, error))
            self._ring.add(error)
            self.mean += (error - self.mean) // WEIGHT

    def quantile(self, milli: int) -> int:
        """Over the last RING_JOBS."""
        return self._ring.quantile(milli)


class Promises:
    """One model's: `correct` estimates, and `take` each job that finished."""

    def __init__(self) -> None:
        self.wait = Correction(WAIT_BOUNDS, QUANTILE)
        self.read = Correction(READ_BOUNDS, QUANTILE)
        self._overheads = Ring((0,) * PRIOR_JOBS)
        self.speed = Correction(SPEED_BOUNDS, UNIT - QUANTILE)
        self.ttft_errors = Errors()
        self.speed_errors = Errors()
        self.jobs = 0
        self.kept = 0

    @property
    def overhead_ns(self) -> int:
        """What a first token takes beside the model."""
        return self._overheads.quantile(QUANTILE)

    def correct(self, estimate: Estimate) -> Estimate:
        """What to promise where the engine estimates this."""
        wait_ns = self.wait.apply(estimate.wait_ns)
        read_ns = self.read.apply(estimate.ttft_ns - estimate.wait_ns)
        speed = self.speed.apply(estimate.tokens_per_s_milli)
        return Estimate(wait_ns + read_ns + self.overhead_ns, speed, wait_ns)

    def take(
        self,
        estimated: Estimate,
        expected: Estimate,
        delivered: Delivered,
        told: Estimate | None = None,
    ) -> bool:
        """A job is over: what the engine had estimated for it when it came, the same corrected,
        and what came of it. Whether what the requester was `told` (else: expected) was kept."""
        self.wait.add(delivered.queue_ns, estimated.wait_ns)
        self._learn_read(
            delivered.ttft_ns - delivered.queue_ns, estimated.ttft_ns - estimated.wait_ns
        )
        self.ttft_errors.add(delivered.ttft_ns, expected.ttft_ns)
        if delivered.tokens_per_s_milli:
            self.speed.add(delivered.tokens_per_s_milli, estimated.tokens_per_s_milli)
            self.speed_errors.add(delivered.tokens_per_s_milli, expected.tokens_per_s_milli)
        kept = is_kept(told or expected, delivered)
        self.jobs += 1
        self.kept += kept
        return kept

    def _learn_read(self, read_ns: int, estimated_ns: int) -> None:
        if estimated_ns >= READ_NS_MIN:
            self.read.add(max(0, read_ns - self.overhead_ns), estimated_ns)
        elif estimated_ns > 0:
            self._overheads.add(min(OVERHEAD_NS_MAX, max(0, read_ns - estimated_ns)))


def is_kept(promised: Estimate, delivered: Delivered) -> bool:
    """Whether a job got what it was promised: first token and speed, both within a quarter."""
    late_ns = promised.ttft_ns + promised.ttft_ns * KEPT_WITHIN // UNIT + KEPT_WITHIN_NS
    speed, least = delivered.tokens_per_s_milli, promised.tokens_per_s_milli
    is_fast = not speed or speed >= least - least * KEPT_WITHIN // UNIT
    return delivered.ttft_ns <= late_ns and is_fast
