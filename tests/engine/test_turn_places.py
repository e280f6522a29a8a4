"""Places in turn, on virtual time: fair, bounded, in time, and none is ever lost."""

from dataclasses import replace

import pytest
import trio
import trio.testing

from engine.interface import JobSpec
from engine.turns import Turns
from protocol.errors import EngineError
from protocol.units import NS_PER_S
from tests.engine.conftest import make_completion, make_parameters

SPEC = JobSpec(b"", "m", make_completion("x"), make_parameters(1))


class World:
    """Jobs of a second each."""

    def __init__(self, places: int, bound: int, nursery: trio.Nursery) -> None:
        self.turns = Turns(places, bound)
        self.log: list[str] = []
        self._began = trio.current_time()
        self._nursery = nursery

    async def add(self, name: str, *, limit_s: float = 0, ttft_s: float = 0) -> None:
        owner, limit_ns = name[0].encode(), int(limit_s * NS_PER_S)
        spec = replace(SPEC, owner=owner, ttft_ns_max=limit_ns)
        self._nursery.start_soon(self._run, name, spec, int(ttft_s * NS_PER_S))
        await trio.testing.wait_all_tasks_blocked()

    async def _run(self, name: str, spec: JobSpec, ttft_ns: int) -> None:
        try:
            async with self.turns.turn(spec, NS_PER_S, ttft_ns):
                self.log.append(name)
                await trio.sleep(1)
        except EngineError as error:
            self.log.append(f"{name} {error.code} {trio.current_time() - self._began:.1f}")


@pytest.fixture(autouse=True)
def virtual(autojump_clock: trio.testing.MockClock) -> None:
    """Time is virtual."""


async def test_owners_take_turns() -> None:
    async with trio.open_nursery() as nursery:
        world = World(1, 16, nursery)
        for name in ("a1", "a2", "a3", "b1"):
            await world.add(name)
    assert world.log == ["a1", "b1", "a2", "a3"]
    assert (world.turns.free, world.turns.room) == (1, 16)


async def test_one_alone_fills_half() -> None:
    async with trio.open_nursery() as nursery:
        world = World(1, 4, nursery)
        for name in ("a1", "a2", "a3", "a4", "b1"):
            await world.add(name)
        assert world.log == ["a1", "a4 engine.overloaded 0.0"]
        assert (world.turns.free, world.turns.room) == (0, 1)


async def test_what_waits_too_long_leaves_or_is_not_taken() -> None:
    async with trio.open_nursery() as nursery:
        world = World(1, 4, nursery)
        await world.add("a1")
        await world.add("b1", limit_s=2, ttft_s=3)
        await world.add("c1", limit_s=0.5)
        await world.add("d1", limit_s=1.5)
    assert world.log == ["a1", "b1 engine.too_late 0.0", "c1 engine.too_late 0.5", "d1"]
    assert (world.turns.free, world.turns.room) == (1, 4)


async def test_a_job_that_is_cancelled_gives_back_what_it_has() -> None:
    async with trio.open_nursery() as nursery:
        world = World(1, 4, nursery)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as other:
                gone = World(1, 4, other)
                gone.turns = world.turns
                await gone.add("a1")
                await gone.add("b1")
                scope.cancel()
        assert (world.turns.free, world.turns.room) == (1, 4)
        await world.add("c1")
        assert world.log == ["c1"]
