"""How a client reaches a node: its control socket, or its methods in the same process."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import trio

from peer.control import Method, open_call
from protocol.errors import NetworkError, PeerdError

Json = dict[str, Any]


class Line(Protocol):
    """A way to call a node's methods, those of `peer.service.control_methods`."""

    def call(self, method: str, params: Json) -> AbstractAsyncContextManager[AsyncIterator[Json]]:
        """A call's answers as they come; leaving early cancels it. PeerdError."""
        ...


class SocketLine:
    """To the daemon of a data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def call(self, method: str, params: Json) -> AbstractAsyncContextManager[AsyncIterator[Json]]:
        """As `Line.call`; NetworkError `control.unavailable` when no daemon answers."""
        return open_call(self.directory, method, params)


class DirectLine:
    """To a daemon of this process: calls run in its nursery."""

    def __init__(self, methods: dict[str, Method], nursery: trio.Nursery) -> None:
        self._methods = methods
        self._nursery = nursery

    @asynccontextmanager
    async def call(self, method: str, params: Json) -> AsyncIterator[AsyncIterator[Json]]:
        """As `Line.call`; NetworkError `control.bad_request` for an unknown method."""
        found = self._methods.get(method)
        if found is None:
            raise NetworkError("control.bad_request", method[:40])
        send, receive = trio.open_memory_channel[Json | PeerdError](0)
        scope = trio.CancelScope()

        async def run() -> None:
            async with send:
                with scope:
                    try:
                        await found(params, send.send)
                    except PeerdError as error:
                        await send.send(error)

        self._nursery.start_soon(run)
        try:
            yield _Answers(receive)
        finally:
            scope.cancel()


class _Answers:
    """What a method says, or raises."""

    def __init__(self, receive: trio.MemoryReceiveChannel[Json | PeerdError]) -> None:
        self._receive = receive

    def __aiter__(self) -> "_Answers":
        return self

    async def __anext__(self) -> Json:
        try:
            value = await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        if isinstance(value, PeerdError):
            raise value
        return value
