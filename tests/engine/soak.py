"""Many mixed jobs on the embedded model: `python -m tests.engine.soak --jobs 1500 [--json]`.

Several requesters at once, prompts of all lengths, every sampling parameter, grammars, schemas,
stop strings, cancels at random moments, and, in the first two fifths, switches between two models
that have room for one. In the second half one worker serves: its memory, and the daemon's, have to
be flat. A sample of the outputs is made again, each alone on a fresh engine, and has to be the
same, or to differ only where two tokens were as good but for rounding, which a re-check shows.
Exit status 1 if anything is not so.
"""

import argparse
import json
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import structlog
import trio

from engine.catalogue import ModelSource, read_model
from engine.embedded import embedded_model_path
from engine.interface import EngineEvent, Finished, JobSpec, Tokens
from engine.llama import LlamaEngine
from engine.memory import needed_bytes
from engine.process import resident_bytes
from engine.settings import LlamaSettings
from protocol.errors import EngineError
from protocol.fields import FinishReason
from tests.engine.soak_jobs import make_parameters, make_prompt

MODELS = ("first", "second")
TOGETHER = 12
SAMPLE_JOBS = 24
KIB = 1024
# Growth over the second half that counts as none: allocators and caches breathe this much.
GROWTH_KIB_MAX = 4 * KIB
# Another batch rounds otherwise: what a logit of a quantised model moves by (engine/README.md),
# and the share of outputs in which a choice may hang on that.
NEAR_TIE = 0.16
NEAR_TIES_MAX = 0.02
JOB_S_MAX = 120


@dataclass
class Report:
    """What the soak found; memory in KiB, at `samples` of (jobs done, worker, daemon)."""

    jobs: int
    outcomes: Counter[str] = field(default_factory=Counter)
    output_tokens: int = 0
    loads: int = 0
    samples: list[tuple[int, int, int]] = field(default_factory=list)
    worker_growth_kib: float = 0
    daemon_growth_kib: float = 0
    compared: int = 0
    near_ties: int = 0
    different: int = 0
    faults: list[str] = field(default_factory=list)


