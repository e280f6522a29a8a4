"""Jobs that wait for a place of a real worker: whose turn it is, and who is not kept waiting."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import trio
import trio.testing

from engine.interface import EngineEvent, Finished, Started
from engine.queue import Priority
from engine.settings import LlamaSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S

ONE = LlamaSettings(n_threads=1, places=1)
LONG = 1_900


class Crowd:
    """Jobs that run side by side, the order in which they began, and how they ended."""

    def __init__(self, engine, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._nursery = nursery
        self.began: list[str] = []
        self.finished: dict[str, Finished] = {}
        self.codes: dict[str, str] = {}
        self.refused = trio.Event()

    async def add(self, name: str, spec) -> None:
        """Submit a job, and see it in the queue or in the worker."""
        self._nursery.start_soon(self._run, name, spec)
        await trio.testing.wait_all_tasks_blocked()

    async def _run(self, name: str, spec) -> None:
        def emit(event: EngineEvent) -> None:
            if isinstance(event, Started):
                self.began.append(name)
            elif isinstance(event, Finished):
                self.finished[name] = event

        try:
            await self._engine.run_job(spec, emit)
        except EngineError as error:
            self.codes[name] = error.code
            self.refused.set()


async def stopped(engine) -> Callable[[], None]:
    """Stop the worker, so that nothing ends; returns what lets it go on."""
    pid = engine.worker_pid("babbler")
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


async def test_a_requester_with_many_jobs_does_not_hold_up_one_with_one(serve, job):
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        for number in range(6):
            await crowd.add(f"a{number}", replace(job("Hello", tokens=4), owner=b"a"))
        await crowd.add("b", replace(job("Hello", tokens=4), owner=b"b"))
        go_on()
    assert crowd.began == ["a0", "b", "a1", "a2", "a3", "a4", "a5"]
    assert crowd.codes == {}


async def test_the_operators_classes_go_by_weight(serve, job):
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        for priority in (Priority.NORMAL, Priority.BATCH, Priority.NORMAL, Priority.INTERACTIVE):
            for number in range(2):
                name = f"{priority.name[0]}{len(crowd.began)}{number}"
                spec = replace(job("Hello", tokens=4), owner=priority.name.encode())
                await crowd.add(name, replace(spec, priority=priority))
        go_on()
    kinds = "".join(name[0] for name in crowd.began)
    # The first was alone; each class is then at zero once, and interactive ones stay near it.
    assert kinds[0] == "N"
    assert kinds.index("I") < 3
    assert kinds.rindex("I") < kinds.rindex("B")


async def test_nobody_fills_the_queue_alone(serve, job):
    settings = LlamaSettings(n_threads=1, places=1, queue_jobs=4)
    async with serve(settings) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        assert engine.queue_room("babbler") == 4
        for number in range(4):
            await crowd.add(f"a{number}", replace(job("Hello", tokens=4), owner=b"a"))
        assert crowd.codes == {"a3": "engine.overloaded"}
        assert (engine.free_places("babbler"), engine.queue_room("babbler")) == (0, 2)
        for owner in (b"b", b"c", b"d"):
            await crowd.add(owner.decode(), replace(job("Hello", tokens=4), owner=owner))
        assert crowd.codes == {"a3": "engine.overloaded", "d": "engine.overloaded"}
        assert engine.queue_room("babbler") == 0
        go_on()
    assert sorted(crowd.finished) == ["a0", "a1", "a2", "b", "c"]


async def test_what_can_not_start_in_time_is_refused_at_once(serve, job):
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        spec = replace(job("Hello", tokens=4), ttft_ns_max=NS_PER_S // 10)
        await crowd.add("long", job("Hello", tokens=LONG))
        assert engine.estimate("babbler", 10).ttft_ns > NS_PER_S // 10
        await crowd.add("refused", spec)
        assert crowd.codes == {"refused": "engine.too_late"}
        await crowd.add("patient", replace(spec, ttft_ns_max=60 * NS_PER_S))
        go_on()
    assert sorted(crowd.finished) == ["long", "patient"]


async def test_the_queue_is_left_when_the_time_is_over(serve, job):
    """The estimate said that it would do; then the worker stood still."""
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        await crowd.add("first", job("Hello", tokens=2))
        spec = replace(job("Hello", tokens=2), ttft_ns_max=NS_PER_S // 10)
        await crowd.add("late", spec)
        assert crowd.codes == {}
        await crowd.refused.wait()
        assert crowd.codes == {"late": "engine.too_late"}
        assert engine.queue_room("babbler") == ONE.queue_jobs
        go_on()
    assert sorted(crowd.finished) == ["first"]


async def test_what_has_begun_is_not_given_up(serve, job):
    """Its time passes while it is read: the rest is worth more than the promise."""
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        spec = replace(job("Hello", tokens=2), ttft_ns_max=NS_PER_S // 20)
        await crowd.add("begun", spec)
        await trio.sleep(0.1)
        go_on()
    assert sorted(crowd.finished) == ["begun"]


async def test_a_job_that_leaves_the_queue_makes_room(serve, job):
    settings = LlamaSettings(n_threads=1, places=1, queue_jobs=1)
    async with serve(settings) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        await crowd.add("first", job("Hello", tokens=2))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as other:
                await Crowd(engine, other).add("leaves", job("Hello", tokens=2))
                assert engine.queue_room("babbler") == 0
                scope.cancel()
        assert engine.queue_room("babbler") == 1
        await crowd.add("second", job("Hello", tokens=2))
        go_on()
    assert crowd.began == ["first", "second"]


async def test_those_that_wait_fail_when_the_model_is_given_up(serve, job, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_CRASHES_MAX", 1)
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        await stopped(engine)
        crowd = Crowd(engine, nursery)
        for name in ("a", "b", "c"):
            await crowd.add(name, job("Hello", tokens=2))
        os.kill(engine.worker_pid("babbler"), signal.SIGKILL)
    assert crowd.codes == dict.fromkeys("abc", "engine.crashed")


async def test_a_job_says_how_long_it_waited_and_how_fast_it_was(serve, job):
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        go_on = await stopped(engine)
        crowd = Crowd(engine, nursery)
        await crowd.add("first", job("Hello", tokens=40))
        await crowd.add("second", job("Hello", tokens=40))
        go_on()
    first, second = crowd.finished["first"], crowd.finished["second"]
    assert 0 <= first.queue_ns < first.ttft_ns
    made_ns = [39 * 10**12 // each.tokens_per_s_milli for each in (first, second)]
    assert first.queue_ns + made_ns[0] <= second.queue_ns < second.ttft_ns
    for each, each_ns in zip((first, second), made_ns, strict=True):
        assert each.queue_ns + each_ns < each.duration_ns


async def test_one_token_has_no_speed(serve, job):
    async with serve(ONE) as engine, trio.open_nursery() as nursery:
        crowd = Crowd(engine, nursery)
        await crowd.add("one", job("Hello", tokens=1))
    assert crowd.finished["one"].tokens_per_s_milli == 0
