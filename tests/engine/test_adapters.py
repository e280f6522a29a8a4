"""LoRA adapters: each job says what its own adapter makes it say, whoever is beside it.

Step by step on the embedded model with small adapters written here. Source: engine/README.md,
"Adapters".
"""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from engine.adapters import AdapterTurns
from engine.embedded import embedded_model_path
from engine.frames import Embed, JobEmbedded, JobFailed, JobFinished, JobTokens, Submit
from engine.interface import Pooling
from engine.native import NativeModel, start_backend
from engine.prompts import PromptReader
from engine.selftest import try_adapters
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import GenerationParameters, Prompt
from tests.engine.conftest import Bench, make_bench, make_chat, make_parameters
from tests.engine.lora import write_lora

QUESTION = make_chat("What is the capital of France?")
LONG = make_chat("A peer asks the others for an answer, and pays whoever gives it. " * 12)
TURN_NS = limits.ENGINE_ADAPTER_TURN_NS


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Iterator[NativeModel]:
    """The embedded model with one adapter that changes words, one that changes nothing."""
    start_backend()
    base, folder = embedded_model_path(), tmp_path_factory.mktemp("lora")
    model = NativeModel(
        base,
        places=4,
        context_tokens=512,
        threads=1,
        adapters=[
            (write_lora(folder / "loud.gguf", base), 1.0),
            (write_lora(folder / "mute.gguf", base, strength=0), 1.0),
        ],
    )
    yield model
    model.close()


@pytest.fixture
def run(adapted) -> Bench:
    adapted.use_adapter(0)
    reader = PromptReader(adapted.vocabulary, adapted.chat_template, adapted.context_tokens)
    return make_bench(adapted, reader)


def submit(
    run: Bench,
    handle: int,
    adapter: int,
    prompt: Prompt = QUESTION,
    asked: GenerationParameters | None = None,
) -> None:
    run.batcher.submit(Submit(handle, prompt, asked or make_parameters(24), b"me", adapter))


def ids(run: Bench, handle: int) -> list[int]:
    return [token for e in run.of(handle) if isinstance(e, JobTokens) for token in e.ids]


def alone(run: Bench, adapter: int) -> list[int]:
    """What a job says that nobody is beside, and that finds nothing in the places."""
    fresh = make_bench(run.batcher._model, run.batcher._intake._prompts, prefix_reuse=False)
    run.batcher._model.use_adapter(0)
    submit(fresh, 1, adapter)
    fresh.run()
    run.batcher._model.use_adapter(0)
    return ids(fresh, 1)


def test_an_adapter_changes_what_is_said(run):
    """One that adds nothing changes nothing: the words are the model's own."""
    plain, loud, mute = (alone(run, adapter) for adapter in (0, 1, 2))
    assert plain == mute != loud


@pytest.mark.parametrize("turn_ns", [0, TURN_NS, 10**12])
def test_mixed_jobs_say_what_each_says_alone(run, monkeypatch, turn_ns):
    """Six jobs in four places, however long the turns are; the base's words too."""
    expected = {adapter: alone(run, adapter) for adapter in (0, 1, 2)}
    monkeypatch.setattr(limits, "ENGINE_ADAPTER_TURN_NS", turn_ns)
    for handle in range(6):
        submit(run, handle, handle % 3)
    run.run()
    for handle in range(6):
        assert ids(run, handle) == expected[handle % 3], handle


def test_a_known_beginning_is_known_to_its_adapter_alone(run):
    """The same owner, the same prompt: another adapter's keys and values are of no use."""
    for handle, adapter in enumerate((0, 1, 2, 1, 0)):
        submit(run, handle, adapter, LONG, make_parameters(2))
        run.run()
    ends = [run.end(handle) for handle in range(5)]
    assert all(isinstance(end, JobFinished) for end in ends)
    assert [end.reused_tokens > 0 for end in ends] == [False, False, False, True, True]


def test_nobody_follows_a_leader_with_another_adapter(run):
    for handle in range(4):
        submit(run, handle, handle // 2, LONG, make_parameters(2))
    run.run()
    assert [run.end(handle).reused_tokens > 0 for handle in range(4)] == [False, True] * 2


def test_no_group_starves(run, monkeypatch):
    """A base job that goes on and on: with turns of no length, the other has every second step."""
    monkeypatch.setattr(limits, "ENGINE_ADAPTER_TURN_NS", 0)
    submit(run, 1, 0, QUESTION, GenerationParameters(200, 5_000, 0, 1_000, 1, ()))
    run.batcher.step()
    submit(run, 2, 1, QUESTION, GenerationParameters(20, 5_000, 0, 1_000, 1, ()))
    for _ in range(44):
        run.batcher.step()
    assert isinstance(run.end(2), JobFinished)
    assert run.counted(1) >= 20


def test_turns_go_around_and_last_their_time():
    """Pure: a lone group is never switched; of several, the next higher number is next."""
    used: list[int] = []
    turns = AdapterTurns(used.append)
    assert [turns.take({0}, at * TURN_NS) for at in range(3)] == [0, 0, 0]
    assert used == []
    took = [turns.take({0, 2, 5}, 3 * TURN_NS + at * TURN_NS // 2) for at in range(9)]
    assert took == [2, 2, 5, 5, 0, 0, 2, 2, 5]
    assert turns.take({0}, 0) == 0  # its own jobs are gone: at once
    assert all(before != after for before, after in pairwise(used))


def test_an_embedding_has_its_adapter_too(run):
    for handle, adapter in enumerate((0, 1, 2)):
        run.batcher.submit(Embed(handle, ("Hello",), Pooling.MEAN, True, b"", adapter))
    run.run()
    plain, loud, mute = (
        next(event.vector for event in run.of(handle) if isinstance(event, JobEmbedded))
        for handle in range(3)
    )
    assert plain == mute != loud


def test_an_adapter_that_is_not_there(run):
    submit(run, 1, 3)
    assert run.of(1) == [JobFailed(1, "engine.unknown_model", "adapter 3")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"wider": 1}, "incorrect shape"),
        ({"kind": "model"}, "expect general.type"),
        ({"architecture": "gpt2"}, "arch mismatch"),
    ],
)
def test_a_file_that_fits_no_model_is_refused(tmp_path, changes, why):
    base = embedded_model_path()
    path = write_lora(tmp_path / "wrong.gguf", base, **changes)
    with pytest.raises(EngineError, match=why) as caught:
        NativeModel(base, places=1, context_tokens=64, threads=1, adapters=[(path, 1.0)])
    assert caught.value.code == "engine.bad_model"
    assert str(path) in caught.value.detail


def test_an_adapter_with_numbers_that_are_none_fails_the_self_test(tmp_path):
    """llama.cpp checks a model's tensors, and not an adapter's."""
    base = embedded_model_path()
    path = write_lora(tmp_path / "nan.gguf", base, strength=float("nan"))
    model = NativeModel(base, places=1, context_tokens=64, threads=1, adapters=[(path, 1.0)])
    with pytest.raises(EngineError, match="adapter 1"):
        try_adapters(model)
    model.close()
