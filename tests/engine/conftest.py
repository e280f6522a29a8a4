"""Parts that the engine's tests share: the babbling model, in this process and in a worker."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from engine.batcher import Batcher
from engine.frames import JobEvent, JobFailed, JobFinished, JobTokens, Submit
from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.llama import LlamaEngine
from engine.native import NativeModel, start_backend
from engine.prompts import PromptReader
from engine.settings import LlamaSettings
from engine.speed import Speedometer
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from tests.engine.babbler import babbler_path


def make_chat(text: str) -> Prompt:
    return Prompt(InferenceType.CHAT, (ChatMessage("user", text),))


def make_completion(text: str) -> Prompt:
    return Prompt(InferenceType.COMPLETION, (ChatMessage("user", text),))


def make_parameters(
    tokens: int = 16,
    *,
    temperature_milli: int = 0,
    top_k: int = 0,
    top_p_milli: int = 1000,
    seed: int = 1,
    stop: tuple[str, ...] = (),
) -> GenerationParameters:
    return GenerationParameters(tokens, temperature_milli, top_k, top_p_milli, seed, stop)


@pytest.fixture
def chat() -> Callable[[str], Prompt]:
    return make_chat


@pytest.fixture
def completion() -> Callable[[str], Prompt]:
    return make_completion


@pytest.fixture
def parameters() -> Callable[..., GenerationParameters]:
    return make_parameters


@pytest.fixture(scope="session")
def model() -> Iterator[NativeModel]:
    """The babbling model in this process: 4 places of 512 tokens."""
    start_backend()
    native = NativeModel(babbler_path(), places=4, context_tokens=512, threads=1)
    yield native
    native.close()


@pytest.fixture(scope="session")
def prompts(model: NativeModel) -> PromptReader:
    return PromptReader(model.vocabulary, model.chat_template, model.context_tokens)


@dataclass
class Bench:
    """A batcher on the real model, and what it emitted."""

    batcher: Batcher
    events: list[JobEvent] = field(default_factory=list)

    def submit(self, handle: int, prompt: Prompt, parameters: GenerationParameters) -> None:
        self.batcher.submit(Submit(handle, prompt, parameters))

    def run(self) -> None:
        while self.batcher.is_busy:
            self.batcher.step()

    def of(self, handle: int) -> list[JobEvent]:
        return [event for event in self.events if event.handle == handle]

    def text(self, handle: int) -> str:
        return "".join(e.text for e in self.of(handle) if isinstance(e, JobTokens))

    def counted(self, handle: int) -> int:
        return sum(e.count for e in self.of(handle) if isinstance(e, JobTokens))

    def end(self, handle: int) -> JobFinished | JobFailed:
        last = self.of(handle)[-1]
        assert isinstance(last, JobFinished | JobFailed)
        return last


def make_bench(
    model: NativeModel,
    prompts: PromptReader,
    *,
    chunk_tokens: int = 256,
    queue_jobs: int = 8,
    prefix_reuse: bool = True,
) -> Bench:
    events: list[JobEvent] = []
    batcher = Batcher(
        model,
        prompts,
        Speedometer(model.places),
        events.append,
        chunk_tokens=chunk_tokens,
        queue_jobs=queue_jobs,
        prefix_reuse=prefix_reuse,
        now_ns=lambda: 0,
    )
    return Bench(batcher, events)


@pytest.fixture
def bench(model: NativeModel, prompts: PromptReader) -> Callable[..., Bench]:
    return partial(make_bench, model, prompts)


@dataclass
class Answer:
    """A job's events, as the caller of an engine sees them."""

    events: list[EngineEvent] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Tokens))

    @property
    def started(self) -> Started:
        assert isinstance(self.events[0], Started)
        return self.events[0]

    @property
    def finished(self) -> Finished:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1]


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def job() -> Callable[..., JobSpec]:
    def make(text: str, *, model: str = "babbler", raw: bool = False, **options: int) -> JobSpec:
        prompt = make_completion(text) if raw else make_chat(text)
        return JobSpec(
            text[:4].encode("utf-8", "replace"), model, prompt, make_parameters(**options)
        )

    return make


ServeEngine = Callable[..., AbstractAsyncContextManager[LlamaEngine]]


@pytest.fixture
def serve() -> ServeEngine:
    """A running LlamaEngine on the babbling model; a test that hangs fails."""

    @asynccontextmanager
    async def run(settings: LlamaSettings | None = None) -> AsyncIterator[LlamaEngine]:
        settings = settings or LlamaSettings(n_threads=1)
        engine = LlamaEngine([babbler_path()], settings)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()

    return run
