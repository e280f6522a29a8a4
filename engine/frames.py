"""What the daemon and a model's worker say to each other, and how it lies on the pipe.

A frame is a length (4 bytes, big-endian), then msgpack of one message: an array whose first
item is its type number. Decoding checks types and bounds in both directions. Both ends are
always of the same version, so there is no versioning. Must not know trio or llama.cpp.
Rule: engine/README.md.
"""

import struct
from collections.abc import Iterator
from typing import Annotated

import msgspec

from engine.interface import Pooling
from protocol import limits
from protocol.fields import FinishReason, GenerationParameters, Prompt

GPU_BUILD, CPU_BUILD = " gpu", " cpu"
_LENGTH = struct.Struct(">I")
Handle = Annotated[int, msgspec.Meta(ge=0, le=limits.U63_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=limits.U63_MAX)]
Token = Annotated[int, msgspec.Meta(ge=0, le=limits.U32_MAX)]
Owner = Annotated[bytes, msgspec.Meta(max_length=limits.ENGINE_OWNER_BYTES_MAX)]
EmbedInput = (
    Annotated[str, msgspec.Meta(max_length=limits.MESSAGE_TEXT_CHARS_MAX)]
    | Annotated[tuple[Token, ...], msgspec.Meta(max_length=limits.ENGINE_EMBED_TOKENS_MAX)]
)
# The number of a model's adapter; 0 is the model alone.
Adapter = Annotated[int, msgspec.Meta(ge=0, le=limits.ENGINE_ADAPTERS_MAX)]
# A token's bytes and the micro-logarithm of its probability; then the best ones in its place.
Chance = tuple[
    Annotated[bytes, msgspec.Meta(max_length=limits.TOKEN_BYTES_MAX)],
    Annotated[int, msgspec.Meta(ge=limits.LOGPROB_MICRO_MIN, le=0)],
]
Scored = tuple[
    Annotated[bytes, msgspec.Meta(max_length=limits.TOKEN_BYTES_MAX)],
    Annotated[int, msgspec.Meta(ge=limits.LOGPROB_MICRO_MIN, le=0)],
    Annotated[tuple[Chance, ...], msgspec.Meta(max_length=limits.LOGPROBS_MAX)],
]


BuildName = Annotated[str, msgspec.Meta(max_length=limits.BUILD_NAME_CHARS_MAX)]


class FrameError(Exception):
    """The other end wrote something that is no frame; the pipe can't be used further."""


class Speed(msgspec.Struct, frozen=True, array_like=True):
    """Measured: ns to read one token of a prompt, and ns of a step that decodes 1, 2, ...
    sequences (index 0 is one sequence); 0 where nothing was measured yet."""

    prefill_ns: Count
    step_ns: Annotated[tuple[Count, ...], msgspec.Meta(max_length=limits.ENGINE_PLACES_MAX)]


class LoadAdapter(msgspec.Struct, frozen=True, array_like=True):
    """A LoRA to load beside the model: jobs name it by its number, from 1."""

    path: bytes
    scale_milli: int


