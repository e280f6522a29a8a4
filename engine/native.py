"""llama.cpp through its C functions: one model, one context, one thread. No policy.

Short calls keep the GIL (`PyDLL`); `llama_decode` and loading release it. Almost every bad
argument makes the library abort, so what comes here has been checked before, and every
length is checked again. Must not know jobs, pipes or trio. Rule: engine/README.md.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from engine import library_log
from engine.frames import CPU_BUILD, GPU_BUILD
from engine.interface import Pooling
from engine.vocabulary import Vocabulary, short_call
from protocol.errors import EngineError

BATCH_TOKENS = 2048

MICRO_BATCH_TOKENS = 512
ADAPTER = ctypes.POINTER(ctypes.c_void_p)

_seq_rm = short_call("llama_memory_seq_rm")
_seq_cp = short_call("llama_memory_seq_cp")
_seq_first = short_call("llama_memory_seq_pos_min")
_seq_last = short_call("llama_memory_seq_pos_max")
_get_logits = short_call("llama_get_logits")
_get_logits.restype = ctypes.c_void_p  # only its address: an array is made when that changes
_get_embeddings = short_call("llama_get_embeddings")


def start_backend() -> None:
    """Once in a process, before any model."""
    library_log.listen()
    llama_cpp.llama_backend_init()


def has_gpu_offload() -> bool:
    """Whether the build can compute on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def build_name() -> str:
    """Which build of the library makes the tokens; at most 128 characters."""
    device = GPU_BUILD if has_gpu_offload() else CPU_BUILD
    return f"llama-cpp-python {llama_cpp.__version__}{device}"


class ContextFull(Exception):
    """There is no room for the keys and values of a step: nothing was computed or changed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's share of a step: `tokens` at `position`; logits after the last `wanted`."""

    sequence: int
    position: int
    tokens: Sequence[int]
    wanted: int


