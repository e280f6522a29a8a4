"""What earlier jobs left in the places is used again, and nobody can tell from the text.

On the real babbling model, step by step in this process, and once through a worker.
"""

from dataclasses import replace

import pytest

from engine.embedded import embedded_model_path
from engine.frames import JobFinished, JobRechecked, JobTokens, Recheck
from engine.native import NativeModel, Row, start_backend
from engine.places import REUSED_TOKENS_MIN
from engine.prompts import PromptReader
from engine.settings import LlamaSettings
from engine.speed import Speedometer
from protocol.fields import ChatMessage, FinishReason, InferenceType, Prompt
from tests.engine.conftest import make_bench

STORY = "The peer told the other peer a long story of rivers, maps and old lamps. " * 4
ENDS = ("Then it rained.", "Nobody knew why.", "We asked again?", "So be it!", "A lamp fell.")


@pytest.fixture
def fed(model, monkeypatch) -> list[int]:
    """How many tokens each step evaluated."""
    counts: list[int] = []
    decode = model.decode

    def counting(rows: list[Row]) -> None:
        counts.append(sum(len(row.tokens) for row in rows))
        decode(rows)

    monkeypatch.setattr(model, "decode", counting)
    return counts


def reused(run, handle: int) -> int:
    end = run.end(handle)
    assert isinstance(end, JobFinished)
    return end.reused_tokens


def ids(run, handle: int) -> list[int]:
    return [token for e in run.of(handle) if isinstance(e, JobTokens) for token in e.ids]


def alone(bench, prompt, asked) -> list[int]:
    """What a fresh engine says that reuses nothing."""
    run = bench(prefix_reuse=False)
    run.submit(1, prompt, asked)
    run.run()
    assert reused(run, 1) == 0
    return ids(run, 1)


def one(run, handle: int, prompt, asked) -> int:
    """Run a job to its end; how many tokens it found."""
    run.submit(handle, prompt, asked)
    run.run()
    return reused(run, handle)


def test_the_second_turn_of_a_chat_reads_only_what_is_new(bench, parameters, prompts, fed):
    run = bench()
    first = Prompt(InferenceType.CHAT, (ChatMessage("user", STORY),))
    assert one(run, 1, first, parameters(20)) == 0
    turns = (ChatMessage("assistant", run.text(1)), ChatMessage("user", "And then?"))
    second = replace(first, messages=(*first.messages, *turns))
    known, whole = len(prompts.read(first)), len(prompts.read(second))
    fed.clear()
    found = one(run, 2, second, parameters(20))
    assert found >= known - 1 > 60
    # Each token made is fed but the last.
    assert sum(fed) == whole - found + 19
    # The first answer was decoded, not read, which moves a logit by up to 0.012: the babbler's
    # choices are sometimes closer than that. A fresh engine must find no other difference.
    fresh = bench(prefix_reuse=False)
    fresh.batcher.submit(Recheck(3, second, parameters(20), tuple(ids(run, 2))))
    fresh.run()
    report = fresh.of(3)[-1]
    assert isinstance(report, JobRechecked)
    assert len(report.gaps) == 20
    assert max(report.gaps) < 0.05


def test_every_turn_of_a_chat_says_what_a_fresh_engine_says(parameters):
    """On the embedded model, which has learnt something, so that its choices are clear."""
    start_backend()
    model = NativeModel(embedded_model_path(), places=2, context_tokens=1024, threads=1)
    prompts = PromptReader(model.vocabulary, model.chat_template, model.context_tokens)
    messages: tuple[ChatMessage, ...] = ()
    chats = []
    warm = make_bench(model, prompts)
    for turn, question in enumerate(("Hello!", "Who are you?", "What is a peer?", "Thanks.")):
        messages = (*messages, ChatMessage("user", question))
        chats.append(Prompt(InferenceType.CHAT, messages))
        found = one(warm, turn, chats[turn], parameters(60))
        assert (found > 0) == (turn > 0)
        messages = (*messages, ChatMessage("assistant", warm.text(turn)))
    for turn, chat in enumerate(chats):
        fresh = make_bench(model, prompts, prefix_reuse=False)
        assert one(fresh, turn, chat, parameters(60)) == 0
        assert ids(warm, turn) == ids(fresh, turn)
    model.close()


