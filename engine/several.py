"""Several completions of one prompt, over any engine: as many jobs, which share its reading.

Jobs of one owner with the same prompt are read once where the engine can (engine/sharing.py),
so that nothing but a job exists below. Must not know what kinds of engines there are.
Rule: engine/README.md, "Several completions".
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

from engine.interface import Engine, EngineEvent, JobSpec
from protocol import limits
from protocol.errors import EngineError


def completion_of(spec: JobSpec, index: int) -> JobSpec:
    """The job of one completion, from 0: an id and a seed of its own, the first as it is."""
    seed = (spec.parameters.seed + index) % (limits.U32_MAX + 1)
    job_id = spec.job_id + index.to_bytes(1, "big") if index else spec.job_id
    return replace(spec, job_id=job_id, parameters=replace(spec.parameters, seed=seed))


async def run_completions(
    engine: Engine, spec: JobSpec, count: int, emit: Callable[[int, EngineEvent], None]
) -> None:
    """Run `count` completions (1 to API_CHOICES_MAX); events come with their index.

    EngineError as `Engine.run_job`, of the first that fails: the others are cancelled.
    """
    if not 1 <= count <= limits.API_CHOICES_MAX:
        raise EngineError(
            "engine.bad_spec", f"{count} completions, {limits.API_CHOICES_MAX} at most"
        )
    failures: list[EngineError] = []

    async def run(index: int, nursery: trio.Nursery) -> None:
        try:
            await engine.run_job(completion_of(spec, index), partial(emit, index))
        except EngineError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index in range(count):
            nursery.start_soon(run, index, nursery)
    if failures:
        raise failures[0]
