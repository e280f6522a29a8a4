"""The remote engine when its server breaks off, is silent, refuses or is gone.

Source: engine/README.md, "Remote"; OpenAI API reference, "Streaming".
"""

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from engine.interface import Started, Tokens
from engine.remote import RemoteEngine, RemoteSettings
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import FinishReason
from tests.engine.remote.test_remote import code_of
from tests.engine.scripted_server import (
    HEAD,
    KEY,
    Exchange,
    Handler,
    end,
    greet,
    open_server,
    text,
)

LONGER = HEAD.replace(b"Connection: close", b"Content-Length: 99999")


def breaking(*payloads: object, raw: bytes = b"", head: bytes = HEAD) -> Handler:
    """A stream that ends after these events, without an end of its own."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(head)
        await exchange.events(*payloads)
        if raw:
            await exchange.send(raw)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        breaking(text("a")),
        breaking(text("a"), raw=b'data: {"choices": [{"delta": {"content": "b'),
        breaking(text("a"), head=LONGER),
        breaking(text("a"), "[DONE]"),
        breaking(text("a"), "{nonsense"),
        breaking(text("a"), '{"choices": 7}'),
        breaking(text("a"), "[" * 5_000),
        breaking(text("a"), {"error": {"message": "out of memory"}}),
        breaking(text("a"), end("content_filter")),
        breaking(text("a"), raw=b"data: \xff\xfe\n\n"),
        breaking(text("a"), raw=b"data: " + b"x" * (limits.REMOTE_EVENT_BYTES_MAX + 1)),
        breaking(text("a"), raw=b"data: xxxxxxx\n" * (limits.REMOTE_EVENT_BYTES_MAX // 8)),
    ],
)
async def test_a_stream_that_breaks_fails_the_job_after_what_came(remote, job, answer):
    """Nothing is tried again once a token has been shown."""
    async with remote(answer) as (engine, server):
        events = []
        with pytest.raises(EngineError) as caught:
            await engine.run_job(job("Hello", model="m"), events.append)
        assert caught.value.code == "engine.remote_failed"
        assert events == [Started(6), Tokens("a", 1)]
        assert len([one for one in server.seen if one.body["max_tokens"] == 16]) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_plain_stream_is_refused(remote, job, head):
    async def answer(exchange: Exchange) -> None:
        await exchange.send(head)

    async with remote(answer) as (engine, _):
        assert (await code_of(engine, job("Hello", model="m"))).code == "engine.remote_failed"


async def test_an_answer_without_an_end_is_bounded(remote, job, monkeypatch):
    monkeypatch.setattr(limits, "REMOTE_ANSWER_BYTES_MAX", 100_000)

    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        while True:
            await exchange.send(b": still here\n" * 1_000)

    async with remote(answer) as (engine, _):
        error = await code_of(engine, job("Hello", model="m"))
        assert (error.code, error.detail) == ("engine.remote_failed", "its answer is too long")


async def test_an_answer_that_is_complete_needs_no_polite_goodbye(remote, ask):
    """The reason came; usage, [DONE] and the end of the chunked body did not."""

    async def answer(exchange: Exchange) -> None:
        await exchange.send(LONGER)
        await exchange.events(text("a"), end())

    async with remote(answer) as (engine, _):
        assert (await ask(engine)).finished.reason is FinishReason.STOP


async def test_a_connection_that_breaks_before_a_token_is_tried_again(remote, ask):
    async def answer(exchange: Exchange) -> None:
        if len(server.seen) == 1:
            await exchange.send(HEAD[:20])
        else:
            await greet(exchange)

    async with remote(answer) as (engine, server):
        assert (await ask(engine)).text == "Hello!"


async def test_a_silent_server_times_out(job, monkeypatch):
    monkeypatch.setattr(limits, "REMOTE_SILENCE_NS_MAX", 50_000_000)

    async def answer(exchange: Exchange) -> None:
        await exchange.send(HEAD)
        await exchange.events(text("a"))
        await exchange.wait_left()

    with trio.fail_after(30):
        async with open_server() as server, trio.open_nursery() as nursery:
            engine = RemoteEngine(RemoteSettings("m", server.url, "M"))
            await nursery.start(engine.run)
            server.answer = answer
            error = await code_of(engine, job("Hello", model="m"))
            assert (error.code, error.detail) == ("engine.timeout", "it fell silent")
            nursery.cancel_scope.cancel()


async def test_a_server_that_fails_is_not_offered_until_it_answers_again(remote, job, ask):
    back = trio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.body["max_tokens"] == 16:
            await exchange.refuse(401)
        else:  # the probe
            await back.wait()
            await greet(exchange)

    with capture_logs() as lines:
        async with remote(answer) as (engine, server):
            assert (await code_of(engine, job("Hello", model="m"))).code == "engine.remote_denied"
            assert engine.models() == ()
            assert engine.free_places("m") == 0
            assert (await code_of(engine, job("Hello", model="m"))).code == "engine.remote_failed"
            server.answer = greet
            back.set()
            while not engine.models():
                await trio.testing.wait_all_tasks_blocked()
            assert (await ask(engine)).text == "Hello!"
    events = [(line["event"], line.get("code")) for line in lines]
    assert events == [
        ("engine.remote_up", None),
        ("engine.remote_down", "engine.remote_denied"),
        ("engine.remote_up", None),
    ]
    assert KEY not in str(lines)


async def test_a_server_that_is_down_at_the_start_is_a_warning():
    """And is offered when it comes up."""
    with capture_logs() as lines, trio.fail_after(30):
        down_now = open_server(lambda exchange: exchange.refuse(503))
        async with down_now as server, trio.open_nursery() as nursery:
            engine = RemoteEngine(RemoteSettings("m", server.url, "M"))
            await nursery.start(engine.run)
            assert engine.models() == ()
            server.answer = greet
            while not engine.models():
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    down = [line for line in lines if line["event"] == "engine.remote_down"]
    assert [(line["log_level"], line["code"]) for line in down] == [
        ("warning", "engine.remote_failed")
    ]


async def test_nobody_listens():
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with capture_logs() as lines, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            engine = RemoteEngine(RemoteSettings("m", f"http://127.0.0.1:{port}/v1", "M"))
            await nursery.start(engine.run)
            assert engine.models() == ()
            nursery.cancel_scope.cancel()
    assert lines[0]["code"] == "engine.remote_failed"
    assert "ConnectError" in lines[0]["reason"]
