"""How fast a model is here: measured step by step, and what to promise from it.

Pure. Measures go into a `Speedometer` in the worker; the daemon turns the `Speed` that it
reports into estimates. Must not know pipes or llama.cpp. Rule: engine/README.md.
"""

from collections.abc import Sequence
from heapq import heapreplace

from engine.frames import Speed
from engine.interface import Estimate
from protocol import limits
from protocol.units import NS_PER_MS, NS_PER_S

# Starting a worker, and reading a file from an ordinary disk: for what was never loaded.
START_NS = NS_PER_S
READ_BYTES_PER_S = 500_000_000
# The pause that a newcomer may cause those who decode. Less than 64 tokens at once are read
# more slowly; more than 512, a micro-batch, no faster.
CHUNK_NS = 750 * NS_PER_MS
CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX = 64, 512
# A new measure weighs 1/8: a few steps forget an outlier, a few dozen follow a change.
WEIGHT = 8
# Fewer prompt tokens than this in a step cost too little to be told from the rest of it.
PREFILL_TOKENS_MIN = 16


class Speedometer:
    """Running means of one model's steps, for 1..`places` decoding sequences.

    `step_ns_min` is the pace that the operator set: no decoding step counts as shorter.
    """

    def __init__(self, places: int, step_ns_min: int = 0) -> None:
        self._step_ns_min = step_ns_min
        self._prefill_ns = 0
        self._step_ns = [0] * places

    def record(self, decoding: int, prefill_tokens: int, duration_ns: int) -> None:
        """One step: how many sequences decoded, how many tokens of prompts it read."""
        if not prefill_tokens:
            duration_ns = max(duration_ns, self._step_ns_min)
            self._step_ns[decoding - 1] = _mean(self._step_ns[decoding - 1], duration_ns)
        elif prefill_tokens >= PREFILL_TOKENS_MIN:
            rest_ns = self._step_ns[decoding - 1] if decoding else 0
            each_ns = max(1, duration_ns - rest_ns) // prefill_tokens
            self._prefill_ns = _mean(self._prefill_ns, max(1, each_ns))

    def speed(self) -> Speed:
        """The means now."""
        return Speed(self._prefill_ns, tuple(self._step_ns))


def _mean(mean_ns: int, new_ns: int) -> int:
    return mean_ns + (new_ns - mean_ns) // WEIGHT if mean_ns else new_ns


def step_ns(speed: Speed, decoding: int) -> int:
    """Time of a step with `decoding` sequences (1..places): measured, or from its neighbours.

    Between two measured loads a straight line; outside of them the nearest. 0 when nothing
    was measured.
    """
    known = [(load, each) for load, each in enumerate(speed.step_ns, 1) if each]
    below = [item for item in known if item[0] <= decoding]
    above = [item for item in known if item[0] >= decoding]
    if not below or not above:
        return below[-1][1] if below else above[0][1] if above else 0
    (low, low_ns), (high, high_ns) = below[-1], above[0]
    if low == high:
        return low_ns
    return low_ns + (high_ns - low_ns) * (decoding - low) // (high - low)


def estimate(
    speed: Speed, *, input_tokens: int, unread_tokens: int, tokens_left: Sequence[int]
) -> Estimate:
    """What to promise a job that arrives now.

    `unread_tokens` of earlier prompts are read first. `tokens_left` has, for each job in a
    place or waiting before this one, how many tokens it may still make, in the order in which
    they go: when no place is free, the newcomer waits for the shortest of them, a promise on
    the safe side.
    """
    places = max(1, len(speed.step_ns))
    step = step_ns(speed, min(places, len(tokens_left) + 1))
    unread_ns = unread_tokens * speed.prefill_ns
    read_ns = input_tokens * speed.prefill_ns + step
    wait_ns = 0
    if len(tokens_left) < places:
        read_ns += unread_ns
    else:
        wait_ns = _wait_steps(places, tokens_left) * step_ns(speed, places) + unread_ns
    return Estimate(wait_ns + read_ns, 1000 * NS_PER_S // step if step else 0, wait_ns)


def cost_ns(speed: Speed, input_tokens: int, output_tokens: int) -> int:
    """What a job takes of the machine when every place is taken; at least 1."""
    places = max(1, len(speed.step_ns))
    output_ns = output_tokens * step_ns(speed, places) // places
    return max(1, input_tokens * speed.prefill_ns + output_ns)


def _wait_steps(places: int, tokens_left: Sequence[int]) -> int:
    """Steps until a newcomer has a place, if every job before it makes all of its tokens."""
    ends = [0] * places
    for left in tokens_left:
        heapreplace(ends, ends[0] + left)
    return ends[0]


def chunk_tokens(read_ns: int) -> int:
    """How much of new prompts a step reads beside running jobs, if the operator does not say.

    One token takes `read_ns`. A power of two, so that another measurement seldom gives another.
    """
    chunk = CHUNK_TOKENS_MAX
    while chunk > CHUNK_TOKENS_MIN and chunk * read_ns > CHUNK_NS:
        chunk //= 2
    return chunk


def silence_ns(speed: Speed) -> int:
    """How long a worker of this speed may say nothing while it has jobs."""
    longest_ns = limits.ENGINE_CHUNK_TOKENS_MAX * speed.prefill_ns + max(speed.step_ns, default=0)
    bound_ns = limits.ENGINE_SILENCE_STEPS * longest_ns
    return max(limits.ENGINE_SILENCE_NS_MIN, min(bound_ns, limits.ENGINE_SILENCE_NS_MAX))


def start_ns_max(size_bytes: int) -> int:
    """How long loading a file of this size may take before it counts as hanging."""
    bound_ns = limits.ENGINE_START_NS_MIN + size_bytes * limits.ENGINE_START_NS_PER_BYTE
    return min(bound_ns, limits.ENGINE_START_NS_MAX)


def load_ns(measured_ns: int, size_bytes: int) -> int:
    """What to promise for loading a model: a quarter over the last time, or by its size."""
    if measured_ns:
        return measured_ns + measured_ns // 4
    return START_NS + size_bytes * NS_PER_S // READ_BYTES_PER_S
