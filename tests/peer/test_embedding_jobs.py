"""Texts in, vectors as text out: what a provider sends and a requester reads.

Source: protocol/README.md, "Embeddings".
"""

from typing import Any

import pytest

from engine.interface import Embedding, EngineEvent, Finished, JobSpec, Started, Tokens
from engine.scripted import Script, ScriptedEngine
from peer.embedding_jobs import PIECE_CHARS, read_vectors, run_embedding, write_vectors
from peer.jobs import Jobs
from protocol import limits
from protocol.errors import EngineError, RemoteError
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from router.actions import JobBroke, JobFinished, JobStarted, JobTokens, StartJob

TEXTS = Prompt(
    InferenceType.EMBEDDING, (ChatMessage("user", "Hello"), ChatMessage("user", "Two words"))
)
PARAMETERS = GenerationParameters(1, 0, 0, 1_000, 1, ())
SPEC = JobSpec(b"1", "m", TEXTS, PARAMETERS)


async def test_a_job_of_texts(autojump_clock: object) -> None:
    """Started, pieces without tokens, Finished; the lines are the engine's vectors."""
    engine, events = ScriptedEngine({"m": Script()}), list[EngineEvent]()
    await run_embedding(engine, SPEC, events.append)
    first, *middle, last = events
    assert first == Started(5)
    assert isinstance(last, Finished)
    assert (last.output_tokens, last.ttft_ns) == (0, 50_000_000)
    assert "dimensions=8" in last.settings
    assert all(isinstance(event, Tokens) and not event.count for event in middle)
    text = "".join(event.text for event in middle if isinstance(event, Tokens))
    one, other = read_vectors(text, 2)
    assert len(one) == len(other) == 32
    assert one != other


async def test_the_node_hears_of_it_like_of_any_job(autojump_clock: object, nursery: Any) -> None:
    """The engine's text job would be refused: EMBEDDING takes its own way."""
    heard: list[Any] = []
    jobs = Jobs(
        ScriptedEngine({"m": Script()}), heard.append, input_price_ucr=1, output_price_ucr=1
    )
    assert jobs.offers()[0].embeds
    jobs.start(nursery, StartJob(b"1", "m", TEXTS, PARAMETERS, bytes(32)))
    await jobs.wait_idle()
    assert [type(item) for item in heard] == [JobStarted, JobTokens, JobFinished]
    assert heard[0].input_tokens == 5
    jobs.start(nursery, StartJob(b"2", "other", TEXTS, PARAMETERS, bytes(32)))
    await jobs.wait_idle()
    assert heard[-1] == JobBroke(b"2", "engine.unknown_model")


class Wide(ScriptedEngine):
    """Vectors of as many numbers as are asked for."""

    dimensions = 16_384

    async def embed(self, spec: Any) -> tuple[Embedding, ...]:
        return tuple(Embedding(bytes(4 * self.dimensions), 1) for _ in spec.inputs)


async def test_long_vectors_come_in_pieces_and_not_too_many() -> None:
    """A chunk's text is bounded, and so is what is sent at once."""
    events: list[EngineEvent] = []
    await run_embedding(Wide({"m": Script()}), SPEC, events.append)
    pieces = [event.text for event in events if isinstance(event, Tokens)]
    assert len(pieces) > 8
    assert max(map(len, pieces)) == PIECE_CHARS < limits.CHUNK_TEXT_CHARS_MAX
    assert read_vectors("".join(pieces), 2) == (bytes(65_536),) * 2
    Wide.dimensions *= 2
    with pytest.raises(EngineError, match="fewer texts"):
        await run_embedding(Wide({"m": Script()}), SPEC, events.append)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("", 1),
        ("AAAA\n", 1),
        ("AAAAAA==\n", 2),
        ("AAAAAA==\nAAAAAAAAAAA=\n", 2),
        ("AAAAAA==\n\n", 2),
        ("AAAAAA== \n", 1),
        ("é\n", 1),
        ("AAAAAA", 1),
    ],
)
def test_an_answer_that_is_no_vectors(answer: str, texts: int) -> None:
    """Nothing, three bytes, too few, two lengths, an empty line, a space, no base64, cut."""
    with pytest.raises(RemoteError, match="bad_vectors"):
        read_vectors(answer, texts)


def test_what_is_written_is_read() -> None:
    """Also without the last line feed."""
    found = (Embedding(bytes(range(8)), 1), Embedding(bytes(8), 2))
    answer = write_vectors(found)
    assert read_vectors(answer, 2) == read_vectors(answer[:-1], 2) == (bytes(range(8)), bytes(8))
