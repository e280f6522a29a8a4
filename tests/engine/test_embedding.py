"""Embeddings of the embedded model: pooled as they should be, and alike in any company.

Source: engine/README.md, "Embeddings". The reference pools llama.cpp's rows by hand, one text at
a time.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.embedded import embedded_model_path
from engine.embedding import Embedder
from engine.frames import Embed, JobEmbedded, JobFailed, JobFinished, JobStarted, JobTokens, Submit
from engine.interface import Pooling
from engine.native import NativeModel, Row, start_backend
from engine.prompts import PromptReader
from protocol import limits
from protocol.fields import FinishReason
from tests.engine.conftest import Bench, make_bench, make_chat

TEXTS = (
    "What is the capital of France?",
    "A voucher is a promise.",
    "Hello",
    "How many metres are in a kilometre? " * 12,
    "One",
    "Two peers meet.",
)
POOLINGS = (Pooling.MEAN, Pooling.CLS, Pooling.LAST)


@pytest.fixture(scope="module")
def trained() -> Iterator[NativeModel]:
    start_backend()
    model = NativeModel(embedded_model_path(), places=4, context_tokens=256, threads=1)
    yield model
    model.close()


@pytest.fixture
def run(trained) -> Bench:
    reader = PromptReader(trained.vocabulary, trained.chat_template, trained.context_tokens)
    return make_bench(trained, reader, chunk_tokens=32)


def tokens_of(model: NativeModel, text: str) -> list[int]:
    vocabulary = model.vocabulary
    tokens = vocabulary.tokenize(text)
    return [vocabulary.begin_token, *tokens] if vocabulary.begins_texts else tokens


def by_hand(model: NativeModel, text: str, pooling: Pooling) -> np.ndarray:
    tokens = tokens_of(model, text)
    model.forget(0)
    model.embed(wanted=True)
    model.decode([Row(0, 0, tokens, 0)])
    rows = model.hidden().astype(np.float64)
    model.embed(wanted=False)
    model.forget(0)
    return {Pooling.MEAN: rows.mean(0), Pooling.CLS: rows[0], Pooling.LAST: rows[-1]}[pooling]


def vectors(run: Bench, handle: int = 1) -> list[np.ndarray]:
    found = {e.index: e for e in run.of(handle) if isinstance(e, JobEmbedded)}
    return [np.frombuffer(found[index].vector, "<f4") for index in sorted(found)]


def embed(run: Bench, texts=TEXTS, pooling=Pooling.MEAN, *, normalized: bool = True) -> None:
    run.batcher.submit(Embed(1, tuple(texts), pooling, normalized))
    run.run()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalized", [True, False])
def test_batched_is_what_each_is_alone(run, trained, pooling, normalized):
    """Six texts in four places, the long one in pieces: within 1e-4 of one by hand."""
    embed(run, TEXTS, pooling, normalized=normalized)
    counts = [len(tokens_of(trained, text)) for text in TEXTS]
    assert run.of(1)[0] == JobStarted(1, sum(counts))
    assert run.of(1)[-1] == JobFinished(1, FinishReason.STOP, 0)
    told = {e.index: e.input_tokens for e in run.of(1) if isinstance(e, JobEmbedded)}
    assert [told[index] for index in range(6)] == counts
    for vector, text in zip(vectors(run), TEXTS, strict=True):
        expected = by_hand(trained, text, pooling)
        if normalized:
            expected /= np.linalg.norm(expected)
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        scale = np.abs(expected).max()
        assert np.abs(vector - expected).max() < 1e-4 * max(1, scale)


def test_texts_that_are_near_in_meaning_are_near(run):
    questions = (
        "What is the capital of France?",
        "What is the capital of Spain?",
        "What is 2 plus 2?",
    )
    embed(run, questions)
    one, like, other = vectors(run)
    assert one @ like > one @ other


def test_beside_jobs_that_write(run, trained, parameters):
    """Neither changes the other: the words are those of a run alone, and so is the vector."""
    run.submit(2, make_chat("What is the capital of France?"), parameters(30))
    run.run()
    expected = run.text(2)
    run.events.clear()
    run.submit(2, make_chat("What is the capital of France?"), parameters(30))
    for _ in range(6):
        run.batcher.step()
    embed(run)
    assert run.text(2) == expected
    assert any(isinstance(event, JobTokens) for event in run.events)
    alone = by_hand(trained, TEXTS[0], Pooling.MEAN)
    assert vectors(run)[0] == pytest.approx(alone / np.linalg.norm(alone), abs=1e-4)


def test_tokens_are_read_as_they_are(run, trained):
    tokens = tuple(tokens_of(trained, TEXTS[0]))
    embed(run, (tokens, TEXTS[0]))
    one, other = vectors(run)
    assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize(
    ("texts", "code", "why"),
    [
        (("ok", ""), "engine.bad_spec", "text 1 is empty"),
        (((),), "engine.bad_spec", "text 0 is empty"),
        (((2**32 - 1,),), "engine.bad_spec", "text 0: the vocabulary"),
        (("ok", "word " * 300), "engine.prompt_too_long", "text 1"),
    ],
)
def test_what_can_not_be_read_is_refused(run, texts, code, why):
    embed(run, texts)
    assert isinstance(run.end(1), JobFailed)
    assert run.end(1).code == code
    assert why in run.end(1).detail
    assert len(run.of(1)) == 1


def test_too_many_tokens_together(run, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_EMBED_TOKENS_MAX", 10)
    embed(run)
    assert run.end(1).code == "engine.prompt_too_long"


def test_a_model_that_makes_none(run, monkeypatch):
    monkeypatch.setattr(NativeModel, "pooling", None)
    embed(run)
    assert run.end(1).code == "engine.no_embeddings"


def test_cancel_ends_all_texts_of_a_job(run, parameters):
    run.batcher.submit(Embed(1, TEXTS, Pooling.MODEL, True))
    run.batcher.step()
    run.batcher.cancel(1)
    assert run.of(1)[-1] == JobFinished(1, FinishReason.CANCELLED, 0)
    run.submit(2, make_chat("Hello"), parameters(3))
    run.run()
    assert run.counted(2) == 3
    assert run.of(1)[-1] == JobFinished(1, FinishReason.CANCELLED, 0)


def test_a_step_is_small_where_the_vocabulary_is_large(run, trained, monkeypatch):
    """Every token of such a step has scores: their memory is bounded, whoever's they are."""
    monkeypatch.setattr(limits, "ENGINE_OUTPUT_NUMBERS_MAX", 8 * trained.vocabulary.size)
    sizes = []
    decode = trained.decode

    def recording(rows):
        sizes.append(sum(len(row.tokens) for row in rows))
        decode(rows)

    monkeypatch.setattr(trained, "decode", recording)
    embed(run)
    assert len(vectors(run)) == 6
    assert max(sizes) <= 8


def test_a_vector_that_is_not_finite_is_a_failure_of_the_job(run, monkeypatch, parameters):
    monkeypatch.setattr(Embedder, "vector", lambda self: None)
    run.batcher.submit(Embed(1, TEXTS, Pooling.MEAN, True))
    run.batcher.submit(Submit(2, make_chat("Hello"), parameters(3)))
    run.run()
    assert run.end(1).code == "engine.no_embeddings"
    assert sum(isinstance(event, JobFailed) for event in run.of(1)) == 1
    assert run.counted(2) == 3
