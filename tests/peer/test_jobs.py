"""Between node and engine: what is offered, and when the node hears that it changed."""

from collections.abc import Callable
from typing import Any

import trio
import trio.testing

from engine.interface import Estimate, JobSpec, ModelInfo
from engine.scripted import Script, ScriptedEngine
from peer.jobs import Jobs
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt
from protocol.units import NS_PER_S
from router.actions import JobBroke, JobFinished, ModelOffer, OffersChanged, StartJob

PROMPT = Prompt(InferenceType.CHAT, (ChatMessage("user", "Hello there"),))
PARAMETERS = GenerationParameters(16, 0, 0, 1_000, 1, ())
LOAD_NS = 3 * NS_PER_S


class OneAtATime(ScriptedEngine):
    """Two models and the memory of one: while one works, the other is not offered."""

    def models(self) -> tuple[ModelInfo, ...]:
        busy = [info for info in super().models() if self.free_places(info.name) < 4]
        return tuple(busy) or super().models()

    def estimate(self, model: str, input_tokens: int) -> Estimate:
        promise = super().estimate(model, input_tokens)
        return Estimate(LOAD_NS + 7 * input_tokens, promise.tokens_per_s_milli)


def make_jobs(engine: ScriptedEngine, feed: Callable[[Any], None]) -> Jobs:
    return Jobs(engine, feed, input_price_ucr=15, output_price_ucr=60)


def start(job_id: bytes, model: str) -> StartJob:
    return StartJob(job_id, model, PROMPT, PARAMETERS, bytes(32))


async def test_an_offer_is_the_engine_s_promise_priced() -> None:
    """The time to load is in the time to first token, once, whatever the prompt's length."""
    jobs = make_jobs(OneAtATime({"a": Script()}), lambda item: None)
    (offer,) = jobs.offers()
    assert isinstance(offer, ModelOffer)
    assert (offer.name, offer.input_price_ucr, offer.output_price_ucr) == ("a", 15, 60)
    assert (offer.ttft_ns, offer.ttft_ns_per_input_token) == (LOAD_NS, 7)
    assert offer.tokens_per_s_milli == 100_000
    assert offer.quantization == "F16"


async def test_a_job_changes_the_offers_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Not at the next look a second later: an award for the other model would break."""
    heard: list[tuple[float, tuple[str, ...]]] = []

    def feed(item: object) -> None:
        if isinstance(item, OffersChanged):
            names = tuple(offer.name for offer in item.offers)
            heard.append((round(trio.current_time() - began, 3), names))

    began = trio.current_time()
    script = Script(ttft_ns=100_000_000, token_ns=10_000_000)
    jobs = make_jobs(OneAtATime({"a": script, "b": script}), feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.keep_offers)
        await trio.sleep(0.25)
        jobs.start(nursery, start(b"1", "a"))
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    # 3 tokens: 100 ms to the first, 10 ms each after it.
    assert heard == [(0.0, ("a", "b")), (0.25, ("a",)), (0.37, ("a", "b"))]


async def test_places_are_the_engine_s_own(autojump_clock: trio.testing.MockClock) -> None:
    """Free ones and those of running jobs, which the node counts itself."""
    engine = ScriptedEngine({"a": Script(), "b": Script()}, places=3)
    jobs = make_jobs(engine, lambda item: None)
    async with trio.open_nursery() as nursery:
        jobs.start(nursery, start(b"1", "a"))
        await trio.testing.wait_all_tasks_blocked()
        assert engine.free_places("a") == 2
        assert {offer.name: offer.places for offer in jobs.offers()} == {"a": 3, "b": 3}
        nursery.start_soon(
            engine.run_job, JobSpec(b"2", "a", PROMPT, PARAMETERS), lambda event: None
        )
        await trio.testing.wait_all_tasks_blocked()
        # Taken by somebody whom the node does not know of.
        assert {offer.name: offer.places for offer in jobs.offers()} == {"a": 2, "b": 3}
        await jobs.wait_idle()
    assert {offer.name: offer.places for offer in jobs.offers()} == {"a": 3, "b": 3}


async def test_a_job_s_end_and_its_failure_reach_the_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Any] = []
    engine = ScriptedEngine({"a": Script(), "b": Script(failure="engine.crashed")})
    jobs = make_jobs(engine, heard.append)
    async with trio.open_nursery() as nursery:
        for job_id, model in ((b"1", "a"), (b"2", "b"), (b"3", "none")):
            jobs.start(nursery, start(job_id, model))
        await jobs.wait_idle()
    ends = {item.job_id: item for item in heard if isinstance(item, JobFinished | JobBroke)}
    assert isinstance(ends[b"1"], JobFinished)
    assert ends[b"1"].output_tokens == 3
    assert ends[b"2"] == JobBroke(b"2", "engine.crashed")
    assert ends[b"3"] == JobBroke(b"3", "engine.unknown_model")


async def test_a_cancelled_job_is_not_a_broken_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Any] = []
    jobs = make_jobs(ScriptedEngine({"a": Script()}), heard.append)
    async with trio.open_nursery() as nursery:
        jobs.start(nursery, start(b"1", "a"))
        await trio.testing.wait_all_tasks_blocked()
        jobs.cancel(b"1")
        jobs.cancel(b"unknown")
        await jobs.wait_idle()
    assert not [item for item in heard if isinstance(item, JobFinished | JobBroke)]
