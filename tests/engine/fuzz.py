"""Random jobs, most of them hostile, through the engine: `python -m tests.engine.fuzz --jobs N`.

And mutated model files: `--headers N` (tests/engine/fuzz_headers.py).

Nothing that a job asks for may end its worker, nor harm the job beside it. A job ends in a
Finished event that adds up or in an EngineError that it deserves; a witness with the same
parameters every time says the same text every time; and the worker is the same process at the
end. `--seed` repeats a run.
"""

import argparse
import logging
import random
import sys
from collections.abc import Callable
from dataclasses import replace

import structlog
import trio

from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.llama import LlamaEngine
from engine.lora import AdapterSource
from engine.settings import LlamaSettings
from protocol.errors import EngineError
from protocol.fields import (
    ChatMessage,
    ConstraintKind,
    FinishReason,
    GenerationParameters,
    InferenceType,
    LogitBias,
    OutputConstraint,
    Prompt,
)
from tests.engine.babbler import BABBLER_NAME, babbler_path
from tests.engine.fuzz_embeddings import embed_one, texts
from tests.engine.fuzz_headers import fuzz_headers
from tests.engine.fuzz_tally import Tally
from tests.engine.fuzz_texts import grammar, schema, text
from tests.engine.lora import write_lora

WITNESS = JobSpec(
    b"witness",
    BABBLER_NAME,
    Prompt(InferenceType.CHAT, (ChatMessage("user", "Hello"),)),
    GenerationParameters(12, 900, 40, 950, 7, ()),
)
ADAPTED = f"{BABBLER_NAME}+loud"
REFUSALS = {"engine.bad_spec", "engine.prompt_too_long", "engine.unknown_model"}
CONTEXT_TOKENS = 512
# Far over what any job takes here: one that is still at work hangs.
JOB_S_MAX = 60
TOGETHER = 6


def number(chance: random.Random, low: int, high: int, usual: int) -> int:
    """Often usual, else in range, at its ends, or just outside."""
    return chance.choice(
        [usual] * 8 + [chance.randint(low, high), low, high] * 4 + [low - 1, high + 1]
    )


def constraint(chance: random.Random) -> OutputConstraint | None:
    kind = chance.choice([None, ConstraintKind.GRAMMAR, *ConstraintKind])
    if kind is None:
        return None
    if kind == ConstraintKind.JSON:
        return OutputConstraint(kind, chance.choice(["", "", "", "{}"]))
    return OutputConstraint(kind, (grammar if kind == ConstraintKind.GRAMMAR else schema)(chance))


def parameters(chance: random.Random) -> GenerationParameters:
    biases = tuple(
        LogitBias(number(chance, 0, 511, 100), number(chance, -100_000, 100_000, 5_000))
        for _ in range(chance.choice([0, 0, 0, 1, 3, 64, 65]))
    )
    return GenerationParameters(
        output_tokens_max=chance.choice([1, 5, 30, 30, 200, 131_072, 0, -1, 2**40]),
        temperature_milli=number(chance, 0, 5_000, 800),
        top_k=number(chance, 0, 1_000, 40),
        top_p_milli=number(chance, 0, 1_000, 950),
        seed=number(chance, 0, 2**32 - 1, 1),
        stop=tuple(
            chance.choice("xe ") + text(chance, chance.choice([0, 20, 64]))
            for _ in range(chance.choice([0, 0, 0, 1, 8, 9]))
        ),
        min_p_milli=number(chance, 0, 1_000, 0),
        repeat_penalty_milli=number(chance, 100, 10_000, 1_000),
        presence_penalty_milli=number(chance, -2_000, 2_000, 0),
        frequency_penalty_milli=number(chance, -2_000, 2_000, 0),
        logit_bias=biases,
        constraint=constraint(chance),
        logprobs=chance.choice([0] * 10 + [1, 5, 20, 21]),
        stop_tokens=tuple(
            number(chance, 0, 511, 100) for _ in range(chance.choice([0] * 9 + [1, 16, 17]))
        ),
    )


def usual(asked: GenerationParameters, chance: random.Random) -> GenerationParameters:
    """Most fields as everybody sends them, so that what is left gets past the checks."""
    plain = replace(WITNESS.parameters, output_tokens_max=chance.choice([1, 20, 60, 400]))
    names = chance.sample(sorted(set(asked.__slots__) - {"constraint"}), k=chance.randint(0, 2))
    if chance.random() < 0.6:
        names.append("constraint")
    return replace(plain, **{name: getattr(asked, name) for name in names})


def prompt(chance: random.Random) -> Prompt:
    """One turn of odd text; now and then with strange roles, and too many turns, or none."""
    kind = chance.choice([InferenceType.CHAT, InferenceType.COMPLETION])
    if chance.random() < 0.8:
        return Prompt(kind, (ChatMessage("user", text(chance, chance.choice((30, 300)))),))
    roles = ("user", "system", "assistant", "tool", "", "<|im_start|>")
    return Prompt(
        kind,
        tuple(
            ChatMessage(chance.choice(roles), text(chance, chance.choice((40, 6_000))))
            for _ in range(chance.choice([1, 2, 5, 0, 65]))
        ),
    )


def job(chance: random.Random, index: int) -> JobSpec:
    """A job that no honest requester would send, in one way or in several."""
    asked = parameters(chance)
    if chance.random() < 0.85:
        asked = usual(asked, chance)
    model = chance.choice([BABBLER_NAME] * 30 + [ADAPTED] * 10 + ["", "other", "\0"])
    return JobSpec(index.to_bytes(8, "big"), model, prompt(chance), asked)


