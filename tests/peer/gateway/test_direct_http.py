"""hypercorn with what is replaced of it, over real sockets: peer/gateway/direct_http.py."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve

from peer.gateway.direct_http import install

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
END = b"0\r\n\r\n"
PATIENCE_S = 10.0
HUGE = 32 * 1024 * 1024  # more than a socket's buffers

Send = Callable[[Any], Awaitable[None]]


class App:
    """An application that answers with what it is told, in pieces."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.pieces = [b"hello"]
        self.go_on = trio.Event()
        self.go_on.set()
        self.started = trio.Event()
        self.late_s = 60.0
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        pieces = self.pieces
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.started.set()
        await self.go_on.wait()
        try:
            for piece in pieces:
                with trio.fail_after(self.late_s):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except trio.TooSlowError:
            self.ended.append("late")
            raise
        await send({"type": "http.response.body", "body": b""})
        self.ended.append("done")


@asynccontextmanager
async def serving(app: App, keep_alive_s: float = 60.0) -> AsyncIterator[Callable[[], Any]]:
    """How to connect to it."""
    install()
    config = Config()
    config.bind, config.accesslog, config.errorlog = ["127.0.0.1:0"], None, None
    config.keep_alive_timeout, config.graceful_timeout = keep_alive_s, 0.1  # type: ignore[assignment]
    stop = trio.Event()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            run = partial(serve, shutdown_trigger=stop.wait)
            binds = await nursery.start(run, app, config)
            port = int(binds[0].rpartition(":")[2])
            yield partial(trio.open_tcp_stream, "127.0.0.1", port)
            stop.set()


async def until(stream: trio.SocketStream, end: bytes = END) -> bytes:
    """What comes up to `end`."""
    out = bytearray()
    while not out.endswith(end):
        data = await stream.receive_some()
        assert data, out[:200]
        out += data
    return bytes(out)


async def test_the_head_goes_out_with_the_first_of_the_body() -> None:
    """ASGI: the server must not begin before the body does."""
    app = App()
    app.go_on = trio.Event()
    async with serving(app) as connect:
        stream = await connect()
        await stream.send_all(GET)
        await app.started.wait()
        with trio.move_on_after(0.05):
            pytest.fail(f"came early: {await stream.receive_some()!r}")
        app.go_on.set()
        answer = await until(stream)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"5\r\nhello\r\n" + END)


async def test_requests_of_one_connection_are_answered_in_order() -> None:
    app = App()
    async with serving(app) as connect:
        stream = await connect()
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
        await stream.send_all(post + b"one" + post + b"two" + GET)
        for _ in range(3):
            await until(stream)
    assert app.bodies == [b"one", b"two", b""]


@pytest.mark.parametrize("size", [1, 7, 70_000])
async def test_a_body_arrives_whole_however_it_is_cut(size: int) -> None:
    app, body = App(), bytes(range(256)) * (1 if size < 100 else 2_000)
    async with serving(app) as connect:
        stream = await connect()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        await stream.send_all(head)
        for chunk in chunks:
            await stream.send_all(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await stream.send_all(END)
        await until(stream)
    assert app.bodies == [body]


async def test_who_takes_nothing_stalls_nobody_and_is_given_up() -> None:
    """Stock shields the write from the time that the application gives it."""
    app = App()
    app.pieces, app.late_s = [b"x" * HUGE], 0.3
    async with serving(app) as connect:
        slow = await connect()
        await slow.send_all(GET)
        await app.started.wait()
        app.pieces = [b"hello"]
        quick = await connect()
        await quick.send_all(GET)
        await until(quick)
        while len(app.ended) < 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert sorted(app.ended) == ["done", "late"]
        got = 0
        with suppress(trio.BrokenResourceError):
            while data := await slow.receive_some():
                got += len(data)
        assert got < HUGE  # it is cut off, and not left waiting


async def test_a_slow_client_gets_all_of_it() -> None:
    app = App()
    app.pieces = [b"\1" * (HUGE // 8), b"\2" * (HUGE // 8)]
    async with serving(app) as connect:
        stream = await connect()
        await stream.send_all(GET)
        await app.started.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        answer = await until(stream)
    assert answer.count(b"\1") == answer.count(b"\2") == HUGE // 8


async def test_an_idle_connection_ends_and_a_busy_one_does_not() -> None:
    app = App()
    app.go_on = trio.Event()
    async with serving(app, keep_alive_s=0.1) as connect:
        stream = await connect()
        await stream.send_all(GET)
        await app.started.wait()
        await trio.sleep(0.3)
        app.go_on.set()
        await until(stream)
        await stream.send_all(GET)
        await until(stream)
        assert await stream.receive_some() == b""
        assert await (await connect()).receive_some() == b""  # nor one that asked nothing


async def test_a_stop_ends_idle_connections_and_lets_a_request_end() -> None:
    app = App()
    app.go_on = trio.Event()
    async with trio.open_nursery() as nursery, serving(app) as connect:
        idle, busy = await connect(), await connect()
        await busy.send_all(GET)
        await app.started.wait()

        async def end() -> None:
            assert await idle.receive_some() == b""
            app.go_on.set()
            await until(busy)

        nursery.start_soon(end)
    assert app.ended == ["done"]
