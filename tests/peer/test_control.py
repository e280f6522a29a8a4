"""The control socket: lines of JSON, whatever a local client sends or does not send.

Source: peer/control.py.
"""

import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.control import (
    LINE_BYTES_MAX,
    SOCKET_FILE,
    Answer,
    Json,
    call_control,
    daemon_answers,
    serve_control,
)
from protocol.errors import ConfigError, NetworkError, StorageError

PATIENCE_S = 30


class Methods:
    """What the tests call, and what became of it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.cancelled = trio.Event()

    async def echo(self, params: Json, answer: Answer) -> None:
        """The parameters back, one line each."""
        for key, value in params.items():
            await answer({key: value})

    async def wait(self, params: Json, answer: Answer) -> None:
        """Forever."""
        self.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()

    async def refuse(self, params: Json, answer: Answer) -> None:
        """One answer, then an error."""
        await answer({"before": 1})
        raise ConfigError("config.bad_value", "so it is")

    async def refuse_deeply(self, params: Json, answer: Answer) -> None:
        """An error out of two nurseries."""
        async with trio.open_nursery(), trio.open_nursery():
            raise StorageError("storage.io", "disk")


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Methods]:
    """A control socket in `directory`."""
    methods = Methods()
    table = {
        "echo": methods.echo,
        "wait": methods.wait,
        "refuse": methods.refuse,
        "refuse_deeply": methods.refuse_deeply,
    }
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, directory, table)
            yield methods
            nursery.cancel_scope.cancel()


async def talk(directory: Path, data: bytes) -> list[Json]:
    """All lines that come back for these bytes; the end of ours is not said."""
    stream = await trio.open_unix_socket(str(directory / SOCKET_FILE))
    received = b""
    async with stream:
        await stream.send_all(data)
        while part := await stream.receive_some():
            received += part
    return [json.loads(line) for line in received.splitlines()]


async def call(directory: Path, method: str, **params: Any) -> list[Json]:
    """What `call_control` passes on."""
    lines: list[Json] = []
    await call_control(directory, method, params, lines.append)
    return lines


async def test_answers_are_lines_and_an_end(tmp_path: Path) -> None:
    """Each answer is one line, the last says that it is; text is carried as it is."""
    async with serving(tmp_path):
        text = 'two\nlines, "quotes", \u2028 and 😀'
        lines = await talk(
            tmp_path,
            json.dumps({"method": "echo", "params": {"a": 1, "b": text}}).encode() + b"\n",
        )
        assert lines == [{"a": 1}, {"b": text}, {"end": True}]
        assert await call(tmp_path, "echo", a=1, b=text) == lines[:-1]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b'"text"',
        b"[" * 200_000,
        b"9" * 10_000,
        b"{}",
        b'{"method": "nope"}',
        b'{"method": ["echo"]}',
        b'{"method": "echo", "params": [1]}',
    ],
    ids=lambda line: repr(line[:20]),
)
async def test_nonsense_is_refused_and_the_next_client_served(tmp_path: Path, line: bytes) -> None:
    """One line with a code; the socket goes on."""
    async with serving(tmp_path):
        (answer,) = await talk(tmp_path, line + b"\n")
        assert (answer["error"], answer["end"]) == ("control.bad_request", True)
        assert await call(tmp_path, "echo", a=1) == [{"a": 1}]


async def test_line_without_end_is_bounded(tmp_path: Path) -> None:
    """A client that never ends its line is let go at the limit; the socket goes on."""
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / SOCKET_FILE))
        sent = 0
        with suppress(trio.BrokenResourceError):
            while sent < 4 * LINE_BYTES_MAX:
                await stream.send_all(b"x" * 65_536)
                sent += 65_536
        await stream.aclose()
        assert (
            LINE_BYTES_MAX <= sent <= LINE_BYTES_MAX + 1_048_576
        )  # what the system's own buffers hold
        assert await call(tmp_path, "echo", a=1) == [{"a": 1}]


async def test_longest_prompt_fits_in_a_line(tmp_path: Path) -> None:
    """256 Ki characters, each escaped to six bytes."""
    async with serving(tmp_path):
        prompt = "\x01" * (256 * 1024)
        assert await call(tmp_path, "echo", prompt=prompt) == [{"prompt": prompt}]


async def test_client_that_leaves_cancels_its_method(tmp_path: Path) -> None:
    """Nobody is left to answer: the request must not go on costing money."""
    async with serving(tmp_path) as methods:
        stream = await trio.open_unix_socket(str(tmp_path / SOCKET_FILE))
        await stream.send_all(b'{"method": "wait"}\n')
        await methods.entered.wait()
        assert not methods.cancelled.is_set()
        await stream.aclose()
        await methods.cancelled.wait()
        assert await call(tmp_path, "echo", a=1) == [{"a": 1}]


@pytest.mark.parametrize(
    ("method", "code", "detail"),
    [("refuse", "config.bad_value", "so it is"), ("refuse_deeply", "storage.io", "disk")],
)
async def test_errors_keep_their_code(tmp_path: Path, method: str, code: str, detail: str) -> None:
    """What a method raises comes out of the call as its code and detail."""
    async with serving(tmp_path):
        lines: list[Json] = []
        with pytest.raises(NetworkError) as caught:
            await call_control(tmp_path, method, {}, lines.append)
        assert (caught.value.code, caught.value.detail) == (code, detail)
        assert lines == ([{"before": 1}] if method == "refuse" else [])


async def test_error_of_a_newer_daemon_is_not_fatal(tmp_path: Path) -> None:
    """A code that this version does not know is still an error of the table."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / SOCKET_FILE))
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(65_536)
        connection.sendall(b'{"end": true, "error": "future.code", "detail": "?"}\n')
        connection.close()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, answer)
            with pytest.raises(NetworkError, match=r"control\.bad_request"):
                await call(tmp_path, "status")
    listener.close()


async def test_daemon_that_goes_away_is_an_error(tmp_path: Path) -> None:
    """The answers end without the last line."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery, serving(tmp_path) as methods:

            async def wait() -> None:
                with pytest.raises(NetworkError, match=r"control\.unavailable"):
                    await call(tmp_path, "wait")

            nursery.start_soon(wait)
            await methods.entered.wait()


async def test_only_the_owner_may_open_it(tmp_path: Path) -> None:
    """Mode 0600 from the start, and gone when the daemon is."""
    async with serving(tmp_path):
        mode = (tmp_path / SOCKET_FILE).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / SOCKET_FILE).exists()


@pytest.mark.parametrize("left", ["nothing", "socket", "file"])
async def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path, left: str) -> None:
    """No daemon answers there, and a new one takes its place."""
    if left == "socket":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(str(tmp_path / SOCKET_FILE))
    elif left == "file":
        (tmp_path / SOCKET_FILE).write_text("")
    assert not await daemon_answers(tmp_path)
    with pytest.raises(NetworkError, match=r"control\.unavailable"):
        await call(tmp_path, "status")
    async with serving(tmp_path):
        assert await daemon_answers(tmp_path)
        assert await call(tmp_path, "echo", a=1) == [{"a": 1}]


async def test_path_longer_than_a_socket_can_have(tmp_path: Path) -> None:
    """Said as a wrong setting, by every use of the path."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    for use in (daemon_answers(deep), serve_control(deep, {}), call(deep, "status")):
        with pytest.raises(ConfigError, match="107 bytes"):
            await use
