"""Adapters and embeddings through the public interface: files, names, digests, workers.

On the embedded model with small adapters written here. Source: engine/README.md, "Adapters",
"Embeddings".
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from engine.catalogue import ModelSource
from engine.embed_job import EmbedJob
from engine.embedded import embedded_model_path
from engine.frames import FrameError, JobEmbedded, JobFinished, JobStarted
from engine.interface import EmbedSpec, JobSpec, Pooling, Tokens
from engine.llama import LlamaEngine
from engine.lora import AdapterSource
from engine.notes import ModelNotes
from engine.settings import LlamaSettings
from engine.trial import try_model
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason
from tests.engine.conftest import make_chat, make_parameters
from tests.engine.lora import write_lora

BASE = embedded_model_path()
SETTINGS = LlamaSettings(n_threads=1, places=2, context_tokens=256)
QUESTION = make_chat("What is the capital of France?")
Serve = Callable[..., AbstractAsyncContextManager[LlamaEngine]]


def source(path: Path, **changes: object) -> AdapterSource:
    fields: dict[str, object] = {"model": "embedded", "name": "loud", "path": path}
    return AdapterSource(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def loud(tmp_path_factory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "loud.gguf", BASE)


@pytest.fixture
def serve_with() -> Serve:
    @asynccontextmanager
    async def run(*adapters: AdapterSource) -> AsyncIterator[LlamaEngine]:
        model = ModelSource(BASE, "embedded")
        engine = LlamaEngine([model], SETTINGS, adapters=adapters)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()

    return run


async def said(engine: LlamaEngine, model: str) -> tuple[str, list[int]]:
    text, ids = [], []

    def emit(event: object) -> None:
        if isinstance(event, Tokens):
            text.append(event.text)
            ids.extend(event.ids)

    await engine.run_job(JobSpec(b"1", model, QUESTION, make_parameters(16)), emit)
    return "".join(text), ids


async def test_an_adapter_is_a_model_of_its_own(serve_with, loud):
    """Its name, its digest, its words; a re-check knows it from the base."""
    async with serve_with(source(loud)) as engine:
        base, adapted = engine.models()
        assert (base.name, adapted.name) == ("embedded", "embedded+loud")
        assert adapted.size_bytes == base.size_bytes + loud.stat().st_size
        scale = (1_000).to_bytes(4, "big")
        parts = base.digest + hashlib.sha256(loud.read_bytes()).digest() + scale
        assert adapted.digest == hashlib.sha256(b"peerd adapter" + parts).digest()
        plain, changed = await said(engine, "embedded"), await said(engine, "embedded+loud")
        assert "Paris" in plain[0]
        assert plain[0] != changed[0]
        both: dict[str, tuple[str, list[int]]] = {}

        async def ask(name: str) -> None:
            both[name] = await said(engine, name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "embedded")
            nursery.start_soon(ask, "embedded+loud")
        assert both == {"embedded": plain, "embedded+loud": changed}
        mismatches = {}
        for name in both:
            asked = make_parameters(16)
            report = await engine.recheck(name, QUESTION, asked, changed[1])
            mismatches[name] = report.mismatches
        assert mismatches["embedded+loud"] == 0 < mismatches["embedded"]
        assert engine.free_places("embedded+loud") == engine.free_places("embedded") == 2
        with pytest.raises(EngineError, match="unknown_model"):
            await said(engine, "embedded+other")


async def test_a_scale_makes_another_model(serve_with, loud):
    faint = source(loud, name="faint", scale_milli=1)
    async with serve_with(source(loud), faint) as engine:
        assert [info.name for info in engine.models()][1:] == ["embedded+loud", "embedded+faint"]
        assert len({info.digest for info in engine.models()}) == 3
        assert (await said(engine, "embedded+faint"))[0] == (await said(engine, "embedded"))[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Loud"}, "can't be named"),
        ({"name": ""}, "can't be named"),
        ({"name": "a+b"}, "can't be named"),
        ({"name": "a" * 128}, "can't be named"),
        ({"scale_milli": 0}, "scale"),
        ({"scale_milli": limits.ADAPTER_SCALE_MILLI_MAX + 1}, "scale"),
    ],
)
def test_a_name_or_scale_that_can_not_be(loud, changes, why):
    with pytest.raises(EngineError, match=why) as caught:
        source(loud, **changes)
    assert caught.value.code == "engine.bad_model"


async def start_code(*adapters: AdapterSource) -> EngineError:
    engine = LlamaEngine([ModelSource(BASE, "embedded")], SETTINGS, adapters=adapters)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            with pytest.raises(EngineError) as caught:
                await nursery.start(engine.run)
            nursery.cancel_scope.cancel()
    return caught.value


async def test_what_can_not_be_loaded_is_an_error_at_start(tmp_path, loud):
    """By name and reason, before anything is offered."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(loud.read_bytes()[:999])
    wider = write_lora(tmp_path / "wider.gguf", BASE, wider=1)
    nan = write_lora(tmp_path / "nan.gguf", BASE, strength=float("nan"))
    for adapters, why in (
        ([source(tmp_path / "none.gguf")], "No such file"),
        ([source(broken)], "truncated"),
        ([source(BASE)], "no LoRA adapter"),
        ([source(wider)], "incorrect shape"),
        ([source(nan)], "adapter 1"),
        ([source(loud, model="nobody")], "no model nobody"),
        ([source(loud), source(loud)], "two adapters"),
    ):
        error = await start_code(*adapters)
        assert error.code == "engine.bad_model"
        assert why in error.detail, (why, error.detail)