class Load(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """First to the worker: which file, and how to run it.

    `path` is the name as the system has it, which need not be text. The process may take
    `data_bytes` of memory beside what it maps (0: no limit). `layers` of `layer_bytes` each, and
    `step_bytes`, are what a GPU needs room for.
    """

    path: bytes
    threads: int
    places: int
    context_tokens: int
    chunk_tokens: int
    queue_jobs: int
    step_ns_min: int
    prefix_reuse: bool = True
    data_bytes: int = 0
    adapters: Annotated[
        tuple[LoadAdapter, ...], msgspec.Meta(max_length=limits.ENGINE_ADAPTERS_MAX)
    ] = ()
    layers: int = 1
    layer_bytes: int = 0
    step_bytes: int = 0


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A job; `handle` is the daemon's number for it, `adapter` that of the LoRA that it wants."""

    handle: Handle
    prompt: Prompt
    parameters: GenerationParameters
    owner: Owner = b""
    adapter: Adapter = 0


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Stop a job; unknown and finished ones are ignored."""

    handle: Handle


class Recheck(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A job that others did: are these the tokens that it makes?"""

    handle: Handle
    prompt: Prompt
    parameters: GenerationParameters
    token_ids: Annotated[
        tuple[Token, ...], msgspec.Meta(max_length=limits.ENGINE_RECHECK_TOKENS_MAX)
    ]
    adapter: Adapter = 0


class Embed(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Texts, or their tokens, to make vectors of."""

    handle: Handle
    inputs: Annotated[
        tuple[EmbedInput, ...],
        msgspec.Meta(min_length=1, max_length=limits.ENGINE_EMBED_INPUTS_MAX),
    ]
    pooling: Pooling
    normalized: bool
    owner: Owner = b""
    adapter: Adapter = 0


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The model is loaded and has passed its self-test."""

    context_tokens: Annotated[int, msgspec.Meta(ge=1, le=limits.INPUT_TOKENS_MAX)]
    engine: BuildName  # the last word says whether the build can use a GPU
    settings: BuildName
    speed: Speed
    # How embeddings are pooled unless asked otherwise; None when the model makes none.
    pooling: Pooling | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """The worker can't go on; it exits."""

    code: str
    detail: str


class JobStarted(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """The prompt was taken and has this many tokens."""

    handle: Handle
    input_tokens: Count


class JobTokens(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """More text of a job, how many tokens made it, which, and how likely they were."""

    handle: Handle
    text: str
    count: Count
    ids: tuple[Token, ...] = ()
    scores: tuple[Scored, ...] = ()


class JobFinished(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """The job is over, and its place is free; so many of its prompt's tokens were not read, as
    they were in the place already. It waited `queue_ns` for the place; from its first token to
    its last passed `output_ns`."""

    handle: Handle
    reason: FinishReason
    output_tokens: Count
    reused_tokens: Count = 0
    queue_ns: Count = 0
    output_ns: Count = 0


class JobFailed(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The job was refused or failed; its place is free."""

    handle: Handle
    code: str
    detail: str


class JobRechecked(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """A re-check is over, and its place is free: `engine.interface.RecheckReport` by columns."""

    handle: Handle
    input_tokens: Count
    logprobs: tuple[float, ...]
    ranks: tuple[Count, ...]
    gaps: tuple[float, ...]
    replayed: tuple[int, ...]
    shortfalls: tuple[float, ...]
    text: str
    is_over: bool
    end_gap: float | None
    ends: bool


class JobEmbedded(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The vector of one text of a job, little-endian float32; they come as they are done."""

    handle: Handle
    index: Count
    input_tokens: Count
    vector: Annotated[bytes, msgspec.Meta(max_length=limits.ENGINE_EMBED_BYTES_MAX)]


JobEvent = JobStarted | JobTokens | JobFinished | JobFailed | JobRechecked | JobEmbedded


class Report(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """What happened since the last report; also the worker's sign of life."""

    events: list[JobEvent]
    speed: Speed


ToWorker = Load | Submit | Cancel | Recheck | Embed
FromWorker = Ready | Failed | Report

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """A whole frame. FrameError when it is longer than ENGINE_FRAME_BYTES_MAX."""
    body = _encoder.encode(message)
    if len(body) > limits.ENGINE_FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def check(message: ToWorker) -> None:
    """FrameError unless the worker could read this message: types and bounds of every field."""
    try:
        decode_to_worker(encode(message)[_LENGTH.size :])
    # Whatever a caller may have put there.
    except (UnicodeEncodeError, TypeError, OverflowError, RecursionError) as error:
        raise FrameError(str(error)) from None


def decode_to_worker(body: bytes) -> ToWorker:
    """A message for the worker. FrameError on anything else."""
    try:
        message: ToWorker = _to_worker.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from None
    return message


def decode_from_worker(body: bytes) -> FromWorker:
    """A message of the worker. FrameError on anything else."""
    try:
        message: FromWorker = _from_worker.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from None
    return message


class FrameBuffer:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def push(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yields the bodies that are complete. FrameError on an absurd length."""
        self._bytes += data
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > limits.ENGINE_FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_LENGTH.size : end])
            del self._bytes[:end]
            yield body
