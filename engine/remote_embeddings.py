"""Texts as an OpenAI-compatible server wants them, and its vectors as an engine gives them.

Pure. Source: OpenAI API reference, "Embeddings". Rule: engine/README.md, "Remote".
"""

import math
import struct
from typing import Any

import msgspec

from engine.completions import BYTES_PER_TOKEN
from engine.interface import Embedding, EmbedSpec, JobSpec, Pooling
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt

PATH = "/embeddings"
_EMPTY = Prompt(InferenceType.COMPLETION, (ChatMessage("user", ""),))
_NO_OUTPUT = GenerationParameters(1, 0, 0, 1_000, 0, ())


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int


class _Answer(msgspec.Struct):
    data: list[_Vector]


_decode = msgspec.json.Decoder(_Answer).decode


def reading_only(spec: EmbedSpec) -> JobSpec:
    """As a queue sees it: a job of its owner that writes next to nothing."""
    return JobSpec(spec.job_id, spec.model, _EMPTY, _NO_OUTPUT, spec.owner, spec.priority)


def embed_body(spec: EmbedSpec, model: str) -> dict[str, Any]:
    """The request's body. EngineError `engine.bad_spec` for what a server can't be asked."""
    if not 0 < len(spec.inputs) <= limits.ENGINE_EMBED_INPUTS_MAX:
        raise EngineError("engine.bad_spec", f"{len(spec.inputs)} texts")
    if spec.pooling is not Pooling.MODEL:
        raise EngineError("engine.bad_spec", "pooling is the server's")
    if len({isinstance(text, str) for text in spec.inputs}) > 1:
        raise EngineError("engine.bad_spec", "texts and tokens in one job")
    try:
        texts = [text if isinstance(text, str) else list(text) for text in spec.inputs]
        msgspec.json.encode(texts)
    except UnicodeEncodeError:
        raise EngineError("engine.bad_spec", "a text is not valid text") from None
    return {"model": model, "input": texts, "encoding_format": "float"}


def read_embeddings(data: bytes, spec: EmbedSpec) -> tuple[Embedding, ...]:
    """The vectors of an answer, in the order of the texts; their tokens are estimates.

    EngineError `engine.remote_failed`.
    """
    try:
        answer = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise EngineError("engine.remote_failed", "its answer has no embeddings") from None
    vectors = {vector.index: vector.embedding for vector in answer.data}
    widths = {len(vector) for vector in vectors.values()}
    if sorted(vectors) != list(range(len(spec.inputs))) or len(widths) != 1 or widths == {0}:
        raise EngineError("engine.remote_failed", "its embeddings do not fit the texts")
    if widths.pop() * 4 > limits.ENGINE_EMBED_BYTES_MAX:
        raise EngineError("engine.remote_failed", "its vectors are too long")
    return tuple(
        Embedding(_packed(vectors[index], spec), estimated_text_tokens(text))
        for index, text in enumerate(spec.inputs)
    )


def estimated_text_tokens(text: str | tuple[int, ...]) -> int:
    """About how many tokens a text has; tokens are counted."""
    if isinstance(text, str):
        return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1
    # Not checked yet: it may be anything.
    return len(text) if isinstance(text, tuple) else 0


def _packed(vector: list[float], spec: EmbedSpec) -> bytes:
    length = math.hypot(*vector) if spec.normalized else 1.0
    try:
        return struct.pack(f"<{len(vector)}f", *(number / (length or 1.0) for number in vector))
    except (OverflowError, struct.error):
        raise EngineError("engine.remote_failed", "a vector is not of finite numbers") from None
