"""What the daemon asks of an engine, and what an engine answers.

Knows nothing of the market or the network. Rule: engine/README.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from protocol.fields import FinishReason, GenerationParameters, Prompt


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that can be served: facts read from its file.

    `name` is what requests ask for; `digest` the SHA-256 of the file; `context_tokens` the
    longest prompt plus output; `quantization` as the file says ("F16", "Q8_0", ...).
    """

    name: str
    digest: bytes
    context_tokens: int
    quantization: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to promise now for a job of a model: time to first token and decode speed."""

    ttft_ns: int
    tokens_per_s_milli: int


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job: which model, on what, how. `job_id` is unique among running jobs."""

    job_id: bytes
    model: str
    prompt: Prompt
    parameters: GenerationParameters


@dataclass(frozen=True, slots=True)
class Started:
    """The prompt was taken: its length in tokens, after the template."""

    input_tokens: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Text (valid UTF-8, perhaps empty) that `count` more tokens made."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: totals, why, and how it was made. Durations in ns, from submission.

    `engine` names the build and `settings` what a re-check needs beside the parameters; both
    go into the receipt's generation profile.
    """

    reason: FinishReason
    input_tokens: int
    output_tokens: int
    ttft_ns: int
    duration_ns: int
    engine: str
    settings: str


EngineEvent = Started | Tokens | Finished


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

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """Run one job: Started once, Tokens any number of times, Finished last.

        Cancelling the surrounding scope stops the job at the next step boundary. Raises
        EngineError: `engine.unknown_model`, `engine.bad_spec`, `engine.prompt_too_long`,
        `engine.crashed`, `engine.timeout`, `engine.overloaded`.
        """
        ...
