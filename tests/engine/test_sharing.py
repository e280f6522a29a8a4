"""Prompts that begin alike and come together are read once, and each says what it says alone.

Step by step on the embedded model, whose choices are clear. Source: engine/README.md, "Known
beginnings", "Several completions".
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from engine.embedded import embedded_model_path
from engine.frames import JobFinished, JobTokens, Submit
from engine.interface import EngineEvent, Finished, Tokens
from engine.native import NativeModel, Row, start_backend
from engine.prompts import PromptReader
from engine.scripted import Script, ScriptedEngine
from engine.several import completion_of, run_completions
from engine.sharing import LED_TOKENS_MIN
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, InferenceType, Prompt
from tests.engine.conftest import Bench, make_bench

LONG = "A peer asks the others for an answer, and pays whoever gives it. " * 12
OTHER = "A voucher is a promise to pay, signed by the payer of a channel. " * 12


@pytest.fixture(scope="module")
def trained() -> Iterator[NativeModel]:
    start_backend()
    model = NativeModel(embedded_model_path(), places=4, context_tokens=1024, threads=1)
    yield model
    model.close()


@pytest.fixture(scope="module")
def reader(trained) -> PromptReader:
    return PromptReader(trained.vocabulary, trained.chat_template, trained.context_tokens)


@pytest.fixture
def fed(trained, monkeypatch) -> list[list[Row]]:
    """The rows of each step."""
    steps: list[list[Row]] = []
    decode = trained.decode

    def recording(rows: list[Row]) -> None:
        steps.append(list(rows))
        decode(rows)

    monkeypatch.setattr(trained, "decode", recording)
    return steps


@pytest.fixture
def run(trained, reader) -> Bench:
    return make_bench(trained, reader, chunk_tokens=64)


def chat(text: str) -> Prompt:
    return Prompt(InferenceType.CHAT, (ChatMessage("user", text),))


def ids(run: Bench, handle: int) -> list[int]:
    return [token for e in run.of(handle) if isinstance(e, JobTokens) for token in e.ids]


def reused(run: Bench, handle: int) -> int:
    end = run.end(handle)
    assert isinstance(end, JobFinished)
    return end.reused_tokens


def read(fed: list[list[Row]]) -> int:
    return sum(len(row.tokens) for rows in fed for row in rows if len(row.tokens) > 1)


def alone(trained, reader, prompt, asked) -> list[int]:
    fresh = make_bench(trained, reader, prefix_reuse=False)
    fresh.submit(1, prompt, asked)
    fresh.run()
    return ids(fresh, 1)


def test_four_completions_read_their_prompt_once(run, trained, reader, fed, parameters):
    """Each says what its seed says alone; three of them read one token."""
    asked = [parameters(12, temperature_milli=900, top_k=40, seed=seed) for seed in range(4)]
    for handle in range(4):
        run.submit(handle, chat(LONG), asked[handle])
    run.run()
    whole = len(reader.read(chat(LONG)))
    assert whole > 2 * 64
    assert read(fed) == whole
    assert [reused(run, handle) for handle in range(4)] == [0, *[whole - 1] * 3]
    for handle in range(4):
        assert ids(run, handle) == alone(trained, reader, chat(LONG), asked[handle])


def test_only_what_is_shared_is_waited_for(run, reader, fed, parameters):
    """The follower goes on as soon as the common part is read, beside the leader's rest."""
    run.submit(1, chat(LONG + OTHER), parameters(4))
    run.submit(2, chat(LONG + "Why?"), parameters(4))
    run.run()
    shared = reused(run, 2)
    assert LED_TOKENS_MIN < shared < len(reader.read(chat(LONG + "Why?")))
    first_of_2 = next(at for at, rows in enumerate(fed) if len(rows) == 2)
    assert sum(len(row.tokens) for rows in fed[:first_of_2] for row in rows) >= shared
    assert first_of_2 < -(-len(reader.read(chat(LONG + OTHER))) // 64)


@pytest.mark.parametrize("text", ["Hello", OTHER])
def test_nobody_waits_for_little_or_for_others(run, reader, fed, parameters, text):
    """A short prompt, or another owner's: read at once, as if it were alone."""
    for handle, owner in enumerate((b"a", b"b")):
        who = b"a" if text == "Hello" else owner
        run.batcher.submit(Submit(handle, chat(text), parameters(3), who))
    run.run()
    assert [reused(run, handle) for handle in (0, 1)] == [0, 0]
    assert read(fed) == 2 * len(reader.read(chat(text)))


def test_a_leader_that_is_cancelled_leaves_what_it_has_read(run, trained, reader, parameters):
    for handle in range(3):
        run.submit(handle, chat(LONG), parameters(10))
    run.batcher.step()
    run.batcher.cancel(0)
    run.run()
    assert reused(run, 1) > 0
    expected = alone(trained, reader, chat(LONG), parameters(10))
    assert ids(run, 1) == ids(run, 2) == expected


def test_a_leader_s_place_goes_to_another_after_its_followers(run, trained, reader, parameters):
    """It ends with the step that reads its prompt, and a stranger waits for its place."""
    run.submit(0, chat(LONG), parameters(1))
    for handle in (1, 2, 3):
        run.submit(handle, chat(LONG), parameters(6))
    run.batcher.submit(Submit(4, chat(OTHER), parameters(6), b"other"))
    run.run()
    assert all(reused(run, handle) > LED_TOKENS_MIN for handle in (1, 2, 3))
    expected = alone(trained, reader, chat(LONG), parameters(6))
    assert all(ids(run, handle) == expected for handle in (1, 2, 3))
    assert ids(run, 4) == alone(trained, reader, chat(OTHER), parameters(6))


def test_followers_of_followers(run, trained, reader, parameters):
    """Two share the first half, two more the whole of the second one's prompt."""
    texts = [LONG, LONG + OTHER, LONG + OTHER, LONG]
    for handle, text in enumerate(texts):
        run.submit(handle, chat(text), parameters(6))
    run.run()
    for handle, text in enumerate(texts):
        assert ids(run, handle) == alone(trained, reader, chat(text), parameters(6))
        assert bool(reused(run, handle)) == (handle > 0)


def test_without_reuse_nobody_waits(trained, reader, fed, parameters):
    run = make_bench(trained, reader, prefix_reuse=False)
    for handle in range(2):
        run.submit(handle, chat(LONG), parameters(3))
    run.run()
    assert read(fed) == 2 * len(reader.read(chat(LONG)))


def test_every_completion_has_a_seed_and_an_id(job):
    spec = job("Hello", seed=limits.U32_MAX)
    several = [completion_of(spec, index) for index in range(8)]
    assert several[0] == spec
    assert [each.parameters.seed for each in several[:3]] == [limits.U32_MAX, 0, 1]
    assert len({each.job_id for each in several}) == 8


async def test_completions_through_a_worker(serve, job):
    """Each is told with its index; the prompt was read once."""
    events: list[tuple[int, EngineEvent]] = []
    spec = job("Say what you like. " * 20, tokens=9, temperature_milli=900)
    async with serve() as engine:
        await run_completions(engine, spec, 3, lambda index, event: events.append((index, event)))
    ends = {index: event for index, event in events if isinstance(event, Finished)}
    assert sorted(ends) == [0, 1, 2]
    assert sum(end.reused_tokens > 0 for end in ends.values()) == 2
    texts = [
        "".join(e.text for i, e in events if i == index and isinstance(e, Tokens))
        for index in ends
    ]
    assert len(set(texts)) == 3


async def test_one_that_fails_ends_the_others(autojump_clock, job):
    engine = ScriptedEngine(
        {"model": Script((("a", 1),) * 50, failure="engine.crashed", failure_tokens=3)}
    )
    with trio.fail_after(1), pytest.raises(EngineError, match="crashed"):
        await run_completions(engine, job("Hi", model="model"), 4, lambda index, event: None)
    for count in (0, limits.API_CHOICES_MAX + 1):
        with pytest.raises(EngineError, match="bad_spec"):
            await run_completions(engine, job("Hi", model="model"), count, print)
    spec = replace(job("Hi", model="nobody"))
    with pytest.raises(EngineError, match="unknown_model"):
        await run_completions(engine, spec, 2, print)
