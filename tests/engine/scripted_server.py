"""A real HTTP server on loopback that answers as its script says, byte by byte.

It speaks just enough HTTP/1.1 for one client: a request with a Content-Length, one answer a
connection. What a script does to the stream is up to it: stop, break off, never answer.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import trio

Json = dict[str, Any]
KEY = "sk-very-secret-0123456789"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@dataclass
class Exchange:
    """One request, and the connection to answer it on."""

    path: str
    headers: dict[str, str]
    body: Json
    stream: trio.SocketStream

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def events(self, *payloads: object) -> None:
        """Each as one server-sent event: JSON, or text as it is."""
        for payload in payloads:
            text = payload if isinstance(payload, str) else json.dumps(payload)
            await self.send(f"data: {text}\n\n".encode())

    async def refuse(self, status: int, body: object = None, *headers: str) -> None:
        content = json.dumps(body).encode() if not isinstance(body, bytes) else body
        lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(content)}", "Connection: close"]
        await self.send("\r\n".join([*lines, *headers, "", ""]).encode() + content)

    async def wait_left(self) -> None:
        """Until the client has closed the connection."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some():
                pass


Handler = Callable[[Exchange], Awaitable[None]]


@dataclass
class ScriptedServer:
    """`answer` handles every request; `seen` keeps them."""

    url: str
    answer: Handler
    seen: list[Exchange] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            data = await stream.receive_some()
            if not data:
                return
            raw += data
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        while len(rest) < int(headers["content-length"]):
            rest += await stream.receive_some()
        exchange = Exchange(first.split()[1], headers, json.loads(rest), stream)
        self.seen.append(exchange)
        with suppress(trio.BrokenResourceError):  # the client left
            await self.answer(exchange)


def text(content: str, **more: object) -> Json:
    """A chunk of a chat with text."""
    return {"choices": [{"index": 0, "delta": {"content": content}, **more}]}


def end(reason: str = "stop") -> Json:
    """The chunk that ends a chat."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def usage(prompt: int, completion: int) -> Json:
    """What include_usage asks for."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


async def greet(exchange: Exchange) -> None:
    """An answer of three chunks, as vLLM and llama-server give it."""
    await exchange.send(HEAD)
    role: Json = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}
    await exchange.events(role, text("Hel"), text("lo"), text("!"), end(), usage(11, 3), "[DONE]")


@asynccontextmanager
async def open_server(answer: Handler = greet) -> AsyncIterator[ScriptedServer]:
    """A server on a port that the system chooses."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        server = ScriptedServer(f"http://127.0.0.1:{port}/v1", answer)
        serve = trio.serve_listeners
        nursery.start_soon(serve, server.handle, [listener])
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()