class NativeModel:
    """A loaded model with a context of `places` sequences of `context_tokens` each.

    `gpu_layers` are computed on GPUs. EngineError `engine.bad_model` when llama.cpp refuses the
    file, `engine.no_room` when the memory is not enough.
    """

    def __init__(
        self,
        path: Path,
        *,
        places: int,
        context_tokens: int,
        threads: int,
        gpu_layers: int = 0,
        adapters: Sequence[tuple[Path, float]] = (),
    ) -> None:
        library_log.forget()
        parameters = llama_cpp.llama_model_default_params()
        parameters.check_tensors = True
        parameters.n_gpu_layers = gpu_layers
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._model:
            raise library_log.load_error(path)
        self.vocabulary = Vocabulary(self._model)
        template = llama_cpp.llama_model_chat_template(self._model, None)
        self.chat_template = template.decode("utf-8", "replace") if template else ""
        self.dimensions = int(llama_cpp.llama_model_n_embd_out(self._model))
        self.places = places
        # Before the context, whose graphs have room for their tensors.
        self._adapters = [self._load_adapter(*each) for each in adapters]
        self._context = self._make_context(places, context_tokens, threads)
        if not self._context:
            raise EngineError("engine.no_room", f"{path}: no memory for its context")
        # llama.cpp rounds the context up; what was asked for is what is promised.
        self.context_tokens = min(context_tokens, int(llama_cpp.llama_n_ctx_seq(self._context)))
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._embeds = False
        self._logits: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._logits_where = 0, 0
        self._make_batch()

    def _load_adapter(self, path: Path, scale: float) -> tuple[Any, float]:
        adapter = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not adapter:
            raise library_log.load_error(path)
        if llama_cpp.llama_adapter_get_alora_n_invocation_tokens(adapter):
            raise EngineError("engine.bad_model", f"{path}: it works from some tokens on only")
        return adapter, scale

    def use_adapter(self, number: int) -> None:
        """Compute the next steps with an adapter, counted from 1, or with none: 0."""
        chosen = self._adapters[number - 1 : number] if number else []
        assert len(chosen) == bool(number)
        adapters = (ADAPTER * len(chosen))(*(adapter for adapter, _ in chosen))
        scales = (ctypes.c_float * len(chosen))(*(scale for _, scale in chosen))
        llama_cpp.llama_set_adapters_lora(self._context, adapters, len(chosen), scales)

    @property
    def adapters(self) -> int:
        """How many adapters there are."""
        return len(self._adapters)

    def _make_context(self, places: int, context_tokens: int, threads: int) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = places * context_tokens
        parameters.n_batch = BATCH_TOKENS
        parameters.n_ubatch = MICRO_BATCH_TOKENS
        parameters.n_seq_max = places
        parameters.n_threads = parameters.n_threads_batch = threads
        # Each sequence has its own cells: faster than shared ones, and what is computed for
        # one depends less on its neighbours.
        parameters.kv_unified = False
        # Rows of every token, where they are asked for: they are pooled by engine.embedding.
        parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        # On wherever the device can: without it a CPU loses a tenth to a third.
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        parameters.no_perf = True
        return llama_cpp.llama_init_from_model(self._model, parameters)

    @property
    def pooling(self) -> Pooling | None:
        """How the file says that embeddings are pooled; None when it has none to pool.

        An encoder of another half, a model of states instead of places and a ranker have none.
        """
        for is_of_kind in (
            llama_cpp.llama_model_has_encoder,
            llama_cpp.llama_model_is_recurrent,
            llama_cpp.llama_model_is_hybrid,
        ):
            if is_of_kind(self._model):
                return None
        said = self._said("general.architecture")
        kind = self._said(f"{said}.pooling_type") or "0"
        kinds = {"0": Pooling.MEAN, "1": Pooling.MEAN, "2": Pooling.CLS, "3": Pooling.LAST}
        return kinds.get(kind)

    def _said(self, key: str) -> str:
        """A field of the file's header, as text; "" where it has none."""
        buffer = ctypes.create_string_buffer(128)
        length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, 128)
        return buffer.value.decode("utf-8", "replace") if length > 0 else ""

    @property
    def settings(self) -> str:
        """How the numbers are made: what may move a logit a little beside the file and build."""
        flash = library_log.flash_attention()
        return (
            f"kv=f16 flash={flash} layout=split context={self.context_tokens}"
            f" places={self.places} batch={BATCH_TOKENS}/{MICRO_BATCH_TOKENS}"
        )

    def _make_batch(self) -> None:
        """A llama_batch over numpy memory, so that it is filled by slices."""
        self._tokens = np.zeros(BATCH_TOKENS, np.int32)
        self._positions = np.zeros(BATCH_TOKENS, np.int32)
        self._sequences = np.zeros(BATCH_TOKENS, np.int32)
        self._wanted = np.zeros(BATCH_TOKENS, np.int8)
        self._one_each = np.ones(BATCH_TOKENS, np.int32)
        steps = np.arange(BATCH_TOKENS, dtype=np.uint64) * self._sequences.itemsize
        self._sequence_pointers = np.uint64(self._sequences.ctypes.data) + steps
        pointer = ctypes.POINTER
        self._batch = llama_cpp.llama_batch(
            0,
            self._tokens.ctypes.data_as(pointer(ctypes.c_int32)),
            None,
            self._positions.ctypes.data_as(pointer(ctypes.c_int32)),
            self._one_each.ctypes.data_as(pointer(ctypes.c_int32)),
            self._sequence_pointers.ctypes.data_as(pointer(pointer(ctypes.c_int32))),
            self._wanted.ctypes.data_as(pointer(ctypes.c_int8)),
        )

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute one step; `logits` then has what the rows wanted, in order.

        At most BATCH_TOKENS tokens together. ContextFull when they find no room. EngineError
        `engine.crashed` when the library reports a failure: the context can't be trusted
        afterwards.
        """
        end = 0
        for row in rows:
            start, end = end, end + len(row.tokens)
            self._check(row, end)
            if end == start + 1:  # four items take a fifth of the time of four slices
                self._tokens[start] = row.tokens[0]
                self._positions[start] = row.position
                self._sequences[start] = row.sequence
                self._wanted[start] = row.wanted
                continue
            self._tokens[start:end] = row.tokens
            self._positions[start:end] = np.arange(
                row.position, row.position + len(row.tokens), dtype=np.int32
            )
            self._sequences[start:end] = row.sequence
            self._wanted[start : end - row.wanted] = 0
            self._wanted[end - row.wanted : end] = 1
        self._batch.n_tokens = end
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status == 1:
            raise ContextFull
        if status:
            raise EngineError("engine.crashed", f"llama_decode returned {status}")

    def _check(self, row: Row, end: int) -> None:
        """Our own bugs must not reach C, where they abort or corrupt."""
        assert end <= BATCH_TOKENS
        assert 0 <= row.wanted <= len(row.tokens)
        assert row.tokens
        assert 0 <= row.sequence < self.places
        assert row.position + len(row.tokens) <= self.context_tokens
        assert min(row.tokens) >= 0
        assert max(row.tokens) < self.vocabulary.size

    def logits(self, rows: int) -> npt.NDArray[np.float32]:
        """The logits of the last step: (rows, vocabulary) in order; valid until the next."""
        where = _get_logits(self._context), self._batch.n_tokens if self._embeds else rows
        if where != self._logits_where:
            pointer = ctypes.cast(where[0], ctypes.POINTER(ctypes.c_float))
            self._logits = np.ctypeslib.as_array(pointer, (where[1], self.vocabulary.size))
            self._logits_where = where
        if not self._embeds:
            return self._logits
        return np.asarray(self._logits[self._wanted[: self._batch.n_tokens] != 0])

    def embed(self, *, wanted: bool) -> None:
        """Whether the next steps make `hidden`: they take memory for the logits of all tokens."""
        llama_cpp.llama_set_embeddings(self._context, wanted)
        self._embeds = wanted

    def hidden(self) -> npt.NDArray[np.float32]:
        """The hidden rows of all tokens of the last step, which embedded: (tokens, dimensions)."""
        assert self._embeds
        shape = (self._batch.n_tokens, self.dimensions)
        return np.ctypeslib.as_array(_get_embeddings(self._context), shape)

    def forget(self, sequence: int) -> None:
        """Empty a sequence."""
        assert 0 <= sequence < self.places
        _seq_rm(self._memory, sequence, -1, -1)

    def keep(self, sequence: int, count: int) -> bool:
        """Go back to a sequence's first `count` tokens (1 and up).

        False when it does not hold exactly them afterwards: a recurrent model can't go back,
        and one with a sliding window may have lost the first. It has to be emptied then.
        """
        assert 0 <= sequence < self.places
        assert 0 < count <= self.context_tokens
        if not _seq_rm(self._memory, sequence, count, -1):
            return False
        ends = _seq_first(self._memory, sequence), _seq_last(self._memory, sequence)
        return ends == (0, count - 1)

    def copy(self, source: int, target: int) -> None:
        """Make a sequence hold what another holds, instead of what it held.

        Always the whole: each has its own cells, and there the library aborts on a part.
        """
        assert 0 <= source < self.places
        assert 0 <= target < self.places
        assert source != target
        _seq_rm(self._memory, target, -1, -1)
        _seq_cp(self._memory, source, target, -1, -1)

    def close(self) -> None:
        """Free the memory; the object must not be used afterwards."""
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)
