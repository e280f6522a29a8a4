"""From a job's parameters to the sampler of its sequence.

Greedy jobs have no chain: the highest logit wins, found by numpy. The others get llama.cpp's
chain: top_k, top_p, temperature, seeded choice. Must not know jobs or batches.
Rule: engine/README.md; llama.cpp's sampler API.
"""

from typing import Any

import llama_cpp

from protocol.errors import EngineError
from protocol.fields import GenerationParameters

# top_p sorts what it is given: 40 times slower on a whole vocabulary than on these.
TOP_K_BEFORE_TOP_P = 1_000


_PLAIN = GenerationParameters(1, 0, 0, 0, 0, ())
_NOT_YET = (
    "min_p_milli",
    "repeat_penalty_milli",
    "presence_penalty_milli",
    "frequency_penalty_milli",
    "logit_bias",
    "constraint",
    "logprobs",
)


def check_supported(parameters: GenerationParameters) -> None:
    """EngineError `engine.bad_spec` for what this engine would otherwise silently leave out."""
    for name in _NOT_YET:
        if getattr(parameters, name) != getattr(_PLAIN, name):
            raise EngineError("engine.bad_spec", f"{name} is not supported by this engine")


def is_greedy(parameters: GenerationParameters) -> bool:
    """Whether the best token always wins: temperature 0, or only one candidate."""
    return (
        parameters.temperature_milli == 0 or parameters.top_k == 1 or parameters.top_p_milli == 0
    )


class Sampler:
    """Owns a llama.cpp sampler chain for one sequence. `close` frees it; safe to repeat."""

    def __init__(self, parameters: GenerationParameters) -> None:
        assert not is_greedy(parameters)
        settings = llama_cpp.llama_sampler_chain_default_params()
        settings.no_perf = True
        self.chain: Any = llama_cpp.llama_sampler_chain_init(settings)
        top_k = parameters.top_k
        cuts_tail = parameters.top_p_milli < 1000
        if cuts_tail and top_k == 0:
            top_k = TOP_K_BEFORE_TOP_P
        if top_k:
            self._add(llama_cpp.llama_sampler_init_top_k(top_k))
        if cuts_tail:
            self._add(llama_cpp.llama_sampler_init_top_p(parameters.top_p_milli / 1000, 1))
        self._add(llama_cpp.llama_sampler_init_temp(parameters.temperature_milli / 1000))
        self._add(llama_cpp.llama_sampler_init_dist(parameters.seed))

    def _add(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self.chain, sampler)

    def close(self) -> None:
        """Free the chain and its parts."""
        if self.chain is not None:
            llama_cpp.llama_sampler_free(self.chain)
            self.chain = None
