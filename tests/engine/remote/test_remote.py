"""The remote engine against a real HTTP server on loopback that does what servers do.

Source: engine/README.md, "Remote"; OpenAI API reference, "Streaming".
"""

import hashlib
from dataclasses import replace

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.interface import Finished, JobSpec, Started, Tokens
from engine.remote import RemoteEngine, RemoteSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason
from tests.engine.scripted_server import (
    HEAD,
    KEY,
    Exchange,
    end,
    greet,
    text,
    usage,
)


async def code_of(engine: RemoteEngine, spec: JobSpec) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.run_job(spec, lambda event: None)
    return caught.value


async def test_a_job_streams_and_ends_with_the_server_s_count(remote, ask):
    async with remote() as (engine, server):
        got = await ask(engine)
    first, *middle, last = got.events
    # "Hello" is 5 bytes: 2 tokens by estimate, and 4 for the message's frame.
    assert first == Started(6)
    assert middle == [Tokens("Hel", 1), Tokens("lo", 1), Tokens("!", 1)]
    assert isinstance(last, Finished)
    assert (last.reason, last.input_tokens, last.output_tokens) == (FinishReason.STOP, 11, 3)
    assert last.engine == "remote openai-compatible"
    assert last.settings == "tokens=usage input=estimate model=the/M"
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.body["model"] == "the/M"
    assert seen.body["stream_options"] == {"include_usage": True}


async def test_what_it_offers_is_honest_about_the_file():
    """There is none: the digest is of a descriptor that anybody can compute."""
    settings = RemoteSettings("m", "http://127.0.0.1:1/v1", "the/M", KEY)
    assert settings.digest() == hashlib.sha256(b"remote:http://127.0.0.1:1/v1#the/M").digest()
    assert KEY not in repr(settings)


async def test_without_usage_chunks_are_counted_and_called_an_estimate(remote, ask):
    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        await exchange.events(text("a"), text("b"), end("length"), "[DONE]")

    async with remote(answer) as (engine, _):
        got = await ask(engine)
    assert (got.finished.reason, got.finished.output_tokens) == (FinishReason.LENGTH, 2)
    assert got.finished.input_tokens == got.started.input_tokens == 6
    assert got.finished.settings.startswith("tokens=chunks(estimate) ")