def test_the_same_prompt_again_reads_one_token(bench, completion, parameters, prompts, fed):
    """Only a token that is fed has logits, so the last one always is."""
    run = bench()
    one(run, 1, completion(STORY), parameters(9))
    fed.clear()
    assert (
        one(run, 2, completion(STORY), parameters(9)) == len(prompts.read(completion(STORY))) - 1
    )
    assert fed == [1] * 9
    assert ids(run, 2) == ids(run, 1)


@pytest.mark.parametrize("options", [{}, {"temperature_milli": 900, "seed": 4}])
def test_a_beginning_is_copied_from_a_place_that_is_running(
    bench, completion, parameters, prompts, options
):
    run = bench()
    asked = parameters(30, **options)
    run.submit(0, completion(STORY + ENDS[0]), asked)
    for _ in range(5):
        run.batcher.step()
    for handle in (1, 2, 3):
        run.submit(handle, completion(STORY + ENDS[handle]), asked)
    run.run()
    shared = len(prompts.read(completion(STORY)))
    for handle in (1, 2, 3):
        assert shared - 3 <= reused(run, handle) <= shared
    for handle in range(4):
        assert ids(run, handle) == alone(bench, completion(STORY + ENDS[handle]), asked), handle


def test_a_copy_of_a_copy_in_one_step(bench, completion, parameters):
    """A source may itself wait for its first step."""
    run = bench()
    run.submit(0, completion(STORY), parameters(30))
    run.batcher.step()
    for handle in (1, 2):
        run.submit(handle, completion(STORY + ENDS[1] + ENDS[handle]), parameters(30))
    run.batcher.step()
    run.batcher.cancel(1)
    run.submit(3, completion(STORY + ENDS[1] + ENDS[3]), parameters(30))
    run.run()
    for handle in (2, 3):
        prompt = completion(STORY + ENDS[1] + ENDS[handle])
        assert ids(run, handle) == alone(bench, prompt, parameters(30))
        assert reused(run, handle) > 60


def test_a_short_beginning_is_not_worth_it(bench, completion, parameters, prompts):
    run = bench()
    text = STORY[:40]
    count = len(prompts.read(completion(text)))
    assert count < REUSED_TOKENS_MIN
    one(run, 1, completion(text + ENDS[0]), parameters(5))
    assert one(run, 2, completion(text + ENDS[1] * 3), parameters(5)) == 0


def test_the_least_recently_used_place_is_given_away(bench, completion, parameters):
    """Four places: the fifth story takes that of the first, which was used longest ago."""
    run = bench()
    stories = [completion(f"{end} " * 12) for end in ENDS]
    for handle, story in enumerate(stories):
        assert one(run, handle, story, parameters(3)) == 0
    assert one(run, 10, stories[1], parameters(3)) > 0
    assert one(run, 11, stories[0], parameters(3)) == 0
    # The first took the place of the third; the second was used since.
    assert one(run, 12, stories[2], parameters(3)) == 0
    assert one(run, 13, stories[1], parameters(3)) > 0


def test_a_job_cancelled_while_it_is_read_leaves_what_was_read(
    bench, completion, parameters, prompts
):
    run = bench(chunk_tokens=16)
    run.submit(0, completion("Hello there"), parameters(60))
    run.batcher.step()
    run.submit(1, completion(STORY), parameters(9))
    for _ in range(3):
        run.batcher.step()
    run.batcher.cancel(1)
    assert run.end(1) == JobFinished(1, FinishReason.CANCELLED, 0)
    run.submit(2, completion(STORY), parameters(9))
    run.run()
    assert reused(run, 2) == 48 < len(prompts.read(completion(STORY)))
    assert ids(run, 2) == alone(bench, completion(STORY), parameters(9))


