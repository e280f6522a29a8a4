"""`Idempotency-Key`: the same key gives the same answer, byte for byte, and one bill.

The first request with a key runs to its end, whether its client stays or not, and its answer is
recorded; later ones, and those that come meanwhile, are played the recording. In memory: after a
restart a key is new. Rule: peer/gateway/README.md, "Once".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peer.gateway.app import error_response
from peer.gateway.failures import ApiError
from protocol import limits
from protocol.crypto import digest
from protocol.errors import PeerdError

_HEADER: Final = b"idempotency-key"
_COST: Final = b"x-peerd-cost-ucr"
_REPLAYED: Final = (b"idempotent-replayed", b"true")
_KEPT_S: Final = 24 * 3_600.0


@dataclass(slots=True)
class Recording:
    """An answer as it was made; `done` when all of it is there."""

    body: bytes
    began_s: float
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    done: bool = False
    _more: trio.Event = field(default_factory=trio.Event)

    def add(self, message: Message) -> None:
        """The next message of the answer."""
        self.messages.append(message)
        self.size += len(message.get("body", b""))
        self._wake()

    def finish(self) -> None:
        """There is no more."""
        self.done = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    @property
    def lasts(self) -> bool:
        """Whether a retry should get it: an answer, or a failure that was paid for."""
        if not self.messages or self.messages[0]["type"] != "http.response.start":
            return False
        start = self.messages[0]
        return start["status"] < 400 or any(name == _COST for name, _ in start["headers"])

    async def play(self, send: Send, extra: Sequence[tuple[bytes, bytes]]) -> None:
        """Send what there is, and what comes, to one client."""
        sent = 0
        while True:
            more = self._more
            while sent < len(self.messages):
                message = self.messages[sent]
                if sent == 0:
                    message = {**message, "headers": [*message["headers"], *extra]}
                with trio.fail_after(limits.API_SEND_TIMEOUT_S):
                    await send(message)
                sent += 1
            if self.done:
                return
            await more.wait()


class Once:
    """Runs requests that have a key in a nursery of the server; passes on all others."""

    def __init__(self, app: ASGIApp, start: Callable[..., None]) -> None:
        self._app = app
        self._start = start
        self._recordings: dict[tuple[str, bytes], Recording] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        key = b""
        if scope["type"] == "http" and scope["method"] == "POST":
            key = {name.lower(): value for name, value in scope["headers"]}.get(_HEADER, b"")
        if not key:
            await self._app(scope, receive, send)
            return
        try:
            body = await _whole_body(receive)
            if body is None:
                return
            recording, extra = self._recording(scope, key, body)
        except PeerdError as error:
            await error_response(error)(scope, receive, send)
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await recording.play(send, extra)
            nursery.cancel_scope.cancel()

    def _recording(
        self, scope: Scope, key: bytes, body: bytes
    ) -> tuple[Recording, Sequence[tuple[bytes, bytes]]]:
        if len(key) > limits.API_KEY_BYTES_MAX:
            raise ApiError("api.bad_request", "Idempotency-Key is too long")
        name = (scope["path"], key)
        self._forget()
        found = self._recordings.get(name)
        if found is not None:
            if found.body != digest(body):
                raise ApiError("api.key_reused")
            return found, (_REPLAYED,)
        if len(self._recordings) >= limits.API_KEYS_MAX:
            raise ApiError("api.too_many")
        made = self._recordings[name] = Recording(digest(body), trio.current_time())
        self._start(self._run, name, made, scope, body)
        return made, ()

    def _forget(self) -> None:
        """Drop what is old, and of the finished the oldest while there is too much."""
        oldest_s = trio.current_time() - _KEPT_S
        size = sum(one.size for one in self._recordings.values())
        for name, one in list(self._recordings.items()):
            full = len(self._recordings) >= limits.API_KEYS_MAX
            if one.done and (one.began_s < oldest_s or full or size > limits.API_KEPT_BYTES_MAX):
                del self._recordings[name]
                size -= one.size

    async def _run(
        self, name: tuple[str, bytes], recording: Recording, scope: Scope, body: bytes
    ) -> None:
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not waiting:
                await trio.sleep_forever()  # its client is never seen to leave
            return waiting.pop()

        async def record(message: Message) -> None:
            recording.add(message)

        try:
            await self._app(scope, receive, record)
        finally:
            recording.finish()
            if not recording.lasts:
                self._recordings.pop(name, None)


async def _whole_body(receive: Receive) -> bytes | None:
    """The body; None when the client left. ApiError `api.too_large`."""
    data = bytearray()
    more: Any = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > limits.API_BODY_BYTES_MAX:
            raise ApiError("api.too_large")
    return bytes(data)
