"""hypercorn 0.18.0's HTTP/1.1 with fewer waits: what is replaced, here alone, and why.

Stock lets all other tasks run at each lock, each piece of a body and each write, also when none
has to wait: a third of what a request costs at the gateway. What goes over the wire is the same.
`install` is idempotent and process-wide; each class has a test in
tests/peer/gateway/test_direct_http.py.
"""

import math
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

import hypercorn.protocol as protocol
import hypercorn.trio.run as run
import hypercorn.trio.tcp_server as tcp_server
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.trio.tcp_server import TCPServer

_READ_BYTES: Final = 64 * 1024
_FINAL: Final = 200  # statuses from here on are answers, not news of one

Put = Callable[[Any], Awaitable[None]]


class DirectTasks(TaskGroup):
    """Passes requests to their applications; waits only for one that is behind."""

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Put:
        """Start an application; what it gets is put by the result."""
        events, waiting = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def put(event: Any) -> None:
            try:
                events.send_nowait(event)
            except trio.WouldBlock:
                await events.send(event)

        async def receive() -> Any:
            try:
                return waiting.receive_nowait()
            except trio.WouldBlock:
                return await waiting.receive()

        assert self._nursery is not None
        threads = trio.to_thread.run_sync, trio.from_thread.run
        self._nursery.start_soon(_handle, app, config, scope, receive, send, *threads)
        return put


class DirectProtocol(H11Protocol):
    """Writes the head of an answer with the first of its body, as ASGI wants it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pass_on, self.send = self.send, self._send
        self._is_head = False
        self._head = b""

    async def stream_send(self, event: Any) -> None:
        """What an application sends."""
        self._is_head = isinstance(event, Response) and event.status_code >= _FINAL
        await super().stream_send(event)

    async def _send(self, event: Event) -> None:
        if self._is_head and isinstance(event, RawData):
            self._is_head, self._head = False, event.data
            return
        if self._head:
            head, self._head = self._head, b""
            if isinstance(event, RawData):
                event = RawData(head + event.data)
            else:
                await self._pass_on(RawData(head))
        await self._pass_on(event)


class IdleClock:
    """Ends a connection that asks nothing for a time: one task, whose deadline is moved.

    Stock starts a task at the end of each request, and cancels it when the next begins.
    """

    def __init__(self, server: "DirectServer") -> None:
        self._server = server
        self._scope: trio.CancelScope | None = None
        self._busy = self._ended = False

    async def restart(self, tasks: TaskGroup, action: Any) -> None:
        """Nothing is asked from now on."""
        self._busy = False
        if self._scope is None and not self._ended:
            self._scope = trio.CancelScope()
            tasks.spawn(self._watch, self._scope)
        if self._scope is not None:
            late_s = self._server.config.keep_alive_timeout
            self._scope.deadline = trio.current_time() + late_s

    async def stop(self) -> None:
        """A request has come."""
        self._busy = True
        if self._scope is not None:
            self._scope.deadline = math.inf

    def end(self) -> None:
        """The connection is at its end."""
        self._ended = True
        if self._scope is not None:
            self._scope.cancel()

    async def _watch(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._server.context.terminated.wait()
        self._scope = None
        # Where the server stops, a request that still runs is answered, and ends it then.
        if not self._busy and not self._ended:
            with trio.CancelScope(shield=True):
                await self._server._initiate_server_close()


class DirectServer(TCPServer):
    """One connection. Writes at once what the socket takes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle_task: Any = IdleClock(self)

    async def protocol_send(self, event: Event) -> None:
        """What goes to the client, or happens to the connection."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if not event.data:
            return
        try:
            self.send_lock.acquire_nowait()
        except trio.WouldBlock:
            await self.send_lock.acquire()
        try:
            await self._write(event.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        finally:
            self.send_lock.release()

    async def _write(self, data: bytes) -> None:
        """Write all of it, or close the connection when that is cancelled: stock can't be, so that
        a client which takes nothing is waited for until it leaves."""
        try:
            written = os.write(self.stream.socket.fileno(), data)  # type: ignore[attr-defined]
        except OSError:  # full, broken or closed: `send_all` says which
            written = 0
        if written < len(data):
            try:
                await self.stream.send_all(data[written:])
            except trio.Cancelled:
                await trio.aclose_forcefully(self.stream)
                raise

    async def _read_data(self) -> None:
        """Read until the client has no more to say."""
        data = b"-"
        while data:
            try:
                data = bytes(await self.stream.receive_some(_READ_BYTES))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        self.idle_task.end()


_REPLACED: Final = (
    (protocol, "H11Protocol", DirectProtocol),
    (tcp_server, "TaskGroup", DirectTasks),
    (run, "TCPServer", DirectServer),
)


def install() -> None:
    """Replace them; they are named where they are used, so that no option reaches them."""
    for module, name, own in _REPLACED:
        setattr(module, name, own)
