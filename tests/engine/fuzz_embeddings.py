"""Random texts to embed, most of them hostile: for `tests.engine.fuzz`."""

import random

import trio

from engine.interface import EmbedInput, EmbedSpec, Pooling
from engine.llama import LlamaEngine
from protocol.errors import EngineError
from tests.engine.fuzz_tally import Tally
from tests.engine.fuzz_texts import text

REFUSALS = {"engine.bad_spec", "engine.prompt_too_long", "engine.unknown_model"}


def texts(chance: random.Random) -> EmbedSpec:
    """A few texts as a rule; now and then none, too many, too long, or tokens of any number."""

    def one() -> EmbedInput:
        if chance.random() < 0.8:
            return text(chance, chance.choice([1, 40, 40, 400, 6_000]))
        return tuple(chance.choice([0, 5, 511, 100]) for _ in range(chance.randint(0, 40)))

    inputs = [one() for _ in range(chance.choice([1, 1, 2, 5, 20, 0, 257]))]
    if inputs and chance.random() < 0.1:
        inputs[0] = (chance.choice([512, 2**32, -1]),)
    return EmbedSpec(b"texts", "", tuple(inputs), chance.choice([*Pooling]), chance.random() < 0.5)


async def embed_one(
    engine: LlamaEngine, spec: EmbedSpec, chance: random.Random, tally: Tally, limit_s: float
) -> None:
    """A vector for each, all as long as each other, or an error that the texts deserve."""
    patience_s = chance.choice([limit_s] * 6 + [0.0, 0.005])
    try:
        with trio.move_on_after(patience_s) as scope:
            found = await engine.embed(spec)
    except EngineError as error:
        tally.outcomes[f"embedding {error.code}"] += 1
        if error.code not in REFUSALS:
            tally.faults.append(f"{error} for {spec}")
        return
    if scope.cancelled_caught:
        tally.outcomes["embedding cancelled"] += 1
        if patience_s == limit_s:
            tally.faults.append(f"still at work: {spec}")
        return
    tally.outcomes["embedded"] += 1
    widths = {len(embedding.vector) for embedding in found}
    if len(found) != len(spec.inputs) or len(widths) != 1:
        tally.faults.append(f"{len(found)} vectors of {widths} bytes for {spec}")