async def test_embeddings_through_a_worker(serve_with, loud):
    """In the order of the texts; beside jobs; with an adapter, other vectors."""
    texts = tuple(f"This is text number {number}." for number in range(20))
    async with serve_with(source(loud)) as engine:
        assert all(info.embeds for info in engine.models())
        found: dict[str, tuple[bytes, ...]] = {}

        async def embed(key: str, spec: EmbedSpec) -> None:
            found[key] = tuple(each.vector for each in await engine.embed(spec))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(embed, "one", EmbedSpec(b"1", "embedded", texts))
            nursery.start_soon(embed, "other", EmbedSpec(b"2", "embedded+loud", texts))
            nursery.start_soon(said, engine, "embedded")
        alone = [await engine.embed(EmbedSpec(b"3", "embedded", (text,))) for text in texts]
        for vector, (embedding,) in zip(found["one"], alone, strict=True):
            other = replace(embedding, vector=vector).numbers()
            assert other == pytest.approx(embedding.numbers(), abs=1e-4)
            assert embedding.input_tokens > 4
        assert set(found["one"]).isdisjoint(found["other"])
        # A job that comes meanwhile has its turn before the texts that are left.
        many = EmbedSpec(b"4", "embedded", texts * 12, Pooling.LAST, normalized=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.embed, many)
            await said(engine, "embedded")
            nursery.cancel_scope.cancel()
        assert "Paris" in (await said(engine, "embedded"))[0]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ((), "engine.bad_spec"),
        (("a",) * (limits.ENGINE_EMBED_INPUTS_MAX + 1), "engine.bad_spec"),
        (("\ud83c",), "engine.bad_spec"),
        ((5,), "engine.bad_spec"),
        (((-1,),), "engine.bad_spec"),
        (("",), "engine.bad_spec"),
        (("word " * 400,), "engine.prompt_too_long"),
    ],
    ids=["none", "too many", "no text", "a number", "no token", "empty", "too long"],
)
async def test_texts_that_can_not_be_embedded(engine_alone, inputs, code):
    with pytest.raises(EngineError) as caught:
        await engine_alone.embed(EmbedSpec(b"1", "embedded", inputs))
    assert caught.value.code == code


@pytest.fixture
async def engine_alone(serve_with) -> AsyncIterator[LlamaEngine]:
    async with serve_with() as engine:
        yield engine


def started(*events: object) -> EmbedJob:
    job = EmbedJob(EmbedSpec(b"1", "m", ("a", "b")))
    for event in events:
        job.take(event)  # type: ignore[arg-type]
    return job


@pytest.mark.parametrize(
    "lie",
    [
        JobEmbedded(1, 2, 1, bytes(8)),
        JobEmbedded(1, 0, 1, bytes(8)),
        JobEmbedded(1, 1, 1, bytes(4)),
        JobEmbedded(1, 1, 1, bytes(7)),
        JobEmbedded(1, 1, 1, b""),
        JobFinished(1, FinishReason.STOP, 0),
        JobStarted(1, 2),
    ],
)
async def test_a_worker_that_says_what_can_not_be_is_stopped(lie):
    """Another index, twice, another width, half a number, none at all, an early end."""
    job = started(JobStarted(1, 2), JobEmbedded(1, 0, 1, bytes(8)))
    with pytest.raises(FrameError):
        job.take(lie)


async def test_a_trial_says_whether_it_makes_embeddings():
    report = await try_model(ModelSource(BASE, "embedded"), SETTINGS, ModelNotes())
    assert report.embedding_dimensions == 256