def settings() -> LlamaSettings:
    """Room for one of the two models, and a half."""
    plain = LlamaSettings(n_threads=1, context_tokens=1_024, queue_jobs=64)
    need = needed_bytes(read_model(embedded_model_path()), plain)
    return LlamaSettings(
        n_threads=1, context_tokens=1_024, queue_jobs=64, memory_mib=(need * 3 // 2) >> 20
    )


def make_engine() -> LlamaEngine:
    """Both models are the embedded file."""
    path = embedded_model_path()
    return LlamaEngine([ModelSource(path, name, False) for name in MODELS], settings())


@dataclass
class Done:
    """A job that ran to its own end, and its tokens."""

    spec: JobSpec
    ids: tuple[int, ...]
    reason: FinishReason


async def run_one(
    engine: LlamaEngine, spec: JobSpec, cancels_after: int | None
) -> tuple[str, Done | None]:
    """What became of a job; it may be cancelled at one of its events, or before the first."""
    events: list[EngineEvent] = []
    with trio.move_on_after(JOB_S_MAX), trio.CancelScope() as scope:

        def emit(event: EngineEvent) -> None:
            events.append(event)
            if cancels_after is not None and len(events) > cancels_after:
                scope.cancel()

        try:
            await engine.run_job(spec, emit)
        except EngineError as error:
            return error.code, None
    if scope.cancelled_caught:
        return "cancelled", None
    if not events or not isinstance(events[-1], Finished):
        return "hung", None
    ids = tuple(token for event in events if isinstance(event, Tokens) for token in event.ids)
    return "finished", Done(spec, ids, events[-1].reason)


def growth_kib(points: Sequence[tuple[int, int]]) -> float:
    """How much the least-squares line through (jobs, KiB) rises over them."""
    count = len(points)
    if count < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    return slope * (points[-1][0] - points[0][0])


@dataclass
class Kept:
    """A fair sample of what finished, and no more: what is kept here is not the engine's."""

    most: int
    chance: random.Random
    seen: int = 0
    sample: list[Done] = field(default_factory=list)

    def take(self, done: Done) -> None:
        """One more."""
        self.seen += 1
        if len(self.sample) < self.most:
            self.sample.append(done)
        elif (index := self.chance.randrange(self.seen)) < self.most:
            self.sample[index] = done


async def load(report: Report, checks: int, seed: int, say: Callable[[str], None]) -> list[Done]:
    """Run all jobs, TOGETHER at a time; a sample of those that finished."""
    chance, kept = random.Random(seed), Kept(checks, random.Random(seed))
    engine, model = make_engine(), MODELS[0]
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        pid: int | None = None
        for start in range(0, report.jobs, TOGETHER):
            if start < report.jobs * 2 // 5 and chance.random() < 0.1:
                model = MODELS[1 - MODELS.index(model)]

            async def one(number: int, one_model: str) -> None:
                mine = random.Random((seed << 32) + number)
                owner = bytes([number % 5]) * 32
                parameters = make_parameters(mine)
                spec = JobSpec(b"%d" % number, one_model, make_prompt(mine), parameters, owner)
                cancels_after = mine.choice([None] * 5 + [0, 2, 20])
                outcome, done = await run_one(engine, spec, cancels_after)
                report.outcomes[outcome] += 1
                if done is not None:
                    kept.take(done)
                    report.output_tokens += len(done.ids)

            async with trio.open_nursery() as group:
                for number in range(start, min(start + TOGETHER, report.jobs)):
                    group.start_soon(one, number, model)
            now = engine.worker_pid(model)
            if now != pid:
                report.loads, pid = report.loads + 1, now
            if start % SAMPLE_JOBS == 0 and now is not None:
                here = resident_bytes(os.getpid()) // KIB
                report.samples.append((start + TOGETHER, resident_bytes(now) // KIB, here))
            if start % (TOGETHER * 20) == 0:
                say(f"{start} jobs, memory {report.samples[-1][1:]} KiB")
        restarts = sum(health.restarts for health in engine.health())
        await engine.drain()
        nursery.cancel_scope.cancel()
    if restarts:
        report.faults.append(f"a worker died {restarts} times")
    return kept.sample


async def compare(report: Report, sample: list[Done]) -> None:
    """Outputs again, each alone, on a fresh engine."""
    engine = make_engine()
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        for done in sorted(sample, key=lambda done: done.spec.model):
            _, again = await run_one(engine, done.spec, None)
            report.compared += 1
            if again is not None and (again.ids, again.reason) == (done.ids, done.reason):
                continue
            if await is_near_tie(engine, done):
                report.near_ties += 1
                continue
            report.different += 1
            report.faults.append(f"another output alone: {done.spec}")
        nursery.cancel_scope.cancel()
    if report.near_ties > max(1, report.compared * NEAR_TIES_MAX):
        report.faults.append(f"{report.near_ties} outputs differ by near ties")


async def is_near_tie(engine: LlamaEngine, done: Done) -> bool:
    """Whether every token of an output is the choice, but for the rounding of the logits."""
    spec = done.spec
    found = await engine.recheck(spec.model, spec.prompt, spec.parameters, done.ids)
    return all(check.shortfall <= NEAR_TIE for check in found.tokens)


async def soak(
    jobs: int, checks: int, seed: int, say: Callable[[str], None] = lambda line: None
) -> Report:
    """Run it; `faults` has what is wrong."""
    report = Report(jobs)
    sample = await load(report, checks, seed, say)
    half = [sample for sample in report.samples if sample[0] > jobs // 2]
    report.worker_growth_kib = growth_kib([(done, worker) for done, worker, _ in half])
    report.daemon_growth_kib = growth_kib([(done, daemon) for done, _, daemon in half])
    for name in ("worker", "daemon"):
        grown = getattr(report, f"{name}_growth_kib")
        if grown > GROWTH_KIB_MAX:
            report.faults.append(f"the {name} grew by {grown:.0f} KiB in the second half")
    strange = set(report.outcomes) - {"finished", "cancelled"}
    if strange:
        report.faults.append(f"jobs ended with {sorted(strange)}")
    say(f"{report.jobs} jobs done, {checks} again alone")
    await compare(report, sample)
    return report


def main() -> int:
    """Print the figures; 1 when anything is wrong."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=1_500)
    options.add_argument("--checks", type=int, default=120, help="outputs to make again alone")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    report = trio.run(
        soak, asked.jobs, asked.checks, asked.seed, lambda line: print(line, file=sys.stderr)
    )
    if asked.json:
        print(json.dumps(to_json(report)))
    else:
        show(report)
    return 1 if report.faults else 0


def to_json(report: Report) -> dict[str, object]:
    """The report as JSON has it; `asdict` would make another Counter, of pairs."""
    return {**asdict(replace(report, outcomes=Counter())), "outcomes": dict(report.outcomes)}


def show(report: Report) -> None:
    """For people."""
    for outcome, count in report.outcomes.most_common():
        print(f"{count:7} {outcome}")
    print(f"{report.output_tokens} tokens, {report.loads} loads")
    print("jobs, worker and daemon MiB:")
    every = max(1, len(report.samples) // 10)
    for done, worker, daemon in report.samples[::every]:
        print(f"{done:7} {worker / KIB:8.1f} {daemon / KIB:8.1f}")
    for name, kib in (("worker", report.worker_growth_kib), ("daemon", report.daemon_growth_kib)):
        print(f"the {name} grew by {kib:.0f} KiB in the second half (at most {GROWTH_KIB_MAX})")
    same = report.compared - report.near_ties - report.different
    print(
        f"{same} of {report.compared} outputs the same alone, {report.near_ties} but for rounding"
    )
    for fault in report.faults:
        print(fault[:2_000])


if __name__ == "__main__":
    sys.exit(main())
