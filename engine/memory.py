"""How much memory a model needs, and which models make room for another.

Pure. The need is an estimate from above, in bytes, made before loading:

    the file                     its weights, mapped or copied; those of its adapters
  + keys and values              16 bits, for `places` sequences of the whole context
  + a step's working memory      512 tokens: scores of the whole vocabulary, hidden states
  + 192 MiB                      the worker itself: interpreter, libraries, vocabulary

On a GPU the first three lie in its memory, so the budget is the GPU's there.
Must not know workers or trio. Rule: engine/README.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.catalogue import ModelFile
from engine.settings import LlamaSettings
from protocol import limits

WORKER_BYTES = 192 * 2**20
STEP_TOKENS = 512
# Hidden states of a step that are alive at once: attention and feed-forward, wide and narrow.
STATES = 16
FLOAT_BYTES = 4


def needed_bytes(file: ModelFile, settings: LlamaSettings) -> int:
    """What a worker with this model takes, from above."""
    weights = file.info.size_bytes + file.adapter_bytes
    return weights + _kept_bytes(file, settings) + step_bytes(file) + WORKER_BYTES


def _kept_bytes(file: ModelFile, settings: LlamaSettings) -> int:
    """Keys and values of all places."""
    context_tokens = settings.context_of(file.info.context_tokens)
    return file.kv_token_bytes * context_tokens * settings.places


def step_bytes(file: ModelFile) -> int:
    """The working memory of a step."""
    return STEP_TOKENS * FLOAT_BYTES * (file.vocabulary + STATES * file.embedding)


def layer_bytes(file: ModelFile, settings: LlamaSettings) -> int:
    """Weights, keys and values of one layer, from above: the model's ends are shared out."""
    weights = file.info.size_bytes + file.adapter_bytes
    return -(-(weights + _kept_bytes(file, settings)) // file.layers)


def data_bytes_max(file: ModelFile, settings: LlamaSettings) -> int:
    """What a worker with this model may allocate before it is stopped: what the operator says,
    or far enough over the need that only what runs away gets there."""
    if settings.worker_memory_mib:
        return settings.worker_memory_mib * 2**20
    need = needed_bytes(file, settings)
    threads = settings.threads(file.info.size_bytes) * limits.ENGINE_THREAD_BYTES
    return need + need // 2 + threads + limits.ENGINE_SPARE_BYTES


@dataclass(frozen=True, slots=True)
class Occupant:
    """A model that takes room: `key` names it; one that `stays` can't be unloaded now."""

    key: int
    bytes: int
    last_used_ns: int
    stays: bool


def make_room(need: int, budget: int, occupants: Sequence[Occupant]) -> list[int] | None:
    """Keys of what to unload so that `need` bytes fit into `budget`; None when they can't.

    The least recently used goes first, and none goes whose room is not needed. A budget of 0
    has no end.
    """
    free = budget - sum(one.bytes for one in occupants) - need
    if not budget or free >= 0:
        return []
    chosen: list[Occupant] = []
    for one in sorted(occupants, key=lambda one: one.last_used_ns):
        if free < 0 and not one.stays:
            chosen.append(one)
            free += one.bytes
    if free < 0:
        return None
    # A large one that came last may have made the room of a smaller one before it.
    for one in reversed(list(chosen)):
        if free >= one.bytes:
            chosen.remove(one)
            free -= one.bytes
    return [one.key for one in chosen]
