"""A run of daemons from their start over the market to the last settlement."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import trio

from protocol.units import NS_PER_S
from simnet.runs.runner import SETTLE_S, STEP_NS, Run
from simnet.tiers.shell import ShellSimulation


@contextmanager
def quiet_daemons() -> Iterator[None]:
    """Daemons say errors alone, on stderr, for as long as the block."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


async def run_shell(
    run: Run, simulation: ShellSimulation, jump: Callable[[float], None] | None = None
) -> None:
    """All phases of a run, as `Run` has them; whatever its clock is."""
    clock = simulation.clock
    async with trio.open_nursery() as pumping:
        clock.begin()
        ended_ns = clock.now_ns
        try:
            pumping.start_soon(clock.keep_running, jump)
            async with trio.open_nursery() as nodes:
                await simulation.open(nodes)
                await _market(run, simulation)
                await simulation.collect()
                ended_ns = clock.now_ns
                nodes.cancel_scope.cancel()  # all is on the disks, and read
        finally:
            clock.end(ended_ns)
        pumping.cancel_scope.cancel()


async def _market(run: Run, simulation: ShellSimulation) -> None:
    scenario, market, clock = simulation.scenario, simulation.market, simulation.clock

    async def wait(done: Callable[[], bool], duration_s: int) -> None:
        until_ns = clock.now_ns + duration_s * NS_PER_S
        while not run.stop and not done() and clock.now_ns < until_ns:
            await trio.sleep_until(clock.seconds(min(clock.now_ns + STEP_NS, until_ns)))
            clock.run_due()
            run.look(simulation)

    simulation.begin()
    await wait(lambda: False, scenario.warmup_s + scenario.duration_s)
    await wait(lambda: not market.open, scenario.drain_s)
    if not run.stop:
        simulation.close_channels()
        await wait(simulation.settled, SETTLE_S)
