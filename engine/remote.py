"""The engine that has an OpenAI-compatible server do the work: vLLM, llama-server, an API.

What it serves is what that server says: there is no file to hash, and tokens are counted by
the server or by chunks. Must not know the market, nor keep prompts or keys in logs.
Rule: engine/README.md, "Remote".
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
import trio

from engine.completions import request_of
from engine.interface import (
    Embedding,
    EmbedSpec,
    EngineEvent,
    Estimate,
    JobSpec,
    ModelHealth,
    ModelInfo,
)
from engine.job import now_ns
from engine.remote_embeddings import PATH as EMBEDDINGS_PATH
from engine.remote_embeddings import (
    embed_body,
    estimated_text_tokens,
    read_embeddings,
    reading_only,
)
from engine.remote_job import RemoteJob
from engine.remote_server import RemoteServer, Retryable
from engine.task import TaskStatus
from engine.turns import Turns
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from protocol.quantization import UNKNOWN
from protocol.units import NS_PER_S

log = structlog.get_logger("engine")

QUEUE_JOBS = 16
PROBE = Prompt(InferenceType.CHAT, (ChatMessage("user", "Hello"),))
PROBE_TOKENS = 8
# After these the server is not offered until a probe succeeds.
DOWN_CODES = ("engine.remote_failed", "engine.remote_denied", "engine.timeout")
# A new measure weighs 1/4: jobs are few, and each is an average already.
WEIGHT = 4


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """One model of one server: `name` is what requests ask for, `model` what the server does.

    `url` is the base that ends in /v1, as a rule. `key` is "" where the server wants none. It
    `embeds` if the operator says so, and so is the `quantization` the operator's word.
    """

    name: str
    url: str
    model: str
    key: str = field(default="", repr=False)
    places: int = 4
    context_tokens: int = limits.ENGINE_CONTEXT_TOKENS_DEFAULT
    embeds: bool = False
    quantization: str = UNKNOWN

    def digest(self) -> bytes:
        """SHA-256 of `remote:URL#MODEL` in UTF-8: who is asked for what, and no file's hash."""
        return hashlib.sha256(f"remote:{self.url}#{self.model}".encode()).digest()


