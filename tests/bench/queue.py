"""What waiting in the fair queue costs the daemon, and what it costs the places.

    python -m tests.bench.queue [--json]

`overhead`: CPU of one job's way through the pure queue, at 1, 16, 64 and 256 waiting jobs of 1, 8
and 64 owners: room, push, pop and settle; `timed` with the check of a time that the job states
(who goes before it?); `quote` is the look at the queue for an estimate. Medians over turns.

`places`: tokens a second of 24 jobs of the embedded model on one place, 4 and 64 tokens each: as
it is, where a place stands empty until the next job has come from the daemon, against a worker
that always has one job more than places.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import structlog
import trio

from engine.embedded import embedded_model_path
from engine.interface import EngineEvent, JobSpec
from engine.llama import LlamaEngine
from engine.queue import FairQueue, Priority
from engine.served import ServedModel
from engine.settings import LlamaSettings
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt

TURNS = 31
JOBS = 24
SIZES = ((1, 1), (16, 8), (64, 8), (64, 64), (256, 64))


def cpu_us(action: Callable[[], Any]) -> float:
    """CPU of one call, in microseconds."""
    start_ns = time.process_time_ns()
    action()
    return (time.process_time_ns() - start_ns) / 1_000


def way_of(waiting: int, owners: int) -> dict[str, float]:
    """Each step of one job's way, with so many others waiting."""
    queue: FairQueue[int] = FairQueue(1_024)
    for number in range(waiting - 1):
        queue.push(number, bytes([number % owners]), Priority.NORMAL, 1 + number % 7)
    me, popped = bytes([0]), []
    steps: dict[str, Callable[[], Any]] = {
        "room": lambda: queue.has_room(me),
        "ahead": lambda: queue.ahead(me, Priority.NORMAL),
        "push": lambda: queue.push(0, me, Priority.NORMAL, 5),
        "quote": lambda: [ticket.job for ticket in queue.tickets()],
        "pop": lambda: popped.append(queue.pop()),
        "settle": lambda: queue.settle(popped[0], 3),
    }
    return {name: cpu_us(step) for name, step in steps.items()}


def overhead(waiting: int, owners: int) -> dict[str, Any]:
    """Medians: `timed` with the check of a time that a job states."""
    turns = [way_of(waiting, owners) for _ in range(TURNS)]
    figures = {name: median(turn[name] for turn in turns) for name in turns[0]}
    way = sum(figures[name] for name in ("room", "push", "pop", "settle"))
    return {
        "waiting": waiting,
        "owners": owners,
        "way_us": round(way, 1),
        "timed_way_us": round(way + figures["ahead"], 1),
        "quote_us": round(figures["quote"], 1),
    }


def spec_of(number: int, tokens: int) -> JobSpec:
    prompt = Prompt(InferenceType.COMPLETION, (ChatMessage("user", f"Question {number}:"),))
    owner = bytes([number % 5])
    return JobSpec(
        b"", "embedded", prompt, GenerationParameters(tokens, 800, 40, 950, 7, ()), owner
    )


async def speed_of(engine: LlamaEngine, jobs: int, tokens: int) -> float:
    """Tokens a second of so many jobs that are submitted at once."""
    made = 0

    async def one(number: int) -> None:
        nonlocal made

        def count(event: EngineEvent) -> None:
            nonlocal made
            made += getattr(event, "count", 0)

        await engine.run_job(spec_of(number, tokens), count)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(jobs):
            nursery.start_soon(one, number)
    return made / (trio.current_time() - start)


@contextmanager
def handed_ahead() -> Iterator[None]:
    """The worker always has one job more than it has places."""
    vacant = ServedModel._vacant
    more = property(lambda model: max(0, model._settings.places + 1 - len(model._given)))
    ServedModel._vacant = more  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ServedModel._vacant = vacant  # type: ignore[method-assign]


async def places() -> list[dict[str, Any]]:
    """One place, short and longer jobs; both ways take turns."""
    settings = LlamaSettings(n_threads=1, places=1, queue_jobs=256)
    engine = LlamaEngine([embedded_model_path()], settings)
    rows = []
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        for tokens in (4, 64):
            ratios = []
            for _ in range(9):
                fair = await speed_of(engine, JOBS, tokens)
                with handed_ahead():
                    ratios.append(fair / await speed_of(engine, JOBS, tokens))
            row = {"tokens": tokens, "jobs": JOBS, "fair_to_ahead": round(median(ratios), 3)}
            rows.append(row)
        nursery.cancel_scope.cancel()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    result = {
        "overhead": [overhead(*size) for size in SIZES],
        "places": trio.run(places),
    }
    if arguments.json:
        print(json.dumps(result))
        return
    for row in [*result["overhead"], *result["places"]]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
