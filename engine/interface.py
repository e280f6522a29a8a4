"""What the daemon asks of an engine, and what an engine answers.

Knows nothing of the market or the network. Rule: engine/README.md.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from engine.queue import Priority
from protocol.fields import FinishReason, GenerationParameters, Prompt, TokenLogprob


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that can be served: facts read from its file.

    `name` is what requests ask for; `digest` the SHA-256 of the file; `context_tokens` the
    longest prompt plus output; `quantization` as the file says ("F16", "Q8_0", ...); `embeds`
    whether it can make vectors of texts.
    """

    name: str
    digest: bytes
    context_tokens: int
    quantization: str
    size_bytes: int
    embeds: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to promise now for a job of a model: time to first token and decode speed.

    `wait_ns` of the time to the first token pass before the prompt is read: for a free place,
    or until the model is loaded.
    """

    ttft_ns: int
    tokens_per_s_milli: int
    wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job: which model, on what, how. `job_id` is unique among running jobs.

    `owner` (a public key, or empty) is who asked: what is kept of a prompt serves it alone, and
    waiting jobs go fairly between owners, by `priority`. A job that can't have its first token
    within `ttft_ns_max` (0: any time) is refused, or given up while it waits.
    """

    job_id: bytes
    model: str
    prompt: Prompt
    parameters: GenerationParameters
    owner: bytes = b""
    priority: Priority = Priority.NORMAL
    ttft_ns_max: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt was taken: its length in tokens, after the template."""

    input_tokens: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Text (valid UTF-8, perhaps empty) that `count` more tokens made.

    `ids` are their numbers in the model's vocabulary, for a re-check; none from an engine that
    does not know them. `logprobs` are theirs, where the job asks for alternatives: of each token
    from a local model; of fewer, in order, where a server tells fewer.
    """

    text: str
    count: int
    ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: totals, why, and how it was made. Durations in ns, from submission.

    `engine` names the build and `settings` what a re-check needs beside the parameters; both
    go into the receipt's generation profile. `reused_tokens` of the input were not read, as an
    earlier job had left them in the engine; `queue_ns` passed before the job had a place; its
    tokens after the first came at `tokens_per_s_milli` (0: too few to tell). These three are for
    the operator, never on the wire.
    """

    reason: FinishReason
    input_tokens: int
    output_tokens: int
    ttft_ns: int
    duration_ns: int
    engine: str
    settings: str
    reused_tokens: int = 0
    queue_ns: int = 0
    tokens_per_s_milli: int = 0


EngineEvent = Started | Tokens | Finished


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """One claimed token against the logits before it.

    `logprob` is ln of its probability at temperature 1, without bias or penalties; `rank` how
    many tokens have a higher logit; `gap` how much higher the best one's is. `replayed` is what
    the sampler chooses here (-1: none, the output is over), and `shortfall` how far the score of
    the claimed token, noise included, stays behind: 0 when it is the one, inf when it could not
    be chosen.
    """

    token: int
    logprob: float
    rank: int
    gap: float
    replayed: int
    shortfall: float


@dataclass(frozen=True, slots=True)
class RecheckReport:
    """What claimed tokens look like to this engine; thresholds: engine/README.md.

    `text` is what they make, up to a bound, cut at stop strings. It is right that the output
    stopped after them if `is_over` (a stop string, or the constraint is complete) or `ends` (the
    sampler chooses an end there); `end_gap` is how much higher the best logit there is than that
    of an end, None where the context was full. `engine` and `settings` are this side's.
    """

    input_tokens: int
    tokens: tuple[TokenCheck, ...]
    text: str
    is_over: bool
    end_gap: float | None
    ends: bool
    engine: str
    settings: str

    @property
    def mismatches(self) -> int:
        """How many tokens are not those that the sampler chooses."""
        return sum(check.replayed != check.token for check in self.tokens)


class Pooling(IntEnum):
    """How the rows of a text's tokens become one vector; MODEL is what its file says, or MEAN."""

    MODEL = 0
    MEAN = 1
    CLS = 2
    LAST = 3


# A text, or its tokens, which then are all that is read.
EmbedInput = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EmbedSpec:
    """Texts to embed: 1 to ENGINE_EMBED_INPUTS_MAX, each at most the model's context.

    `normalized` vectors have length 1. The rest is as in `JobSpec`.
    """

    job_id: bytes
    model: str
    inputs: tuple[EmbedInput, ...]
    pooling: Pooling = Pooling.MODEL
    normalized: bool = True
    owner: bytes = b""
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text's vector, as little-endian float32, and its tokens."""

    vector: bytes
    input_tokens: int

    def numbers(self) -> tuple[float, ...]:
        """The vector as numbers."""
        return struct.unpack(f"<{len(self.vector) // 4}f", self.vector)


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """How a model does, for its operator.

    `stage` is a word: cold, loading, serving, resting (after a failure), withdrawn or skipped; a
    remote one is serving or down. `running` and `queued` jobs; `restarts` since the start; the
    last error, or ""; its worker's process (None without), what that has in RAM, and where it is
    stopped (0: no limit, or not known).
    """

    name: str
    source: str
    stage: str
    running: int
    queued: int
    restarts: int = 0
    last_error: str = ""
    pid: int | None = None
    resident_bytes: int = 0
    limit_bytes: int = 0


class Engine(Protocol):
    """Serves jobs. Started with a trio nursery's task; every method is called from trio."""

    def models(self) -> tuple[ModelInfo, ...]:
        """The models that can be asked for now."""
        ...

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """Expected TTFT and speed of a job arriving now. EngineError `engine.unknown_model`."""
        ...

    def free_places(self, model: str) -> int:
        """How many more jobs would start at once; 0 when a job would queue."""
        ...

    def queue_room(self, model: str) -> int:
        """How many more jobs would be taken to wait, of different owners, with no place free."""
        ...

    def health(self) -> tuple[ModelHealth, ...]:
        """Every model that was asked for, those that can't be served too."""
        ...

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """Run one job: Started once, Tokens any number of times, Finished last.

        Cancelling the surrounding scope stops the job at the next step boundary. Raises
        EngineError: `engine.unknown_model`, `engine.bad_spec`, `engine.prompt_too_long`,
        `engine.crashed`, `engine.timeout`, `engine.overloaded`, `engine.too_late`.
        """
        ...

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """A vector for each text, in their order, of the same length all.

        Cancelling the surrounding scope stops it. EngineError as `run_job`, and
        `engine.no_embeddings` from a model or engine that makes none.
        """
        ...


class Rechecker(Protocol):
    """What an engine can do beside, if it has the logits; a remote service can't."""

    async def recheck(
        self,
        model: str,
        prompt: Prompt,
        parameters: GenerationParameters,
        token_ids: Sequence[int],
    ) -> RecheckReport:
        """Read a prompt with the output that somebody claims for it, and compare.

        At most ENGINE_RECHECK_TOKENS_MAX tokens. EngineError as `Engine.run_job`.
        """
        ...
