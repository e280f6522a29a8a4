"""How the operator wants models run: one frozen dataclass, checked when it is made.

Knows nothing of llama.cpp or processes. Rule: engine/README.md.
"""

import os
from dataclasses import dataclass
from importlib.metadata import version

from protocol import limits
from protocol.errors import ConfigError
from protocol.units import NS_PER_S


def available_threads() -> int:
    """The processors that this process may run on; at least 1."""
    return max(1, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """Options of one model's worker. ConfigError `config.bad_value` when out of range.

    `n_threads` 0 takes every processor that the process may run on, and one for a model so small
    that its threads would mostly wait for each other. `places` is how many sequences decode at
    once; each holds `context_tokens` (0: the model's own, up to a bound).
    `prefill_chunk_tokens` bounds how much of new prompts one step reads beside running jobs:
    smaller keeps their gaps short, larger starts the newcomer sooner; 0 takes what the model
    reads here in `engine.speed.CHUNK_NS`. `queue_jobs` may wait.
    `steps_per_s_max` leaves the machine's owner some of it: the worker rests after each step
    as long as that takes (0: never). `memory_mib` is what all models together may take (0: no
    limit; engine/memory.py says how the need is estimated). `worker_memory_mib` is what one
    worker may allocate before it is stopped (0: half as much again as its need, and some).
    With `prefix_reuse`, a prompt that begins as an earlier one is read from where they differ;
    that shows in its time to first token, to whoever asks (engine/README.md).
    """

    n_threads: int = 0
    places: int = 4
    context_tokens: int = 0
    prefill_chunk_tokens: int = 0
    queue_jobs: int = 16
    steps_per_s_max: int = 0
    memory_mib: int = 0
    worker_memory_mib: int = 0
    prefix_reuse: bool = True

    def __post_init__(self) -> None:
        ranges = {
            "n_threads": (0, limits.ENGINE_THREADS_MAX),
            "places": (1, limits.ENGINE_PLACES_MAX),
            "context_tokens": (0, limits.INPUT_TOKENS_MAX),
            "prefill_chunk_tokens": (
                limits.ENGINE_CHUNK_TOKENS_MIN,
                limits.ENGINE_CHUNK_TOKENS_MAX,
            ),
            "queue_jobs": (0, limits.ENGINE_QUEUE_JOBS_MAX),
            "steps_per_s_max": (0, limits.ENGINE_STEPS_PER_S_MAX),
            "memory_mib": (0, limits.ENGINE_MEMORY_MIB_MAX),
            "worker_memory_mib": (0, limits.ENGINE_MEMORY_MIB_MAX),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if name == "prefill_chunk_tokens" and value == 0:
                continue
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError("config.bad_value", f"{name} {value} is not in {low}..{high}")
        if not isinstance(self.prefix_reuse, bool):
            raise ConfigError("config.bad_value", f"prefix_reuse {self.prefix_reuse} is no bool")

    def step_ns_min(self) -> int:
        """The shortest time between the starts of two steps, in ns; 0 for no pace."""
        return NS_PER_S // self.steps_per_s_max if self.steps_per_s_max else 0

    def memory_bytes(self) -> int:
        """What all models together may take; 0 for no limit."""
        return self.memory_mib * 2**20

    def conditions(self) -> str:
        """What a measured speed and a passed self-test depend on, beside the file."""
        threads = self.n_threads or f"0/{available_threads()}"
        return (
            f"llama-cpp-python {version('llama-cpp-python')} threads={threads}"
            f" places={self.places} context={self.context_tokens} pace={self.steps_per_s_max}"
        )

    def context_of(self, trained_tokens: int) -> int:
        """The context of one place, for a model that was trained for this many tokens."""
        return min(self.context_tokens or limits.ENGINE_CONTEXT_TOKENS_DEFAULT, trained_tokens)

    def threads(self, model_bytes: int) -> int:
        """The compute threads to use for a model file of this size; at least 1."""
        if self.n_threads == 0 and model_bytes <= limits.ENGINE_ONE_THREAD_BYTES:
            return 1
        return self.n_threads or available_threads()
