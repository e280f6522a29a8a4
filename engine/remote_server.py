"""HTTP to one server of completions: one streamed request, bounded, its failures as codes.

Knows status codes and timeouts, not what an answer means. The key is in one header and in
no message. Rule: engine/README.md, "Remote".
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from engine.completions import Answer
from engine.sse import EventStream
from protocol import limits
from protocol.errors import EngineError
from protocol.units import NS_PER_S

BUSY = 429
DENIED = (401, 403)
NOT_FOUND = 404
BAD_REQUEST = (400, 413, 422)
LATE = (408, 504)


class Retryable(EngineError):
    """Asking again may help; after `pause_ns` where the server said so (0: it did not)."""

    def __init__(self, code: str, detail: str, pause_ns: int = 0) -> None:
        super().__init__(code, detail)
        self.pause_ns = pause_ns


class RemoteServer:
    """One server; `open` holds its connections for the length of a block."""

    def __init__(self, url: str, key: str, connections: int) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    @property
    def is_readable_by_others(self) -> bool:
        """Whether a key goes unencrypted to another machine."""
        url = httpx.URL(self._url)
        here = url.host in ("localhost", "127.0.0.1", "::1")
        return bool(self._key) and url.scheme == "http" and not here

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connections are made as requests need them, and kept."""
        # An answer is not compressed: a bound on its bytes is then a bound on its text.
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = httpx.Timeout(
            limits.REMOTE_SILENCE_NS_MAX / NS_PER_S,
            connect=limits.REMOTE_CONNECT_NS_MAX / NS_PER_S,
            pool=None,
        )
        # One more than the places: the probe's.
        most = httpx.Limits(max_connections=self._connections + 1)
        async with httpx.AsyncClient(
            headers=headers,
            timeout=timeout,
            limits=most,
            # The key goes where the operator said: no redirects, no proxies or passwords of
            # the environment.
            follow_redirects=False,
            trust_env=False,
        ) as client:
            self._client = client
            try:
                yield
            finally:
                self._client = None

    async def stream(self, path: str, body: dict[str, Any], answer: Answer) -> None:
        """Ask, and feed the answer until it is over; cancelling closes the connection.

        EngineError by what went wrong, Retryable where asking again may help.
        """
        try:
            async with self._asked(path, body) as response:
                await _read(response, answer)
        except httpx.HTTPError as error:
            # An answer that is complete stays so, whatever comes after it.
            if answer.reason is None:
                raise self._failure(error) from None

    async def post(self, path: str, body: dict[str, Any]) -> bytes:
        """Ask for an answer in one piece; errors as `stream`."""
        data = bytearray()
        try:
            async with self._asked(path, body) as response:
                async for more in response.aiter_bytes():
                    data += more
                    if len(data) > limits.REMOTE_ANSWER_BYTES_MAX:
                        raise EngineError("engine.remote_failed", "its answer is too long")
        except httpx.HTTPError as error:
            raise self._failure(error) from None
        return bytes(data)

    @asynccontextmanager
    async def _asked(self, path: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response to a request that is not refused."""
        if self._client is None:
            raise EngineError("engine.remote_failed", "the engine is stopping")
        content = msgspec.json.encode(body)
        kind = {"Content-Type": "application/json"}
        async with self._client.stream(
            "POST", self._url + path, content=content, headers=kind
        ) as response:
            if response.status_code != httpx.codes.OK:
                raise self._refusal(response, await _start_of(response))
            yield response

    def _failure(self, error: httpx.HTTPError) -> EngineError:
        """What a failure on the way means."""
        if isinstance(error, httpx.ConnectTimeout):
            return Retryable("engine.timeout", "no connection in time")
        if isinstance(error, httpx.TimeoutException):
            return EngineError("engine.timeout", "it fell silent")
        detail = f"{type(error).__name__}: {self._readable(str(error))}"
        return Retryable("engine.remote_failed", detail)

    def _refusal(self, response: httpx.Response, body: bytes) -> EngineError:
        """What a status means; details are the server's words, without the key."""
        status = response.status_code
        said = f"status {status}: {self._readable(_message(body))}"
        if status in DENIED:
            # Servers repeat parts of a key that they don't like.
            return EngineError("engine.remote_denied", f"status {status}")
        if status in BAD_REQUEST:
            too_long = status == 413 or "context" in said.lower()
            return EngineError("engine.prompt_too_long" if too_long else "engine.bad_spec", said)
        if status == NOT_FOUND:
            return EngineError("engine.remote_failed", f"{said}; check url and model")
        if status == BUSY:
            pause_ns = _retry_after_ns(response)
            if pause_ns > limits.REMOTE_RETRY_AFTER_NS_MAX:
                return EngineError("engine.overloaded", said)
            return Retryable("engine.overloaded", said, pause_ns)
        if status in LATE:
            return Retryable("engine.timeout", said)
        if status >= 500:
            return Retryable("engine.remote_failed", said)
        return EngineError("engine.remote_failed", said)

    def _readable(self, text: str) -> str:
        """One line of printable text, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        line = " ".join(text.split())[:160]
        return "".join(letter if letter.isprintable() else "?" for letter in line)


async def _read(response: httpx.Response, answer: Answer) -> None:
    kind = response.headers.get("content-type", "")
    encoding = response.headers.get("content-encoding", "identity")
    if not kind.startswith("text/event-stream") or encoding != "identity":
        raise EngineError("engine.remote_failed", "it does not answer with a plain event stream")
    events = EventStream()
    size = 0
    async for data in response.aiter_raw():
        size += len(data)
        if size > limits.REMOTE_ANSWER_BYTES_MAX:
            raise EngineError("engine.remote_failed", "its answer is too long")
        for event in events.push(data):
            answer.take(event)
            if answer.is_over:
                return
    for event in events.end():
        answer.take(event)
    if not answer.is_over:
        answer.end()


async def _start_of(response: httpx.Response) -> bytes:
    """As much of a body as says what is wrong."""
    body = b""
    async for data in response.aiter_raw():
        body += data
        if len(body) > limits.REMOTE_ERROR_BYTES_MAX:
            break
    return body[: limits.REMOTE_ERROR_BYTES_MAX]


def _message(body: bytes) -> str:
    """The server's reason: `error.message`, `error`, `detail` or `message` of a JSON object."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "no reason given"
    for key in ("error", "detail", "message"):
        value = found.get(key) if isinstance(found, dict) else None
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str):
            return value
    return "no reason given"


def _retry_after_ns(response: httpx.Response) -> int:
    """Retry-After in seconds; 0 when it is absent or a date."""
    text = response.headers.get("retry-after", "")
    return int(text) * NS_PER_S if text.isascii() and text.isdigit() and len(text) < 9 else 0
