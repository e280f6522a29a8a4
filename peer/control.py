"""The daemon's local socket: commands in, events out, as lines of JSON on a unix socket.

A request is `{"method": NAME, "params": {...}}`; the answer is any number of lines, the last
one with `"end": true`. The socket lives in the data directory with mode 0600: whoever can open
it owns the node. Knows nothing of the market.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from peer.errors import first_error
from protocol.errors import CODES, ConfigError, NetworkError, PeerdError

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()

SOCKET_FILE: Final = "control.sock"
# A prompt is at most 256 Ki characters, six bytes each when escaped.
LINE_BYTES_MAX: Final = 2 * 1024 * 1024
CLIENTS_MAX: Final = 64
# struct sockaddr_un holds 108 bytes with the final zero (man 7 unix).
PATH_BYTES_MAX: Final = 107

Json = dict[str, Any]
Answer = Callable[[Json], Awaitable[None]]
Method = Callable[[Json, Answer], Awaitable[None]]


def socket_path(directory: Path) -> Path:
    """Where the daemon of a data directory listens. ConfigError when the path is too long."""
    path = directory / SOCKET_FILE
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        detail = f"{path}: a socket's path has at most {PATH_BYTES_MAX} bytes"
        raise ConfigError("config.bad_value", detail)
    return path


class _Lines:
    """Lines of JSON objects from a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> Json | None:
        """The next object; None at the end. NetworkError `control.bad_request`."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise NetworkError("control.bad_request", "the line is too long")
            data = await self._stream.receive_some(65_536)
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise NetworkError("control.bad_request", "not JSON") from error
        if not isinstance(value, dict):
            raise NetworkError("control.bad_request", "not an object")
        return value


async def serve_control(
    directory: Path,
    methods: dict[str, Method],
    *,
    task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; a client that leaves cancels its method.

    The log's lock says that no other daemon runs here, so a socket file found is a dead one's.
    """
    path = socket_path(directory)
    path.unlink(missing_ok=True)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        await listener.bind(os.fspath(path))
    finally:
        os.umask(previous)
    listener.listen(CLIENTS_MAX)
    clients = trio.CapacityLimiter(CLIENTS_MAX)

    async def handle(stream: trio.SocketStream) -> None:
        async with clients, stream:
            try:
                await _serve_client(stream, methods)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("control.client_gone")

    try:
        task_status.started()
        await trio.serve_listeners(handle, [trio.SocketListener(listener)])
    finally:
        path.unlink(missing_ok=True)


async def _serve_client(stream: trio.SocketStream, methods: dict[str, Method]) -> None:
    lines = _Lines(stream)

    async def answer(value: Json) -> None:
        await stream.send_all(json.dumps(value).encode() + b"\n")

    try:
        request = await lines.next()
        if request is None:
            return
        method = methods.get(str(request.get("method")))
        params = request.get("params", {})
        if method is None or not isinstance(params, dict):
            raise NetworkError("control.bad_request", str(request.get("method"))[:40])
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await lines.next()  # clients say nothing more: this returns when they leave
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await method(params, answer)
            nursery.cancel_scope.cancel()
        await answer({"end": True})
    except* PeerdError as group:
        error = first_error(group)
        assert isinstance(error, PeerdError)
        await answer({"end": True, **error.report()})


class _Answers:
    """A call's answers as they come. NetworkError: the daemon's code, or
    `control.unavailable` when it goes away."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    def __aiter__(self) -> "_Answers":
        return self

    async def __anext__(self) -> Json:
        try:
            value = await self._lines.next()
        except trio.BrokenResourceError:
            value = None
        if value is None:
            raise NetworkError("control.unavailable", "the daemon went away")
        if "error" in value:
            raise NetworkError(_known(value["error"]), str(value.get("detail", "")))
        if value.get("end"):
            raise StopAsyncIteration
        return value


@asynccontextmanager
async def open_call(
    directory: Path, method: str, params: Json
) -> AsyncIterator[AsyncIterator[Json]]:
    """A call of a running daemon: its answers as they come; leaving early cancels it.

    NetworkError: `control.unavailable` when no daemon answers or it goes away meanwhile, else
    the code of the daemon's error.
    """
    path = socket_path(directory)
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except OSError as error:
        raise NetworkError("control.unavailable", str(directory)) from error
    async with stream:
        request = json.dumps({"method": method, "params": params})
        try:
            await stream.send_all(request.encode() + b"\n")
        except trio.BrokenResourceError as error:
            raise NetworkError("control.unavailable", "the daemon went away") from error
        yield _Answers(_Lines(stream))


async def call_control(
    directory: Path, method: str, params: Json, on_line: Callable[[Json], None]
) -> None:
    """Call a running daemon and pass on its answers, as they come. NetworkError as `open_call`."""
    async with open_call(directory, method, params) as answers:
        async for value in answers:
            on_line(value)


async def daemon_answers(directory: Path) -> bool:
    """Whether a daemon serves this data directory; a killed one leaves its socket behind."""
    path = socket_path(directory)
    if not path.exists():
        return False
    try:
        stream = await trio.open_unix_socket(os.fspath(path))
    except OSError:
        return False
    await stream.aclose()
    return True


def _known(code: Any) -> str:
    """The daemon may be newer than this command."""
    return code if code in CODES else "control.bad_request"