def adds_up(events: list[EngineEvent], asked: GenerationParameters) -> bool:
    """Started, tokens, finished; counts and ids agree; the text can be sent."""
    first, *middle, last = events
    if not isinstance(first, Started) or not isinstance(last, Finished):
        return False
    tokens = [event for event in middle if isinstance(event, Tokens)]
    "".join(event.text for event in tokens).encode("utf-8")
    made = sum(event.count for event in tokens)
    return (
        len(tokens) == len(middle)
        and made == sum(len(event.ids) for event in tokens) == last.output_tokens
        and made <= asked.output_tokens_max
        and (last.reason != FinishReason.LENGTH or made > 0)
    )


async def run_one(engine: LlamaEngine, spec: JobSpec, chance: random.Random, tally: Tally) -> None:
    """One job to its end, or cancelled on the way; then, now and then, a re-check of it."""
    events: list[EngineEvent] = []
    cancels_after = chance.choice([None] * 6 + [0, 1, 3])
    try:
        with trio.fail_after(JOB_S_MAX), trio.CancelScope() as scope:

            def emit(event: EngineEvent) -> None:
                events.append(event)
                if cancels_after is not None and len(events) > cancels_after:
                    scope.cancel()

            await engine.run_job(spec, emit)
    except EngineError as error:
        tally.outcomes[error.code] += 1
        if error.code not in REFUSALS:
            tally.faults.append(f"{error} for {spec}")
        return
    except trio.TooSlowError:
        tally.faults.append(f"still at work: {spec}")
        return
    if scope.cancelled_caught:
        tally.outcomes["cancelled"] += 1
        return
    tally.outcomes["finished"] += 1
    if not adds_up(events, spec.parameters):
        tally.faults.append(f"{events[-1]} does not add up for {spec}")
    if chance.random() < 0.2:
        await recheck(engine, spec, events, chance, tally)


async def recheck(
    engine: LlamaEngine,
    spec: JobSpec,
    events: list[EngineEvent],
    chance: random.Random,
    tally: Tally,
) -> None:
    """What came, true or with a lie in it."""
    ids = [token for event in events if isinstance(event, Tokens) for token in event.ids]
    honest = list(ids)
    if ids and chance.random() < 0.5:
        ids[chance.randrange(len(ids))] = chance.choice([0, 5, 509, 511, 512, 2**32, -1])
    try:
        report = await engine.recheck(spec.model, spec.prompt, spec.parameters, ids)
    except EngineError as error:
        tally.outcomes[f"re-check {error.code}"] += 1
        if error.code != "engine.bad_spec" or ids == honest:
            tally.faults.append(f"re-check: {error} for {spec}")
        return
    tally.outcomes["re-checked"] += 1
    if ids == honest and report.mismatches > 2 + len(ids) // 10:
        tally.faults.append(f"re-check: {report.mismatches} of {len(ids)} for {spec}")


async def watch(engine: LlamaEngine, said: set[str], tally: Tally) -> None:
    """The witness once more; whatever ran beside it, it says the same."""
    found: list[EngineEvent] = []
    try:
        await engine.run_job(WITNESS, found.append)
    except EngineError as error:
        tally.faults.append(f"the witness: {error}")
    said.add("".join(event.text for event in found if isinstance(event, Tokens)))


async def fuzz(jobs: int, seed: int, say: Callable[[str], None] = lambda line: None) -> Tally:
    """Run that many jobs, some at a time, and a witness beside each group."""
    chance, tally, said = random.Random(seed), Tally(), set[str]()
    lora = write_lora(babbler_path().parent / "loud-lora.gguf", babbler_path(), strength=0.3)
    engine = LlamaEngine(
        [babbler_path()],
        LlamaSettings(n_threads=1, context_tokens=CONTEXT_TOKENS),
        adapters=[AdapterSource(BABBLER_NAME, "loud", lora)],
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        pid, told = engine.worker_pid(BABBLER_NAME), 0
        for start in range(0, jobs, TOGETHER):
            async with trio.open_nursery() as group:
                group.start_soon(watch, engine, said, tally)
                for index in range(start, min(start + TOGETHER, jobs)):
                    one = random.Random(chance.getrandbits(64))
                    if one.random() < 0.1:
                        model = one.choice([BABBLER_NAME, ADAPTED])
                        spec = replace(texts(one), model=model)
                        group.start_soon(embed_one, engine, spec, one, tally, JOB_S_MAX)
                    else:
                        group.start_soon(run_one, engine, job(one, index), one, tally)
            if engine.worker_pid(BABBLER_NAME) != pid:
                tally.faults.append(f"the worker died among jobs {start} to {start + TOGETHER}")
                pid = engine.worker_pid(BABBLER_NAME)
            for fault in tally.faults[told:]:
                say(fault[:2_000])
            told = len(tally.faults)
            if start % (TOGETHER * 50) == 0:
                say(f"{start} jobs, {len(tally.faults)} faults")
        nursery.cancel_scope.cancel()
    if len(said) != 1:
        tally.faults.append(f"the witness said {len(said)} different texts")
    return tally


def main() -> int:
    """Print what became of the jobs and the headers; 1 when anything is wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, help="jobs to run; 1,000 unless --headers is given")
    options.add_argument("--headers", type=int, default=0, help="mutated GGUF files to read")
    options.add_argument("--loads", type=int, default=100, help="how many of them to load at most")
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    jobs = asked.jobs if asked.jobs is not None else 0 if asked.headers else 1_000
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    faults: list[str] = []
    for tally in (
        trio.run(fuzz, jobs, asked.seed, progress) if jobs else Tally(),
        trio.run(fuzz_headers, asked.headers, asked.loads, asked.seed, progress),
    ):
        for outcome, count in tally.outcomes.most_common():
            print(f"{count:7} {outcome}")
        faults += tally.faults
    for fault in faults:
        print(fault[:2_000])
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def progress(line: str) -> None:
    """Where the run is, for whoever waits."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
