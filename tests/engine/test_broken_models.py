"""Broken GGUFs through the whole engine: one cause each, one code, and the other model serves.

Most are found by the header's reader; what only loading shows ends a worker at most. What is in
the file is somebody else's: every cause of an abort that is known is here by name.
"""

import math
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from engine.catalogue import ModelSource, fingerprint, read_model
from engine.interface import ModelHealth
from engine.llama import LlamaEngine
from engine.notes import ModelNotes, passed_trial
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from tests.engine.gguf_parts import ARRAY, STRING, Field, Parts, TensorInfo, tiny, write

SETTINGS = LlamaSettings(n_threads=1, places=2, context_tokens=64)
EPSILON = "llama.attention.layer_norm_rms_epsilon"
NAN, INFINITY = b"\x00\x7e", b"\x00\x7c"  # in 16 bits
Serving = Callable[..., AbstractAsyncContextManager[LlamaEngine]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """An engine that has a good model, proven and not loaded, beside a bad one."""

    @asynccontextmanager
    async def run(bad: Path, settings: LlamaSettings = SETTINGS) -> AsyncIterator[LlamaEngine]:
        good, notes = write(tmp_path / "good.gguf", tiny()), ModelNotes()
        trial = passed_trial(settings.conditions(), 1, 1_000, (2_000, 3_000))
        notes.record(fingerprint(good), read_model(good).info.digest, trial)
        sources = [ModelSource(bad, "bad", False), ModelSource(good, "good", False)]
        engine = LlamaEngine(sources, settings, notes)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()

    return run


def skipped(engine: LlamaEngine) -> ModelHealth:
    """The bad one, which is not offered; the good one is."""
    assert [info.name for info in engine.models()] == ["good"]
    (bad,) = [one for one in engine.health() if one.name == "bad"]
    assert bad.stage == "skipped"
    assert "\n" not in bad.last_error
    return bad


def weights(worse: bytes) -> Parts:
    """The last of the tiny model's 16-bit weights replaced."""
    parts = tiny()
    end = parts.tensors[-1].offset
    parts.data = parts.data[: end - len(worse)] + worse + parts.data[end:]
    return parts


def changed(**names: object) -> Parts:
    parts = tiny()
    for name, value in names.items():
        setattr(parts, name, value)
    return parts


def more(one: Field) -> Parts:
    parts = tiny()
    parts.fields.append(one)
    return parts


def reshaped(index: int, dimensions: list[int], kind: int = 1, offset: int = 0) -> Parts:
    parts = tiny()
    parts.tensors[index] = TensorInfo(parts.tensors[index].name, dimensions, kind, offset)
    return parts


def claims(key: str, count: int) -> Parts:
    parts = tiny()
    parts.named(key).count = count
    return parts


def names_twice() -> Parts:
    parts = tiny()
    parts.named("tokenizer.ggml.tokens").value[5] = parts.named("tokenizer.ggml.tokens").value[9]
    return parts


def tensor_twice() -> Parts:
    parts = tiny()
    parts.tensors.append(parts.tensors[0])
    return parts


WHOLE = tiny().to_bytes()
BROKEN: dict[str, tuple[Parts | bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "magic only": (b"GGUF", "truncated"),
    "no GGUF": (random.Random(1).randbytes(4_000), "magic"),
    "cut header": (WHOLE[:900], "truncated"),
    "cut weights": (WHOLE[:-1], "truncated"),
    "old version": (changed(version=1), "version 1"),
    "other byte order": (changed(order=">"), "version"),
    "no tensors": (changed(tensor_count=0), "no tensors"),
    "2^62 tensors": (changed(tensor_count=2**62), "too many"),
    "2^62 fields": (changed(field_count=2**62), "too many fields"),
    "2^62 tokens": (claims("tokenizer.ggml.tokens", 2**62), "too many items"),
    "a text over the end": (more(Field(b"x", STRING, b"")).to_bytes()[:-20_000], "truncated"),
    "arrays of arrays": (more(Field(b"x", ARRAY, [], item=ARRAY)), "array of arrays"),
    "unknown kind of value": (more(Field(b"x", 99, 0)), "GGUFValueType"),
    "a key twice": (more(Field(b"general.name", STRING, b"again")), "twice"),
    "a key that is no text": (more(Field(b"\xff", STRING, b"")), "not UTF-8"),
    "a tensor twice": (tensor_twice(), "twice"),
    "duplicate tokens": (names_twice(), "duplicate tokens"),
    "no vocabulary": (tiny().without("tokenizer.ggml.tokens"), "vocabulary is missing"),
    "no layers": (tiny().set("llama.block_count", 0), "block_count"),
    "100,000 layers": (tiny().set("llama.block_count", 100_000), "block_count"),
    "layers not said": (tiny().without("llama.block_count"), "block_count"),
    "negative epsilon": (tiny().set(EPSILON, -1.0), "epsilon"),
    "epsilon not a number": (tiny().set(EPSILON, math.nan), "epsilon"),
    "infinite epsilon": (tiny().set(EPSILON, math.inf), "epsilon"),
    "no context": (tiny().set("llama.context_length", 0), "context_length"),
    "five dimensions": (reshaped(0, [2] * 5), "too many dimensions"),
    "dimensions over 2^64": (reshaped(0, [2**40, 2**40]), "truncated"),
    "unknown kind of tensor": (reshaped(0, [32, 272], kind=999), "QuantizationType"),
    "a tensor beyond the end": (reshaped(0, [32, 272], offset=2**63), "truncated"),
    "alignment of 3": (more(Field(b"general.alignment", 4, 3)), "power of two"),
    "in several files": (more(Field(b"split.count", 2, 2)), "merge"),
}


@pytest.mark.parametrize("cause", BROKEN)
async def test_what_the_reader_finds_costs_no_worker(serving, tmp_path, cause):
    content, why = BROKEN[cause]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content if isinstance(content, bytes) else content.to_bytes())
    async with serving(path) as engine:
        bad = skipped(engine)
        assert bad.last_error.startswith("engine.bad_model")
        assert why in bad.last_error


@pytest.mark.parametrize("kind", ["missing", "a directory", "a pipe", "no such name"])
async def test_what_is_no_file(serving, tmp_path, kind):
    path = tmp_path / ("bad\0.gguf" if kind == "no such name" else "bad.gguf")
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    async with serving(path) as engine:
        assert skipped(engine).last_error.startswith("engine.bad_model")


LOOP = b"{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
# Lists in lists that are compared in C, 2^40 times, where no signal is looked at.
ENDLESS = (
    b"{% set n = namespace(a=[1], b=[1]) %}{% for i in range(40) %}"
    b"{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}{{ n.a == n.b }}"
)
LOADED: dict[str, tuple[Parts, str, str]] = {
    "unknown architecture": (tiny().set("general.architecture", b"llama2"), "bad_model", ""),
    "NaN weights": (weights(NAN * 32), "bad_model", "invalid data"),
    "infinite weights": (weights(INFINITY * 32), "bad_model", "invalid data"),
    "a tensor of other dimensions": (reshaped(1, [16], 0, 17_408), "bad_model", "tensor"),
    "tokens out of range": (
        tiny().set("tokenizer.ggml.bos_token_id", 2**31).set("tokenizer.ggml.eos_token_id", 999),
        "",
        "",
    ),
    "a template that is none": (tiny().set("tokenizer.chat_template", b"{{"), "bad_model", "chat"),
    "a template without end": (
        tiny().set("tokenizer.chat_template", LOOP),
        "bad_model",
        "takes too long",
    ),
    "a template that can't be interrupted": (
        tiny().set("tokenizer.chat_template", ENDLESS),
        "timeout",
        "too long to load",
    ),
    "a template that eats memory": (
        tiny().set("tokenizer.chat_template", b"{{ 'x' * 99999999999 }}"),
        "bad_model",
        "chat template",
    ),
}


@pytest.mark.parametrize("cause", LOADED)
async def test_what_only_loading_shows_ends_a_worker_at_most(
    serving, tmp_path, monkeypatch, job, cause
):
    parts, code, why = LOADED[cause]
    if code == "timeout":
        monkeypatch.setattr(limits, "ENGINE_START_NS_MIN", 5_000_000_000)
    parts.set("general.name", b"bad")
    if cause == "unknown architecture":
        for one in parts.fields:
            one.key = one.key.replace(b"llama.", b"llama2.")
    async with serving(write(tmp_path / "bad.gguf", parts)) as engine:
        if code:
            bad = skipped(engine)
            assert bad.last_error.startswith(f"engine.{code}")
            assert why in bad.last_error
        await engine.run_job(job("the cat", model="good", tokens=3), lambda event: None)


async def test_a_context_over_the_memory_limit_is_no_room(serving, tmp_path, job):
    """The model's own context is a hundred times what its worker may allocate."""
    parts = tiny().set("llama.context_length", 1_000_000)
    tight = LlamaSettings(n_threads=1, places=8, context_tokens=1_000_000, worker_memory_mib=300)
    async with serving(write(tmp_path / "bad.gguf", parts), tight) as engine:
        assert skipped(engine).last_error.startswith("engine.no_room")
        await engine.run_job(job("the cat", model="good", tokens=3), lambda event: None)


async def test_a_required_model_that_is_broken_stops_the_start_with_its_code(tmp_path):
    path = write(tmp_path / "bad.gguf", names_twice())
    with trio.fail_after(30), pytest.raises(EngineError) as caught:
        await LlamaEngine([path], SETTINGS).run()
    assert caught.value.code == "engine.bad_model"


async def test_a_file_cut_while_it_is_served_fails_its_jobs_and_nothing_else(
    serving, tmp_path, job
):
    """Mapped memory that the file no longer holds is SIGBUS in the worker, at the latest when it
    is loaded again."""
    path = tmp_path / "bad.gguf"
    async with serving(write(path, tiny())) as engine:
        os.truncate(path, 1_000)
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("the cat", model="bad", tokens=3), lambda event: None)
        assert caught.value.code in ("engine.bad_model", "engine.crashed")
        await engine.run_job(job("the cat", model="good", tokens=3), lambda event: None)


async def test_a_file_name_that_is_no_text_is_served(tmp_path, job):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tiny\xff.gguf"))
    engine = LlamaEngine([write(path, tiny())], SETTINGS)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            await engine.run_job(job("the cat", model="tiny", tokens=3), lambda event: None)
            nursery.cancel_scope.cancel()
