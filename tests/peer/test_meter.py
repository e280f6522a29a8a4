"""Promised against delivered, from the engine's estimate through the bid to the operator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.interface import EngineEvent, Estimate, Finished, JobSpec
from engine.queue import Priority
from engine.scripted import Script, ScriptedEngine
from peer.jobs import Jobs
from peer.meter import Meter, Outlook
from protocol.fields import ChatMessage, FinishReason, GenerationParameters, InferenceType, Prompt
from protocol.units import NS_PER_MS, NS_PER_S
from router.actions import JobBroke, StartJob

PROMPT = Prompt(InferenceType.CHAT, (ChatMessage("user", "Hello there"),))
PARAMETERS = GenerationParameters(16, 0, 0, 1_000, 1, ())
OUTLOOK = Outlook(100 * NS_PER_MS, 1 * NS_PER_MS, 50_000, 0)


def finished(**changes: Any) -> Finished:
    """100 tokens read in 200 ms, 20 tokens of output in 400 ms more."""
    job = Finished(FinishReason.STOP, 100, 20, 200 * NS_PER_MS, 600 * NS_PER_MS, "e", "s")
    return replace(job, **changes)


def start(job_id: bytes, **changes: Any) -> StartJob:
    promised = (50 * NS_PER_MS, 100_000, 5 * NS_PER_S)
    return replace(StartJob(job_id, "a", PROMPT, PARAMETERS, bytes(32), *promised), **changes)


def make_jobs(engine: ScriptedEngine, feed: Callable[[Any], None], *preferred: bytes) -> Jobs:
    return Jobs(engine, feed, input_price_ucr=15, output_price_ucr=60, preferred=preferred)


def test_what_was_read_is_held_against_what_was_estimated_for_it() -> None:
    """100 ms and 100 tokens of 1 ms are 200 ms: the promise was exact."""
    meter = Meter(0)
    figures = meter.finished(finished(), OUTLOOK, meter.correct(OUTLOOK), None)
    assert (figures.ttft_ns, figures.tokens_per_s_milli) == (200 * NS_PER_MS, 47_500)
    assert figures.kept
    report = meter.kept_json()
    assert report["ttft_error"] == {"mean": 0, "p50": 0, "p95": 0}
    assert report["tokens_per_s_error"]["p50"] == -0.05
    assert (report["jobs"], report["kept_percent"]) == (1, 100)


def test_tokens_that_were_there_are_not_counted_as_read() -> None:
    """Else a known beginning would make the next promise one that a new prompt breaks."""
    meter = Meter(0)
    job = finished(reused_tokens=90, ttft_ns=110 * NS_PER_MS)
    meter.finished(job, OUTLOOK, OUTLOOK, None)
    assert meter.kept_json()["ttft_error"]["p50"] == 0


def test_the_bid_is_what_must_be_kept() -> None:
    meter = Meter(0)
    for told, kept in (((150, 45), True), ((120, 45), False), ((200, 70), False)):
        bid = Estimate(told[0] * NS_PER_MS, told[1] * 1_000)
        assert meter.finished(finished(), OUTLOOK, OUTLOOK, bid).kept is kept
    assert meter.kept_json()["kept_percent"] == 33.3


def test_a_slow_engine_corrects_the_next_promises() -> None:
    """Twice as slow as estimated, reading and writing."""
    meter = Meter(0)
    slow = finished(ttft_ns=400 * NS_PER_MS, duration_ns=1_160 * NS_PER_MS)
    for _ in range(70):
        meter.finished(slow, OUTLOOK, meter.correct(OUTLOOK), None)
    better = meter.correct(OUTLOOK)
    assert (better.ttft_ns, better.ttft_ns_per_input_token) == (200 * NS_PER_MS, 2 * NS_PER_MS)
    assert better.tokens_per_s_milli == 25_000
    assert meter.kept_json()["ttft_error"]["p50"] == 0
    correction = {"wait": 1, "read": 2, "tokens_per_s": 0.5, "overhead_ms": 0}
    assert meter.kept_json()["correction"] == correction


def test_totals_are_sums_and_means() -> None:
    meter = Meter(NS_PER_S)
    meter.saw_places(2)
    for number in range(4):
        job = finished(queue_ns=number * 50 * NS_PER_MS, reused_tokens=10)
        meter.finished(job, OUTLOOK, OUTLOOK, None)
    meter.failed()
    totals = meter.totals(3 * NS_PER_S)
    assert (totals["jobs"], totals["failed"]) == (4, 1)
    assert (totals["input_tokens"], totals["reused_tokens"]) == (400, 40)
    assert (totals["output_tokens"], totals["queue_ms_mean"]) == (80, 75)
    assert (totals["ttft_ms_mean"], totals["tokens_per_s_mean"]) == (200, 50)
    # 4 jobs of 600 ms less 300 ms of waiting, of 2 places in 2 s.
    assert totals["utilisation"] == 0.525


async def test_a_job_that_finished_is_one_line(autojump_clock: trio.testing.MockClock) -> None:
    jobs = make_jobs(ScriptedEngine({"a": Script()}, places=1), lambda item: None)
    jobs.offers()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            jobs.start(nursery, start(b"1"))
            jobs.start(nursery, start(b"2"))
            await jobs.wait_idle()
    first, second = (line for line in lines if line["event"] == "job.finished")
    assert (first["queue_ns"], first["ttft_ns"]) == (0, 50 * NS_PER_MS)
    assert (second["queue_ns"], second["ttft_ns"]) == (70 * NS_PER_MS, 120 * NS_PER_MS)
    assert (first["promise_kept"], second["promise_kept"]) == (True, False)
    assert (first["model"], first["reused_tokens"]) == ("a", 0)
    assert first["tokens_per_s"] == pytest.approx(100)
    assert jobs.meters()["a"]["promises"]["kept"] == 1
    assert jobs.meters()["a"]["utilisation"] == 1


async def test_the_queue_is_in_the_offer(autojump_clock: trio.testing.MockClock) -> None:
    engine = ScriptedEngine({"a": Script()}, places=1, queue_jobs=2)
    jobs = make_jobs(engine, lambda item: None)
    async with trio.open_nursery() as nursery:
        rooms = []
        for number in range(4):
            (offer,) = jobs.offers()
            rooms.append((offer.places - number, offer.queue_jobs))
            if number < 3:
                jobs.start(nursery, start(bytes([number])))
                await trio.testing.wait_all_tasks_blocked()
        # Free places, and how many may wait beyond them.
        assert rooms == [(1, 2), (0, 2), (0, 1), (0, 0)]
        await jobs.wait_idle()


class Listening(ScriptedEngine):
    """Keeps what it was asked."""

    asked: tuple[JobSpec, ...] = ()

    async def run_job(self, spec: JobSpec, emit: Callable[[EngineEvent], None]) -> None:
        self.asked = (*self.asked, spec)
        await super().run_job(spec, emit)


async def test_whom_the_operator_prefers_is_interactive(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Listening({"a": Script()})
    jobs = make_jobs(engine, lambda item: None, b"p" * 32)
    async with trio.open_nursery() as nursery:
        jobs.start(nursery, start(b"1"))
        jobs.start(nursery, start(b"2", payer=b"p" * 32))
        await jobs.wait_idle()
    priorities = {spec.job_id: spec.priority for spec in engine.asked}
    assert priorities == {b"1": Priority.NORMAL, b"2": Priority.INTERACTIVE}
    assert {spec.ttft_ns_max for spec in engine.asked} == {5 * NS_PER_S}


async def test_a_job_that_fails_counts_as_failed(autojump_clock: trio.testing.MockClock) -> None:
    heard: list[Any] = []
    engine = ScriptedEngine({"a": Script(failure="engine.crashed")})
    jobs = make_jobs(engine, heard.append)
    async with trio.open_nursery() as nursery:
        jobs.start(nursery, start(b"1"))
        await jobs.wait_idle()
    assert heard[-1] == JobBroke(b"1", "engine.crashed")
    totals = jobs.meters()["a"]
    assert (totals["jobs"], totals["failed"], totals["promises"]["kept_percent"]) == (0, 1, None)
