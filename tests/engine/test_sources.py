"""Several files at once: which are served, which are left out, and what is said about it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from engine.catalogue import ModelSource, fingerprint
from engine.llama import LlamaEngine
from engine.notes import ModelNotes
from engine.settings import LlamaSettings
from protocol.errors import EngineError
from tests.engine.babbler import babbler_path

SETTINGS = LlamaSettings(n_threads=1, context_tokens=256, places=1)
Serve = Callable[..., AbstractAsyncContextManager[LlamaEngine]]


@pytest.fixture
def serving() -> Serve:
    """A LlamaEngine on these sources, for the length of a block."""

    @asynccontextmanager
    async def run(
        sources: list[ModelSource], notes: ModelNotes | None = None
    ) -> AsyncIterator[LlamaEngine]:
        engine = LlamaEngine(sources, SETTINGS, notes)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()

    return run


def optional(path: Path, name: str) -> ModelSource:
    return ModelSource(path, name, required=False)


async def test_a_bad_file_is_one_warning_and_the_others_are_served(serving, tmp_path):
    """Both kinds: one that reading finds, one that only the worker does."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(babbler_path().read_bytes().replace(b"llama", b"lxxma"))
    sources = [optional(bad, "a"), optional(strange, "b"), optional(babbler_path(), "c")]
    with capture_logs() as lines:
        async with serving(sources) as engine:
            assert [info.name for info in engine.models()] == ["c"]
    skipped = [line for line in lines if line["event"] == "engine.skipped"]
    assert [line["log_level"] for line in skipped] == ["warning", "warning"]
    assert [line["code"] for line in skipped] == ["engine.bad_model"] * 2
    assert str(bad) in skipped[0]["reason"]
    assert str(strange) in skipped[1]["reason"]


async def test_a_file_that_was_named_is_an_error_even_beside_good_ones(tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    engine = LlamaEngine([optional(babbler_path(), "c"), ModelSource(bad)], SETTINGS)
    with trio.fail_after(60), pytest.raises(EngineError) as caught:
        await engine.run()
    assert caught.value.code == "engine.bad_model"


async def test_the_named_file_has_the_name_and_the_other_is_warned_of(serving, tmp_path, job):
    other = tmp_path / "other.gguf"
    other.write_bytes(babbler_path().read_bytes())
    with capture_logs() as lines:
        async with serving([optional(other, "babbler"), ModelSource(babbler_path())]) as engine:
            (info,) = engine.models()
            assert info.name == "babbler"
            await engine.run_job(job("Hello", tokens=3), lambda event: None)
    (line,) = [line for line in lines if line["event"] == "engine.skipped"]
    assert f"{babbler_path()} and {other}" in line["reason"]


async def test_the_same_file_twice_is_nothing_to_warn_of(serving):
    with capture_logs() as lines:
        async with serving(
            [ModelSource(babbler_path()), optional(babbler_path(), "babbler")]
        ) as engine:
            assert len(engine.models()) == 1
    assert not [line for line in lines if line["event"] == "engine.skipped"]


async def test_a_self_test_is_noted(serving, tmp_path):
    notes = ModelNotes(tmp_path / "models.json")
    async with serving([optional(babbler_path(), "b")], notes):
        pass
    trial = ModelNotes(tmp_path / "models.json").trial(fingerprint(babbler_path()))
    assert trial is not None
    assert trial.passed
    assert trial.conditions == SETTINGS.conditions()
    assert trial.load_ns > 0
    assert len(trial.step_ns) == SETTINGS.places