class RemoteEngine:
    """Serves one model of one server. Start `run` first."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._settings = settings
        self._server = RemoteServer(settings.url, settings.key, settings.places)
        self._info = ModelInfo(
            name=settings.name,
            digest=settings.digest(),
            context_tokens=settings.context_tokens,
            quantization=settings.quantization,
            size_bytes=0,
            embeds=settings.embeds,
        )
        self._turns = Turns(settings.places, QUEUE_JOBS)
        self._jobs = 0
        self._ttft_ns = 0
        self._token_ns = 0
        self._duration_ns = 0
        self._is_up = False
        self._down_code = ""
        self._last_error = ""
        self._failures = 0
        self._down = trio.Event()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe the server, and again whenever it fails; started after the first probe.

        A probe is a real answer of a few tokens: it proves the key and the model's name, and
        measures. A server that is down is a warning, and not offered until it answers.
        """
        delay_ns = limits.REMOTE_PROBE_NS_MIN
        if self._server.is_readable_by_others:
            log.warning(
                "engine.remote_plain",
                model=self._info.name,
                meaning="key and prompts cross the network unencrypted; use https",
            )
        async with self._server.open():
            while True:
                try:
                    await self._probe()
                except EngineError as error:
                    self._went_down(error)
                else:
                    log.info("engine.remote_up", model=self._info.name)
                    self._is_up, self._down_code = True, ""
                    self._down = trio.Event()
                    delay_ns = limits.REMOTE_PROBE_NS_MIN
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                if self._is_up:
                    await self._down.wait()
                await trio.sleep(delay_ns / NS_PER_S)
                delay_ns = min(2 * delay_ns, limits.REMOTE_PROBE_NS_MAX)

    def _went_down(self, error: EngineError) -> None:
        """One line for each new reason."""
        if error.code != self._down_code:
            log.warning(
                "engine.remote_down",
                model=self._info.name,
                code=error.code,
                reason=error.detail,
            )
        self._failures += self._is_up
        self._is_up, self._down_code, self._last_error = False, error.code, str(error)
        self._down.set()

    async def _probe(self) -> None:
        parameters = GenerationParameters(PROBE_TOKENS, 0, 0, 1_000, 1, ())
        spec = JobSpec(b"probe", self._info.name, PROBE, parameters)
        await self._ask(spec, RemoteJob(spec, lambda event: None))

    def models(self) -> tuple[ModelInfo, ...]:
        """The one model, while the server answers."""
        return (self._info,) if self._is_up else ()

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        """As in `Engine`: running means of what was measured, whatever the prompt's length.

        Jobs beyond the places wait for the mean duration of one.
        """
        self._check_name(model)
        turns = max(0, self._jobs + 1 - self._settings.places)
        wait_ns = -(-turns // self._settings.places) * self._duration_ns
        speed = 1_000 * NS_PER_S // self._token_ns if self._token_ns else 0
        return Estimate(self._ttft_ns + wait_ns, speed, wait_ns)

    def free_places(self, model: str) -> int:
        """As in `Engine`; 0 while the server is down."""
        self._check_name(model)
        return max(0, self._settings.places - self._jobs) if self._is_up else 0

    def queue_room(self, model: str) -> int:
        """As in `Engine`; 0 while the server is down."""
        self._check_name(model)
        return self._turns.room if self._is_up else 0

    def _check_name(self, model: str) -> None:
        if model != self._info.name:
            raise EngineError("engine.unknown_model", model)

    def health(self) -> tuple[ModelHealth, ...]:
        """As in `Engine`; `restarts` counts how often the server went down."""
        queued = max(0, self._jobs - self._settings.places)
        return (
            ModelHealth(
                name=self._info.name,
                source=self._settings.url,
                stage="serving" if self._is_up else "down",
                running=self._jobs - queued,
                queued=queued,
                restarts=self._failures,
                last_error=self._last_error,
            ),
        )

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        """As in `Engine`; also EngineError `engine.remote_failed`, `engine.remote_denied`.

        Cancelling closes the response, on which such servers stop. Nothing is tried again
        once a token has come.
        """
        self._check_name(spec.model)
        job = RemoteJob(spec, emit)
        async with self._place(spec):
            job.placed_ns = now_ns()
            await self._ask(spec, job)

    async def embed(self, spec: EmbedSpec) -> tuple[Embedding, ...]:
        """As in `Engine`; tokens are estimates, and the pooling is the server's."""
        self._check_name(spec.model)
        if not self._settings.embeds:
            raise EngineError("engine.no_embeddings", "the operator has not said that it does")
        body = embed_body(spec, self._settings.model)
        most = max(map(estimated_text_tokens, spec.inputs))
        if most > self._settings.context_tokens:
            raise EngineError("engine.prompt_too_long", f"about {most} tokens")
        async with self._place(reading_only(spec)):
            return read_embeddings(await self._server.post(EMBEDDINGS_PATH, body), spec)

    @asynccontextmanager
    async def _place(self, spec: JobSpec) -> AsyncIterator[None]:
        """One of the places, for the length of a job, which says whether the server works."""
        if not self._is_up:
            raise EngineError("engine.remote_failed", "it does not answer now")
        ttft_ns = self.estimate(spec.model, 0).ttft_ns
        self._jobs += 1
        try:
            async with self._turns.turn(spec, self._duration_ns, ttft_ns):
                yield
        except EngineError as error:
            if error.code in DOWN_CODES:
                self._went_down(error)
            raise
        finally:
            self._jobs -= 1

    async def _ask(self, spec: JobSpec, job: RemoteJob) -> None:
        """Ask until an attempt has brought a token, or failed for good."""
        if job.input_tokens >= self._settings.context_tokens:
            raise EngineError("engine.prompt_too_long", f"about {job.input_tokens} tokens")
        path, body = request_of(spec, self._settings.model)
        asked_ns, delay_ns = now_ns(), limits.REMOTE_RETRY_NS
        for left in reversed(range(limits.REMOTE_ATTEMPTS_MAX)):
            try:
                await self._server.stream(path, body, job.answer)
                break
            except Retryable as error:
                if not left or job.first_ns:
                    raise
                pause_ns = error.pause_ns or delay_ns
            await trio.sleep(pause_ns / NS_PER_S)
            delay_ns *= 2
        job.finish(self._settings.model)
        self._measure(job, asked_ns)

    def _measure(self, job: RemoteJob, asked_ns: int) -> None:
        first_ns, end_ns = job.first_ns or now_ns(), now_ns()
        self._ttft_ns = _mean(self._ttft_ns, first_ns - asked_ns)
        self._duration_ns = _mean(self._duration_ns, end_ns - asked_ns)
        if job.answer.output_tokens > 1:
            each_ns = (end_ns - first_ns) // (job.answer.output_tokens - 1)
            self._token_ns = _mean(self._token_ns, max(1, each_ns))


def _mean(mean_ns: int, new_ns: int) -> int:
    return mean_ns + (new_ns - mean_ns) // WEIGHT if mean_ns else new_ns
