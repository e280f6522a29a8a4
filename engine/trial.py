"""Tries a model as a job would: a worker, a known prompt, what came back and how fast.

Loading is itself the self-test (finite logits, the template renders, speeds); this adds a
whole job and says the numbers. Must not know the market. Rule: engine/README.md.
"""

from dataclasses import dataclass

import trio

from engine.catalogue import ModelSource
from engine.interface import EmbedSpec, Estimate, Finished, JobSpec, Tokens
from engine.llama import LlamaEngine
from engine.notes import ModelNotes
from engine.settings import LlamaSettings
from protocol.errors import EngineError
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from protocol.units import NS_PER_S

QUESTION = "Hello! Who are you, and what can you do?"
OUTPUT_TOKENS = 32
PROBE_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class TrialReport:
    """What a model did: `tokens_per_s` for one job alone, `prompt_tokens_per_s` for reading.

    `embedding_dimensions` are 0 where it makes no embeddings.
    """

    name: str
    load_ns: int
    input_tokens: int
    output_tokens: int
    ttft_ns: int
    tokens_per_s: float
    prompt_tokens_per_s: float
    text: str
    engine: str
    settings: str
    embedding_dimensions: int


async def try_model(
    source: ModelSource, settings: LlamaSettings, notes: ModelNotes
) -> TrialReport:
    """Load a model, ask it something, and stop. EngineError: why it can't be offered."""
    required = ModelSource(source.path, source.name)
    engine = LlamaEngine([required], settings, notes)
    texts: list[str] = []
    finished: list[Finished] = []

    def emit(event: object) -> None:
        if isinstance(event, Tokens):
            texts.append(event.text)
        elif isinstance(event, Finished):
            finished.append(event)

    failure: EngineError | None = None
    dimensions = 0
    async with trio.open_nursery() as nursery:
        start = trio.current_time()
        try:
            await nursery.start(engine.run)
            load_ns = int((trio.current_time() - start) * NS_PER_S)
            (info,) = engine.models()
            prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", QUESTION),))
            parameters = GenerationParameters(OUTPUT_TOKENS, 0, 0, 1_000, 1, ())
            await engine.run_job(JobSpec(b"trial", info.name, prompt, parameters), emit)
            if info.embeds:
                spec = EmbedSpec(b"trial", info.name, (QUESTION,))
                (embedding,) = await engine.embed(spec)
                dimensions = len(embedding.vector) // 4
            await engine.note_speed(info.name)
            none, probe = (engine.estimate(info.name, tokens) for tokens in (0, PROBE_TOKENS))
        except EngineError as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    (end,) = finished
    return TrialReport(
        name=info.name,
        load_ns=load_ns,
        input_tokens=end.input_tokens,
        output_tokens=end.output_tokens,
        ttft_ns=end.ttft_ns,
        tokens_per_s=none.tokens_per_s_milli / 1_000,
        prompt_tokens_per_s=_reading_speed(none, probe),
        text="".join(texts),
        embedding_dimensions=dimensions,
        engine=end.engine,
        settings=end.settings,
    )


def _reading_speed(none: Estimate, probe: Estimate) -> float:
    """Prompt tokens a second, from what a longer prompt adds to the promise."""
    added_ns = probe.ttft_ns - none.ttft_ns
    return PROBE_TOKENS * NS_PER_S / added_ns if added_ns > 0 else 0.0
