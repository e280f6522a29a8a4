"""Continuous batching on the real babbling model, step by step, in this process."""

import numpy as np
import pytest

from engine.frames import JobFailed, JobFinished, JobStarted, JobTokens
from protocol.errors import EngineError
from protocol.fields import FinishReason

QUESTIONS = ("What is the capital of France?", "Tell me a story.", "Who are you?", "Why?")


def test_a_job_starts_streams_and_finishes(bench, chat, parameters):
    run = bench()
    run.submit(1, chat("Hello"), parameters(12))
    run.run()
    first, *middle, last = run.of(1)
    assert isinstance(first, JobStarted)
    assert first.input_tokens > 3
    assert len(middle) > 3
    assert all(isinstance(event, JobTokens) and event.count >= 1 for event in middle)
    assert last == JobFinished(1, FinishReason.LENGTH, 12)
    assert run.counted(1) == 12


def test_four_together_say_what_each_says_alone(bench, chat, parameters):
    alone = []
    for question in QUESTIONS:
        run = bench()
        run.submit(1, chat(question), parameters(40))
        run.run()
        alone.append(run.text(1))
    assert len(set(alone)) > 1
    together = bench()
    for handle, question in enumerate(QUESTIONS):
        together.submit(handle, chat(question), parameters(40))
    together.run()
    assert [together.text(handle) for handle in range(4)] == alone


def test_a_job_that_joins_later_says_what_it_says_alone(bench, chat, parameters):
    alone = bench()
    alone.submit(1, chat(QUESTIONS[0]), parameters(30))
    alone.run()
    run = bench()
    run.submit(0, chat(QUESTIONS[1]), parameters(30))
    for _ in range(7):
        run.batcher.step()
    run.submit(1, chat(QUESTIONS[0]), parameters(30))
    run.run()
    assert run.text(1) == alone.text(1)


