"""Several engines as one: who is asked, who stands in, and what the caller sees of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.group import EngineGroup
from engine.interface import (
    EngineEvent,
    Estimate,
    Finished,
    JobSpec,
    ModelInfo,
    Started,
    Tokens,
)
from engine.scripted import Script, ScriptedEngine
from protocol.errors import EngineError
from protocol.fields import FinishReason
from protocol.units import NS_PER_S


@dataclass
class Stub:
    """An engine that does what a test says."""

    name: str = "m"
    digest: bytes = bytes(32)
    is_up: bool = True
    script: tuple[EngineEvent | str, ...] = ()
    places: int = 3
    asked: list[JobSpec] = field(default_factory=list)

    async def run(self, *, task_status: object = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()  # type: ignore[attr-defined]

    def models(self) -> tuple[ModelInfo, ...]:
        info = ModelInfo(self.name, self.digest, 64, "F16", 1)
        return (info,) if self.is_up else ()

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        return Estimate(self.places, input_tokens)

    def free_places(self, model: str) -> int:
        return self.places

    def queue_room(self, model: str) -> int:
        return 2 * self.places

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        self.asked.append(spec)
        await trio.lowlevel.checkpoint()
        for step in self.script:
            if isinstance(step, str):
                raise EngineError(step)
            emit(step)


def finished(settings: str = "s") -> Finished:
    return Finished(FinishReason.STOP, 5, 1, 1, 2, "e", settings)


GOOD = (Started(5), Tokens("good", 1), finished())


async def run(job, *engines: Stub) -> list[EngineEvent]:
    events: list[EngineEvent] = []
    await EngineGroup(engines).run_job(job("Hello", model="m"), events.append)
    return events


async def test_the_first_that_offers_it_is_asked(job):
    first, second = Stub(script=GOOD), Stub(script=GOOD)
    events = await run(job, Stub("other"), Stub(is_up=False), first, second)
    assert events[:2] == list(GOOD[:2])
    assert (len(first.asked), len(second.asked)) == (1, 0)


@pytest.mark.parametrize(
    "code",
    ["engine.remote_failed", "engine.timeout", "engine.overloaded", "engine.crashed"],
)
@pytest.mark.parametrize("before", [(), (Started(9),)])
async def test_a_failure_before_the_first_token_hands_the_job_on(job, code, before):
    """Started comes once, from the one that answers; the receipt says that it stood in."""
    second = Stub(script=GOOD, digest=bytes.fromhex("ab" * 32))
    with capture_logs() as lines:
        events = await run(job, Stub(script=(*before, code)), second)
    noted = "fallback sha256=abababababababab s"
    *before_last, last = events
    assert before_last == [Started(5), Tokens("good", 1)]
    assert isinstance(last, Finished)
    assert last.settings == noted
    assert [(line["event"], line["code"]) for line in lines] == [("engine.fallback", code)]


async def test_time_lost_on_the_first_is_part_of_the_job_s(
    job, autojump_clock: trio.testing.MockClock
):
    class Slow(Stub):
        async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
            await trio.sleep(3)
            raise EngineError("engine.timeout")

    (*_, last) = await run(job, Slow(), Stub(script=GOOD))
    assert isinstance(last, Finished)
    assert (last.ttft_ns, last.duration_ns) == (3 * NS_PER_S + 1, 3 * NS_PER_S + 2)


@pytest.mark.parametrize("code", ["engine.bad_spec", "engine.prompt_too_long"])
async def test_a_failure_that_is_the_job_s_own_is_not_handed_on(job, code):
    second = Stub(script=GOOD)
    with pytest.raises(EngineError) as caught:
        await run(job, Stub(script=(code,)), second)
    assert caught.value.code == code
    assert second.asked == []


async def test_a_failure_after_a_token_is_final(job):
    """What was shown came from one model; another one can't go on from it."""
    first = Stub(script=(Started(9), Tokens("a", 1), "engine.crashed"))
    second = Stub(script=GOOD)
    events: list[EngineEvent] = []
    with pytest.raises(EngineError):
        await EngineGroup([first, second]).run_job(job("Hello", model="m"), events.append)
    assert events == [Started(9), Tokens("a", 1)]
    assert second.asked == []


async def test_the_last_failure_is_the_one_that_is_told(job):
    with pytest.raises(EngineError) as caught:
        await run(job, Stub(script=("engine.timeout",)), Stub(script=("engine.crashed",)))
    assert caught.value.code == "engine.crashed"


async def test_a_lone_engine_s_start_is_passed_on_at_once(job):
    """The length of the prompt is checked and billed with it."""
    events: list[EngineEvent] = []
    lone = Stub(script=(Started(9), "engine.crashed"))
    with pytest.raises(EngineError):
        await EngineGroup([Stub("other"), lone]).run_job(job("x", model="m"), events.append)
    assert events == [Started(9)]


async def test_when_nobody_offers_it_the_engines_say_why(job):
    down = Stub(is_up=False, script=("engine.crashed",))
    with pytest.raises(EngineError) as caught:
        await run(job, down)
    assert caught.value.code == "engine.crashed"


def test_every_name_once_as_its_first_engine_has_it():
    first = Stub(digest=b"1" * 32, places=1)
    group = EngineGroup([first, Stub("n", places=2), Stub(digest=b"2" * 32, places=4)])
    assert [(info.name, info.digest[:1]) for info in group.models()] == [
        ("m", b"1"),
        ("n", b"\0"),
    ]
    assert (group.free_places("m"), group.free_places("n")) == (1, 2)
    assert group.estimate("m", 8) == Estimate(1, 8)
    first.is_up = False
    assert {info.digest[:1] for info in group.models()} == {b"\0", b"2"}
    assert group.free_places("m") == 4
    with pytest.raises(EngineError) as caught:
        group.estimate("x", 1)
    assert caught.value.code == "engine.unknown_model"


async def test_all_are_run_and_one_that_can_not_start_ends_the_group():
    class Broken(Stub):
        async def run(self, *, task_status: object = trio.TASK_STATUS_IGNORED) -> None:
            raise EngineError("engine.bad_model", "no")

    async with trio.open_nursery() as nursery:
        group = EngineGroup([Stub(), ScriptedEngine({"s": Script()})])
        await nursery.start(group.run)
        assert [info.name for info in group.models()] == ["m", "s"]
        nursery.cancel_scope.cancel()
    with pytest.raises(EngineError) as caught:
        await EngineGroup([Stub(), Broken()]).run()
    assert caught.value.code == "engine.bad_model"
