"""An engine that says what a script says, at the times that it says, by trio's clock.

For tests and simulations that need determinism: no model, no process, no chance. Stop strings
and sampling are ignored; limits, places and the queue are kept; stop tokens are refused, as a
script has no vocabulary. Must not know llama.cpp. Rule: engine/interface.py.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from engine.interface import (
    Embedding,
    EmbedSpec,
    EngineEvent,
    Estimate,
    Finished,
    JobSpec,
    ModelHealth,
    ModelInfo,
    Started,
    Tokens,
)
from engine.task import TaskStatus
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason, Prompt, TokenChance, TokenLogprob
from protocol.units import NS_PER_MS, NS_PER_S

LN_2_MICRO = 693_147
SCRIPTED_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Script:
    """What every job of a model gets: pieces of text with the tokens that make each (>= 1).

    The first piece comes `ttft_ns` after the job has a place, then each token takes
    `token_ns`. With `failure` set, the job raises it after `failure_tokens` tokens.
    """

    pieces: tuple[tuple[str, int], ...] = (("Hello", 1), (" there", 1), (".", 1))
    ttft_ns: int = 50 * NS_PER_MS
    token_ns: int = 10 * NS_PER_MS
    failure: str = ""
    failure_tokens: int = 0


def count_words(prompt: Prompt) -> int:
    """The scripted tokeniser: one token for each word, and one for each message."""
    return sum(1 + len(message.content.split()) for message in prompt.messages)


class ScriptedEngine:
    """Serves the models that `scripts` names, each with `places` and `queue_jobs`."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        places: int = 4,
        queue_jobs: int = 16,
        context_tokens: int = 2048,
    ) -> None:
        self._scripts = dict(scripts)
        self._places = places
        self._queue_jobs = queue_jobs
        self._context_tokens = context_tokens
        # A semaphore of trio's serves in order of arrival.
        self._free = {name: trio.Semaphore(places) for name in scripts}
        self._jobs = dict.fromkeys(scripts, 0)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing to keep alive; here so that it starts like any engine."""
        task_status.started()
        await trio.sleep_forever()

    def models(self) -> tuple[ModelInfo, ...]:
        """As in `Engine`; a digest is the SHA-256 of the name."""
        return tuple(
            ModelInfo(
                name=name,
                digest=hashlib.sha256(name.encode()).digest(),
                context_tokens=self._context_tokens,
                quantization="F16",
                size_bytes=1,
                embeds=True,
            )
            for name in self._scripts
        )

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """As in `Engine`: what the script says, and nothing for a queue."""
        script = self._script(model)
        return Estimate(script.ttft_ns, 1000 * NS_PER_S // max(1, script.token_ns))

    def free_places(self, model: str) -> int:
        """As in `Engine`."""
        self._script(model)
        return max(0, self._places - self._jobs[model])

    def queue_room(self, model: str) -> int:
        """As in `Engine`."""
        self._script(model)
        return self._queue_jobs - max(0, self._jobs[model] - self._places)

    def health(self) -> tuple[ModelHealth, ...]:
        """As in `Engine`: all is well."""
        return tuple(
            ModelHealth(name, "script", "serving", jobs - queued, queued)
            for name, jobs in self._jobs.items()
            for queued in (max(0, jobs - self._places),)
        )

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`; also raises the script's failure."""
        script = self._script(spec.model)
        if spec.parameters.stop_tokens:
            raise EngineError("engine.bad_spec", "stop_tokens: a script has no vocabulary")
        input_tokens = count_words(spec.prompt)
        if input_tokens >= self._context_tokens:
            raise EngineError("engine.prompt_too_long", f"{input_tokens} tokens")
        if self._jobs[spec.model] >= self._places + self._queue_jobs:
            raise EngineError("engine.overloaded", f"{self._jobs[spec.model]} jobs")
        submitted_at = trio.current_time()
        self._jobs[spec.model] += 1
        try:
            emit(Started(input_tokens))
            async with self._free[spec.model]:
                await self._play(script, spec, emit, input_tokens, submitted_at)
        finally:
            self._jobs[spec.model] -= 1

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """As in `Engine`: SCRIPTED_DIMENSIONS numbers from the text's SHA-256, after `ttft_ns`."""
        script = self._script(spec.model)
        if any(isinstance(text, tuple) for text in spec.inputs):
            raise EngineError("engine.bad_spec", "tokens: a script has no vocabulary")
        if self._jobs[spec.model] >= self._places + self._queue_jobs:
            raise EngineError("engine.overloaded", f"{self._jobs[spec.model]} jobs")
        self._jobs[spec.model] += 1
        try:
            async with self._free[spec.model]:
                await trio.sleep(script.ttft_ns / NS_PER_S)
        finally:
            self._jobs[spec.model] -= 1
        return tuple(_embedding(str(text), normalized=spec.normalized) for text in spec.inputs)

    async def _play(
        self,
        script: Script,
        spec: JobSpec,
        emit: Callable[[EngineEvent], None],
        input_tokens: int,
        submitted_at: float,
    ) -> None:
        queue_ns = _since(submitted_at)
        # Times from the beginning, not pauses: what waking up late costs must not add up.
        at_s = trio.current_time() + script.ttft_ns / NS_PER_S
        await trio.sleep_until(at_s)
        ttft_ns = _since(submitted_at)
        made = 0
        reason = FinishReason.STOP
        for text, tokens in _left(script.pieces, spec.prompt.begun):
            if script.failure and made + tokens > script.failure_tokens:
                break
            count = min(tokens, spec.parameters.output_tokens_max - made)
            if made:
                at_s += count * script.token_ns / NS_PER_S
                await trio.sleep_until(at_s)
            made += count
            emit(Tokens(text, count, (), _logprobs(text, count, spec.parameters.logprobs)))
            if made >= spec.parameters.output_tokens_max:
                reason = FinishReason.LENGTH
                break
        if script.failure and reason == FinishReason.STOP:
            raise EngineError(script.failure, f"after {made} tokens, by the script")
        emit(
            Finished(
                reason=reason,
                input_tokens=input_tokens,
                output_tokens=made,
                ttft_ns=ttft_ns,
                duration_ns=_since(submitted_at),
                engine="scripted",
                settings=f"places={self._places}",
                queue_ns=queue_ns,
            )
        )

    def _script(self, model: str) -> Script:
        if model not in self._scripts:
            raise EngineError("engine.unknown_model", model)
        return self._scripts[model]


