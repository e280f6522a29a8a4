"""One HTTP request's life on the market: asks out, events in, an answer or an error.

Nothing is answered before the first text: until then a failure still has its real status. A
client that leaves, or takes nothing for too long, cancels its jobs and stops paying.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import msgspec
import trio
from starlette.types import Receive, Scope, Send

from peer.asking import current_key
from peer.errors import first_error
from peer.gateway.answers import Choice, Json, Shape
from peer.gateway.asks import Wanted
from peer.gateway.failures import ApiError, error_headers, error_json, failure, status_of
from peer.identity import peer_id
from protocol import limits
from protocol.errors import PeerdError
from router import actions, events


class Market(Protocol):
    """What the gateway needs of a node; `peer.daemon.Daemon` is one."""

    def new_ask_id(self) -> int:
        """A number for the next Ask."""
        ...

    def ask(self, ask: actions.Ask) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Any]]:
        """The events of one request, to its end; leaving early cancels the request."""
        ...

    async def wait_connected(self, timeout_s: float) -> bool:
        """Until somebody listens on the topic."""
        ...


Event = tuple[int, events.AskEvent]


async def while_there(receive: Receive, run: Callable[[], Awaitable[None]]) -> None:
    """Run, but no longer than the client is there."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await run()
        nursery.cancel_scope.cancel()


class Exchange:
    """An ASGI response that runs a checked request on the market."""

    def __init__(self, market: Market, wanted: Wanted, leave: Callable[[], None]) -> None:
        self._market = market
        self._wanted = wanted
        self._leave = leave
        self._shape = Shape(wanted, int(time.time()))
        self._choices = [Choice(index) for index in range(len(wanted.asks))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; returns early when the client is gone."""
        try:
            await while_there(receive, partial(self._run, _Sender(send)))
        finally:
            self._leave()

    async def _run(self, sender: "_Sender") -> None:
        answer = self._stream if self._wanted.stream else self._collect
        key = current_key.get()
        asks = [
            replace(ask, ask_id=self._market.new_ask_id(), key=key) for ask in self._wanted.asks
        ]
        try:
            if len(asks) == 1:  # nothing to merge
                async with self._market.ask(asks[0]) as stream:
                    await answer(_events(stream), sender)
                return
            merged, receive = trio.open_memory_channel[Event](0)
            # A choice that nobody takes from any more is cancelled, not broken.
            async with receive, trio.open_nursery() as nursery:
                async with merged:
                    for index, ask in enumerate(asks):
                        nursery.start_soon(self._follow, index, ask, merged.clone())
                await answer(receive, sender)
                nursery.cancel_scope.cancel()
        except* PeerdError as group:
            error = first_error(group)
            assert isinstance(error, PeerdError)
            if isinstance(error, ApiError):
                error.paid_ucr = sum(choice.paid_ucr for choice in self._choices)
            failed = [choice for choice in self._choices if choice.failed is not None]
            await sender.fail(error, _names(*failed[:1] or self._choices[:1]))

    async def _follow(
        self, index: int, ask: actions.Ask, merged: trio.MemorySendChannel[Event]
    ) -> None:
        async with merged, self._market.ask(ask) as stream:
            async for event in stream:
                await merged.send((index, event))

    def _take(self, index: int, event: events.AskEvent) -> Choice:
        choice = self._choices[index]
        choice.add(event)
        if isinstance(event, events.Failed):
            raise failure(event)
        return choice

    async def _collect(self, receive: AsyncIterator[Event], sender: "_Sender") -> None:
        async for index, event in receive:
            self._take(index, event)
        await sender.whole(self._shape.whole(self._choices), self._headers(final=True))

    async def _stream(self, receive: AsyncIterator[Event], sender: "_Sender") -> None:
        opened: set[int] = set()
        async for index, event in receive:
            choice = self._take(index, event)
            if not isinstance(event, events.Text | events.Done):
                continue
            parts: list[Json] = []
            if index not in opened:
                opened.add(index)
                parts += self._shape.first(index)
            if isinstance(event, events.Text):
                parts += self._shape.text(index, event)
            else:
                parts += self._shape.last(choice)
            if not sender.started:
                await sender.start_stream(self._headers(final=False))
            await sender.parts(parts)
        await sender.end_stream(self._shape.usage_part(self._choices))

    def _headers(self, *, final: bool) -> dict[str, str]:
        headers = _names(self._choices[0])
        if final:
            reports = [choice.report() for choice in self._choices]
            headers["x-peerd-cost-ucr"] = str(sum(report["cost_ucr"] for report in reports))
            receipts = [one for choice in self._choices for one in choice.receipt_ids()]
            headers["x-peerd-receipt"] = ", ".join(receipts)
        return headers


async def _events(stream: trio.MemoryReceiveChannel[Any]) -> AsyncIterator[Event]:
    """The events of an only choice; where there are some, nobody else runs first."""
    with suppress(trio.EndOfChannel):
        while True:
            try:
                event = stream.receive_nowait()
            except trio.WouldBlock:
                event = await stream.receive()
            yield 0, event


class _Sender:
    """Writes one response, each piece within a time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def _write(self, message: dict[str, Any]) -> None:
        with trio.fail_after(limits.API_SEND_TIMEOUT_S):
            await self._send(message)

    async def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.started = True
        named = {"content-type": kind, "cache-control": "no-store", **headers}
        raw = [(name.encode(), value.encode()) for name, value in named.items()]
        await self._write({"type": "http.response.start", "status": status, "headers": raw})

    async def whole(self, value: Json, headers: dict[str, str], status: int = 200) -> None:
        """One JSON object."""
        body = msgspec.json.encode(value)
        headers = {**headers, "content-length": str(len(body))}
        await self._start(status, "application/json", headers)
        await self._write({"type": "http.response.body", "body": body})

    async def start_stream(self, headers: dict[str, str]) -> None:
        """The head of a stream of events."""
        await self._start(200, "text/event-stream; charset=utf-8", headers)

    async def parts(self, parts: list[Json]) -> None:
        """Events, if there are any."""
        if parts:
            body = b"".join(_event(part) for part in parts)
            await self._write({"type": "http.response.body", "body": body, "more_body": True})

    async def end_stream(self, parts: list[Json]) -> None:
        """The last events and the mark that says so."""
        body = b"".join(_event(part) for part in parts) + b"data: [DONE]\n\n"
        await self._write({"type": "http.response.body", "body": body})

    async def fail(self, error: PeerdError, names: dict[str, str]) -> None:
        """The error as a response, or as the last event of a stream that has begun, whose head
        had the names."""
        param = error.param if isinstance(error, ApiError) else None
        value = error_json(error.code, error.detail, param)
        if self.started:
            await self._write({"type": "http.response.body", "body": _event(value)})
            return
        await self.whole(value, {**names, **error_headers(error)}, status_of(error.code))


def _names(choice: Choice) -> dict[str, str]:
    """Headers that say which request it was, if one was made, and who was last awarded it."""
    headers = {"x-request-id": choice.request_id.hex()} if choice.request_id else {}
    if choice.provider:
        headers["x-peerd-provider"] = peer_id(choice.provider)
    return headers


def _event(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