def test_every_decoding_job_gets_a_token_while_a_long_prompt_is_read(bench, chat, parameters):
    run = bench(chunk_tokens=32)
    run.submit(1, chat("Hello"), parameters(60))
    run.batcher.step()
    run.submit(2, chat("word " * 100), parameters(4))
    steps = 0
    while not any(isinstance(event, JobTokens) for event in run.of(2)):
        before = run.counted(1)
        run.batcher.step()
        steps += 1
        assert run.counted(1) == before + 1
    started = run.of(2)[0]
    assert isinstance(started, JobStarted)
    assert steps == -(-started.input_tokens // 32)


def test_two_long_prompts_share_the_chunk_in_order(bench, chat, parameters):
    run = bench(chunk_tokens=32, prefix_reuse=False)
    run.submit(1, chat("Hello"), parameters(60))
    run.batcher.step()
    run.submit(2, chat("word " * 60), parameters(1))
    run.submit(3, chat("word " * 60), parameters(1))
    ends = []
    while len(ends) < 2:
        before = run.counted(1)
        run.batcher.step()
        assert run.counted(1) == before + 1
        ends += [
            run.counted(1) for handle in (2, 3) if run.counted(handle) and len(ends) < handle - 1
        ]
    started = run.of(2)[0]
    assert isinstance(started, JobStarted)
    assert ends == [1 + -(-started.input_tokens // 32), 1 + -(-2 * started.input_tokens // 32)]


def test_a_chunked_prompt_gives_the_same_answer(bench, chat, parameters):
    texts = []
    for chunk_tokens in (32, 512):
        run = bench(chunk_tokens=chunk_tokens)
        run.submit(0, chat("Hello"), parameters(40))
        run.batcher.step()
        run.submit(1, chat("Who are you and what do you do? " * 8), parameters(16))
        run.run()
        texts.append(run.text(1))
    assert texts[0] == texts[1]


def test_jobs_beyond_the_places_wait_their_turn(bench, chat, parameters):
    run = bench(queue_jobs=8)
    for handle in range(6):
        run.submit(handle, chat("Hello"), parameters(5 + handle))
    run.batcher.step()
    assert [handle for handle in range(6) if run.counted(handle)] == [0, 1, 2, 3]
    run.run()
    assert [run.end(handle).output_tokens for handle in range(6)] == [5, 6, 7, 8, 9, 10]


def test_a_full_queue_refuses(bench, chat, parameters):
    run = bench(queue_jobs=1)
    for handle in range(6):
        run.submit(handle, chat("Hello"), parameters(5))
    assert run.end(5) == JobFailed(5, "engine.overloaded", "")
    assert len(run.of(4)) == 1
    run.run()


def test_cancel_ends_a_job_between_steps_and_frees_its_place(bench, chat, parameters):
    run = bench(queue_jobs=8)
    for handle in range(5):
        run.submit(handle, chat("Hello"), parameters(400))
    for _ in range(10):
        run.batcher.step()
    assert run.counted(4) == 0
    run.batcher.cancel(2)
    assert run.end(2) == JobFinished(2, FinishReason.CANCELLED, 10)
    run.batcher.step()
    assert run.counted(4) == 1
    assert run.counted(2) == 10
    for handle in (0, 1, 3, 4):
        run.batcher.cancel(handle)
    assert not run.batcher.is_busy


def test_cancel_of_a_waiting_job_takes_it_out_of_the_queue(bench, chat, parameters):
    run = bench()
    for handle in range(5):
        run.submit(handle, chat("Hello"), parameters(5))
    run.batcher.cancel(4)
    assert run.end(4) == JobFinished(4, FinishReason.CANCELLED, 0)
    run.run()
    assert run.counted(4) == 0


def test_cancel_of_an_unknown_job_is_ignored(bench):
    run = bench()
    run.batcher.cancel(99)
    assert run.events == []


def test_a_place_that_was_used_before_holds_nothing_of_it(bench, chat, parameters):
    run = bench()
    run.submit(1, chat(QUESTIONS[0]), parameters(20))
    run.run()
    for handle in range(2, 8):
        run.submit(handle, chat(QUESTIONS[0]), parameters(20))
    run.run()
    assert {run.text(handle) for handle in range(1, 8)} == {run.text(1)}


def test_the_same_seed_gives_the_same_text_and_another_does_not(bench, chat, parameters):
    run = bench()
    for handle, seed in enumerate((7, 7, 8)):
        run.submit(handle, chat("Hello"), parameters(40, temperature_milli=800, seed=seed))
    run.run()
    assert run.text(0) == run.text(1)
    assert run.text(0) != run.text(2)


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p_milli": 0}])
def test_one_candidate_is_greedy_at_any_temperature(bench, chat, parameters, options):
    run = bench()
    run.submit(0, chat("Hello"), parameters(30))
    run.submit(1, chat("Hello"), parameters(30, temperature_milli=2000, **options))
    run.run()
    assert run.text(0) == run.text(1)


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p_milli": 300}])
def test_the_tail_is_cut_before_the_choice(bench, chat, parameters, options):
    """At temperature 5 everything is likely; what top_k or top_p cut off never comes."""
    wild, cut = set(), set()
    for seed in range(0, 24, 4):
        run = bench()
        for handle in range(8):
            kept = options if handle % 2 else {}
            choice = parameters(1, temperature_milli=5000, seed=seed + handle // 2, **kept)
            run.submit(handle, chat("Hello"), choice)
        run.run()
        wild |= {run.text(handle) for handle in range(0, 8, 2)}
        cut |= {run.text(handle) for handle in range(1, 8, 2)}
    assert len(cut) <= 12 < len(wild)


def test_a_stop_string_ends_the_text_before_it(bench, chat, parameters):
    free = bench()
    free.submit(1, chat(QUESTIONS[0]), parameters(40))
    free.run()
    word = "answer"
    assert word in free.text(1)
    run = bench()
    run.submit(1, chat(QUESTIONS[0]), parameters(40, stop=("no such text", word)))
    run.run()
    assert run.text(1) == free.text(1).split(word)[0]
    end = run.end(1)
    assert isinstance(end, JobFinished)
    assert end.reason == FinishReason.STOP
    assert run.counted(1) == end.output_tokens < 40


def test_text_held_back_for_a_stop_string_comes_out_at_the_end(bench, chat, parameters):
    free = bench()
    free.submit(1, chat(QUESTIONS[0]), parameters(9))
    free.run()
    run = bench()
    run.submit(1, chat(QUESTIONS[0]), parameters(9, stop=(free.text(1)[-3:] + "#",)))
    run.run()
    assert run.text(1) == free.text(1)
    assert run.counted(1) == 9


def test_the_formats_own_stop_string_counts_too(bench, chat, parameters, prompts, monkeypatch):
    monkeypatch.setattr(prompts, "stop_strings", lambda prompt: ("answer",))
    run = bench()
    run.submit(1, chat(QUESTIONS[0]), parameters(40, stop=("no such text",)))
    run.run()
    assert run.end(1).reason == FinishReason.STOP
    assert "answer" not in run.text(1)


def test_the_models_own_end_stops_and_is_not_counted(bench, completion, parameters):
    """The babbling model ends its answer after a tilde."""
    run = bench()
    run.submit(1, completion("That is all ~"), parameters(40))
    run.run()
    assert run.end(1) == JobFinished(1, FinishReason.STOP, 0)
    assert run.text(1) == ""


def test_a_full_context_ends_with_length(bench, completion, parameters):
    run = bench()
    run.submit(1, completion("peer " * 250), parameters(100_000))
    run.run()
    started, end = run.of(1)[0], run.end(1)
    assert isinstance(started, JobStarted)
    # The last token made needs no place of its own.
    assert end == JobFinished(1, FinishReason.LENGTH, 512 - started.input_tokens + 1)


def test_a_prompt_that_fills_the_context_is_refused(bench, completion, parameters):
    run = bench()
    run.submit(1, completion("zq" * 400), parameters(1))
    assert isinstance(run.end(1), JobFailed)
    assert run.end(1).code == "engine.prompt_too_long"
    assert not run.batcher.is_busy


def test_scores_that_are_no_numbers_end_the_worker(bench, chat, parameters, model, monkeypatch):
    run = bench()
    run.submit(1, chat("Hello"), parameters(3))
    broken = np.zeros((1, model.vocabulary.size), np.float32)
    broken[0, 5] = np.nan
    monkeypatch.setattr(model, "logits", lambda rows: broken)
    with pytest.raises(EngineError) as caught:
        run.batcher.step()
    assert caught.value.code == "engine.crashed"


def test_any_bytes_that_the_model_makes_are_valid_text(bench, chat, parameters):
    run = bench()
    for handle in range(4):
        choice = parameters(200, temperature_milli=5000, seed=handle)
        run.submit(handle, chat("日本語 Ünïcödé 🎉"), choice)
    run.run()
    for handle in range(4):
        assert run.text(handle).encode("utf-8").decode("utf-8") == run.text(handle)
        assert run.counted(handle) == run.end(handle).output_tokens
    assert any(not run.text(handle).isascii() for handle in range(4))