def _left(pieces: Sequence[tuple[str, int]], begun: str) -> list[tuple[str, int]]:
    """What follows the beginning of an answer; all of it where that is not the script's."""
    if not "".join(text for text, _ in pieces).startswith(begun):
        return list(pieces)
    left, skipped = [], len(begun)
    for text, tokens in pieces:
        if skipped and skipped >= len(text):
            skipped -= len(text)
            continue
        left.append((text[skipped:], tokens))
        skipped = 0
    return left


def _logprobs(text: str, count: int, alternatives: int) -> tuple[TokenLogprob, ...]:
    """Each token as likely as 1/2, then 1/4 and so on; the piece's first one has its text."""
    if not alternatives:
        return ()
    top = [TokenChance(b"", -LN_2_MICRO * rank) for rank in range(2, alternatives + 1)]
    pieces = [text.encode()[: limits.TOKEN_BYTES_MAX], *[b""] * (count - 1)]
    return tuple(
        TokenLogprob(chosen, (chosen, *top))
        for chosen in (TokenChance(piece, -LN_2_MICRO) for piece in pieces)
    )


def _embedding(text: str, *, normalized: bool) -> Embedding:
    numbers = [byte - 128 for byte in hashlib.sha256(text.encode()).digest()[:SCRIPTED_DIMENSIONS]]
    length = math.hypot(*numbers) if normalized else 1
    vector = struct.pack(f"<{len(numbers)}f", *(number / length for number in numbers))
    return Embedding(vector, 1 + len(text.split()))


def _since(start: float) -> int:
    return round((trio.current_time() - start) * NS_PER_S)