def test_a_job_cancelled_before_its_first_step_leaves_only_the_beginning(
    bench, completion, parameters
):
    run = bench()
    one(run, 1, completion(STORY + ENDS[0]), parameters(9))
    run.submit(2, completion(STORY + ENDS[1] * 9), parameters(9))
    run.batcher.cancel(2)
    assert run.end(2) == JobFinished(2, FinishReason.CANCELLED, 0)
    assert one(run, 3, completion(STORY + ENDS[1] * 9), parameters(9)) > 60
    assert ids(run, 3) == alone(bench, completion(STORY + ENDS[1] * 9), parameters(9))


def test_turned_off_every_prompt_is_read_whole(bench, completion, parameters, prompts, fed):
    run = bench(prefix_reuse=False)
    for handle in range(5):
        assert one(run, handle, completion(STORY), parameters(1)) == 0
    assert fed == [len(prompts.read(completion(STORY)))] * 5


def test_a_model_that_can_not_go_back_reads_all(
    bench, completion, parameters, model, monkeypatch, prompts, fed
):
    """A recurrent one; `keep` says that it failed."""
    monkeypatch.setattr(model, "keep", lambda sequence, count: False)
    run = bench()
    one(run, 1, completion(STORY), parameters(5))
    fed.clear()
    assert one(run, 2, completion(STORY), parameters(5)) == 0
    assert fed[0] == len(prompts.read(completion(STORY)))
    assert ids(run, 2) == ids(run, 1)


def test_keep_says_when_a_sequence_does_not_hold_as_much(model):
    model.forget(0)
    assert not model.keep(0, 3)
    model.decode([Row(0, 0, [5, 6, 7, 8], 0)])
    assert not model.keep(0, 5)
    assert model.keep(0, 4)
    assert model.keep(0, 3)
    assert not model.keep(0, 4)
    model.copy(0, 1)
    assert model.keep(1, 2)
    assert model.keep(0, 3)


def test_a_recheck_reads_all_itself(bench, completion, parameters, fed):
    """And finds the same to the last bit, whoever was there before."""
    reports = []
    claim = tuple(alone(bench, completion(STORY), parameters(20)))
    for warm in (False, True):
        run = bench()
        if warm:
            one(run, 1, completion(STORY), parameters(20))
        fed.clear()
        run.batcher.submit(Recheck(2, completion(STORY), parameters(20), claim))
        run.run()
        reports.append((run.of(2)[-1], list(fed)))
    assert reports[0] == reports[1]
    assert isinstance(reports[0][0], JobRechecked)


def test_what_was_not_read_does_not_count_as_speed(bench, completion, parameters, monkeypatch):
    """Nor does the short rest, of which each token bears more of a step."""
    run = bench()
    records: list[tuple[int, int]] = []
    monkeypatch.setattr(
        Speedometer, "record", lambda self, decoding, read, ns: records.append((decoding, read))
    )
    one(run, 1, completion(STORY), parameters(3))
    assert [read for _, read in records if read] == [run.of(1)[0].input_tokens]
    records.clear()
    assert one(run, 2, completion(STORY + ENDS[1] * 9), parameters(3)) > 60
    assert records == [(1, 0)] * 2


@pytest.mark.parametrize("reuse", [True, False])
async def test_a_worker_does_as_its_settings_say(serve, job, answer, reuse):
    settings = LlamaSettings(n_threads=1, prefix_reuse=reuse)
    async with serve(settings) as engine:
        texts, found = [], []
        for _ in range(2):
            got = answer()
            await engine.run_job(job(STORY, tokens=8), got.events.append)
            texts.append(got.text)
            found.append(got.finished.reused_tokens)
        assert texts[0] == texts[1]
        assert found == [0, got.started.input_tokens - 1 if reuse else 0]