async def test_tokens_that_the_server_counts_beyond_its_chunks_are_made_up_for(remote, ask):
    """Several tokens a chunk, or some that it does not show; never more than were asked for."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        await exchange.events(text("ab cd"), end(), usage(5, 9), "[DONE]")

    async with remote(answer) as (engine, _):
        assert (await ask(engine, tokens=16)).events[2] == Tokens("", 8)
        got = await ask(engine, tokens=4)
        assert sum(e.count for e in got.events if isinstance(e, Tokens)) == 4
        assert got.finished.output_tokens == 4


async def test_a_server_that_says_more_than_was_asked_for_is_cut_off(remote, ask):
    left = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        try:
            await exchange.events(*[text("x")] * 9)
            await exchange.wait_left()
        finally:
            left.set()

    async with remote(answer) as (engine, _):
        got = await ask(engine, tokens=3)
        assert got.text == "xxx"
        assert (got.finished.reason, got.finished.output_tokens) == (FinishReason.LENGTH, 3)
        await left.wait()


async def test_cancelling_closes_the_connection_and_frees_the_place(remote, ask, job):
    left = trio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        await exchange.events(text("a"))
        await exchange.wait_left()
        left.set()

    async with remote(answer, places=1) as (engine, server):
        with trio.CancelScope() as scope:

            def stop_at_first_text(event: object) -> None:
                if isinstance(event, Tokens):
                    scope.cancel()

            await engine.run_job(job("Hello", model="m"), stop_at_first_text)
        assert scope.cancelled_caught
        await left.wait()
        assert engine.free_places("m") == 1
        server.answer = greet
        assert (await ask(engine)).text == "Hello!"


async def test_cancelling_before_the_first_byte_closes_it_too(remote, job):
    asked, left = trio.Event(), trio.Event()

    async def answer(exchange: Exchange) -> None:
        asked.set()
        await exchange.wait_left()
        left.set()

    async with remote(answer) as (engine, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run_job, job("Hello", model="m"), lambda event: None)
            await asked.wait()
            nursery.cancel_scope.cancel()
        await left.wait()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "no such parameter"}}, "engine.bad_spec"),
        (400, {"error": {"message": "maximum context length is 5"}}, "engine.prompt_too_long"),
        (413, None, "engine.prompt_too_long"),
        (422, {"detail": "bad"}, "engine.bad_spec"),
        (401, {"error": {"message": f"wrong key {KEY}"}}, "engine.remote_denied"),
        (403, b"<html>", "engine.remote_denied"),
        (404, {"error": "no model"}, "engine.remote_failed"),
        (302, None, "engine.remote_failed"),
        (418, b"\xff" * 99_999, "engine.remote_failed"),
    ],
)
async def test_a_refusal_is_a_code_and_is_not_tried_again(remote, job, status, body, code):
    async def answer(exchange: Exchange) -> None:
        await exchange.refuse(status, body, "Location: http://127.0.0.1:1/")

    async with remote(answer) as (engine, server):
        error = await code_of(engine, job("Hello", model="m"))
        assert error.code == code
        assert f"status {status}" in error.detail
        assert KEY not in error.detail
        assert "\n" not in error.detail
        first_path = server.seen[0].path
        assert first_path == "/v1/chat/completions"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(remote, ask, status):
    async def answer(exchange: Exchange) -> None:
        if len(server.seen) < limits.REMOTE_ATTEMPTS_MAX:
            await exchange.refuse(status)
        else:
            await greet(exchange)

    async with remote(answer) as (engine, server):
        assert (await ask(engine)).text == "Hello!"
        assert len(server.seen) == limits.REMOTE_ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("status", "code"), [(429, "engine.overloaded"), (500, "engine.remote_failed")]
)
async def test_it_is_not_tried_for_ever(remote, job, status, code):
    async def answer(exchange: Exchange) -> None:
        await exchange.refuse(status, {"error": {"message": f"sorry, {KEY}"}})

    async with remote(answer) as (engine, server):
        error = await code_of(engine, job("Hello", model="m"))
        assert (error.code, error.detail) == (code, f"status {status}: sorry, ***")
        asked = [one for one in server.seen if one.body["max_tokens"] == 16]
        assert len(asked) == limits.REMOTE_ATTEMPTS_MAX


@pytest.mark.parametrize(("seconds", "attempts"), [("0", 3), ("3600", 1), ("soon", 3)])
async def test_a_long_pause_that_the_server_asks_for_is_as_good_as_no(
    remote, job, seconds, attempts
):
    async def answer(exchange: Exchange) -> None:
        await exchange.refuse(429, None, f"Retry-After: {seconds}")

    async with remote(answer) as (engine, server):
        assert (await code_of(engine, job("Hello", model="m"))).code == "engine.overloaded"
        assert len(server.seen) == attempts
        # It is only busy: it stays on offer.
        assert len(engine.models()) == 1


async def test_places_and_queue_are_kept(remote, job):
    most = 0
    open_now = 0
    go_on = trio.Event()

    async def answer(exchange: Exchange) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        await go_on.wait()
        open_now -= 1
        await greet(exchange)

    async with remote(answer, places=2) as (engine, server):
        idle_ns = engine.estimate("m", 10).ttft_ns
        codes = []

        async def one(number: int) -> None:
            spec = replace(job(f"{number}", model="m"), owner=bytes([number]))
            try:
                await engine.run_job(spec, lambda event: None)
            except EngineError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for number in range(2 + 16 + 1):
                nursery.start_soon(one, number)
            await trio.testing.wait_all_tasks_blocked()
            assert codes == ["engine.overloaded"]
            assert engine.free_places("m") == 0
            assert engine.estimate("m", 10).ttft_ns > idle_ns
            go_on.set()
        assert len(server.seen) == 18
        assert most == 2


async def test_another_name_and_a_prompt_that_is_too_long(remote, job):
    async with remote(context_tokens=64) as (engine, server):
        error = await code_of(engine, job("Hello", model="the/M"))
        assert error.code == "engine.unknown_model"
        assert (await code_of(engine, job("x" * 400, model="m"))).code == "engine.prompt_too_long"
        assert server.seen == []
        assert len(engine.models()) == 1


async def test_what_was_measured_is_what_is_promised(remote, ask):
    async with remote() as (engine, _):
        got = await ask(engine)
        promise = engine.estimate("m", 1_000)
        assert promise.ttft_ns > 0
        assert promise.tokens_per_s_milli > 0
        assert 0 < got.finished.ttft_ns <= got.finished.duration_ns


@pytest.mark.parametrize(
    ("url", "key", "warned"),
    [
        ("http://127.0.0.1:1/v1", KEY, False),
        ("http://192.0.2.1:1/v1", "", False),
        ("https://192.0.2.1:1/v1", KEY, False),
        ("http://192.0.2.1:1/v1", KEY, True),
    ],
)
async def test_a_key_in_the_clear_is_warned_of(url, key, warned):
    """Before anything is sent."""
    engine = RemoteEngine(RemoteSettings("m", url, "M", key))
    with capture_logs() as lines, trio.CancelScope() as scope:
        scope.cancel()
        await engine.run()
    assert [line["event"] for line in lines] == ["engine.remote_plain"] * warned
