"""Embeddings as jobs of the market: texts as messages in, vectors as text out.

The answer is a line for each text, in their order: its vector, little-endian float32, in base64.
Nothing is generated, so only input tokens are billed. Rule: protocol/README.md, "Embeddings".
"""

import base64
import binascii
from collections.abc import Callable

from engine.interface import (
    Embedding,
    EmbedSpec,
    Engine,
    EngineEvent,
    Finished,
    JobSpec,
    Started,
    Tokens,
)
from engine.job import now_ns
from protocol import limits
from protocol.errors import EngineError, RemoteError
from protocol.fields import FinishReason

# Pieces are joined to chunks, so a small one wastes nothing.
PIECE_CHARS = 16 * 1024


async def run_embedding(
    engine: Engine, spec: JobSpec, emit: Callable[[EngineEvent], None]
) -> None:
    """As `Engine.run_job`, for a prompt of texts to embed. EngineError as `Engine.embed`."""
    begin_ns = now_ns()
    texts = tuple(message.content for message in spec.prompt.messages)
    asked = EmbedSpec(spec.job_id, spec.model, texts, owner=spec.owner, priority=spec.priority)
    found = await engine.embed(asked)
    answer = write_vectors(found)
    if len(answer) > limits.EMBED_ANSWER_CHARS_MAX:
        raise EngineError("engine.bad_spec", f"{len(answer)} characters of vectors: fewer texts")
    input_tokens = sum(embedding.input_tokens for embedding in found)
    ready_ns = now_ns()
    emit(Started(input_tokens))
    for start in range(0, len(answer), PIECE_CHARS):
        emit(Tokens(answer[start : start + PIECE_CHARS], 0))
    emit(
        Finished(
            reason=FinishReason.STOP,
            input_tokens=input_tokens,
            output_tokens=0,
            ttft_ns=ready_ns - begin_ns,
            duration_ns=ready_ns - begin_ns,
            engine="embeddings",
            settings=f"pooling=model normalized dimensions={len(found[0].vector) // 4}",
        )
    )


def write_vectors(found: tuple[Embedding, ...]) -> str:
    """The answer that carries them."""
    return "".join(f"{base64.b64encode(each.vector).decode()}\n" for each in found)


def read_vectors(answer: str, texts: int) -> tuple[bytes, ...]:
    """The vectors of an answer, all of one length. RemoteError `chunk.bad_vectors`."""
    try:
        lines = answer.removesuffix("\n").split("\n")
        vectors = tuple(base64.b64decode(line, validate=True) for line in lines)
    except (binascii.Error, ValueError):
        raise RemoteError("chunk.bad_vectors", "no base64", penalize=False) from None
    widths = {len(vector) for vector in vectors}
    if len(vectors) != texts or len(widths) != 1 or not (width := widths.pop()) or width % 4:
        raise RemoteError("chunk.bad_vectors", f"{len(vectors)} lines", penalize=False)
    return vectors
