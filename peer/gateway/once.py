"""`Idempotency-Key`: the same key gives the same answer, byte for byte, and one bill.

The first request with a key runs to its end, whether its client stays or not, and its answer is
recorded; later ones, and those that come meanwhile, are played the recording. The last piece is
sent when the whole is on disk, and the log knows what each key bought, so a restart changes
nothing. Rule: peer/gateway/README.md, "Once".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peer.asking import current_key
from peer.gateway.app import error_response
from peer.gateway.failures import COST_HEADER, FORGET_HEADER, ApiError
from peer.keys import Answers, KeptAnswer
from protocol import limits
from protocol.errors import PeerdError
from protocol.units import format_credits
from router.actions import RequestKey
from router.keyed import Bought

log = structlog.get_logger()

KEY_HEADER: Final = b"idempotency-key"
_COST: Final = COST_HEADER.encode()
_FORGET: Final = (FORGET_HEADER.encode(), b"false")
_REPLAYED: Final = (b"idempotent-replayed", b"true")
# Its sessions outlive the call that began them; its tool that buys has a Once of its own.
_WITHOUT: Final = ("/mcp",)


class Keys(Protocol):
    """What Once needs of a node; `peer.keys.Keys` is one."""

    answers: Answers

    def key(self, path: str, key: bytes, body: bytes) -> RequestKey:
        """What stands for a key of a path, and for a body."""
        ...

    def bought(self, name: bytes) -> Bought | None:
        """What a key bought by the log; None when it cost nothing."""
        ...


@dataclass(slots=True)
class Recording:
    """An answer as it is made; `done` when all of it is there."""

    body: bytes
    messages: list[Message] = field(default_factory=list)
    done: bool = False
    _more: trio.Event = field(default_factory=trio.Event)

    @classmethod
    def of(cls, kept: KeptAnswer) -> "Recording":
        """One that is done."""
        start = {"type": "http.response.start", "status": kept.status, "headers": kept.headers}
        body = {"type": "http.response.body", "body": kept.content}
        return cls(kept.body, [start, body], done=True)

    def kept(self, last: Message) -> KeptAnswer:
        """All of it, with the last message."""
        start, *parts = [*self.messages, last]
        content = b"".join(part.get("body", b"") for part in parts)
        return KeptAnswer(self.body, start["status"], list(start["headers"]), content)

    def add(self, message: Message) -> None:
        """The next message of the answer."""
        self.messages.append(message)
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
        headers = start["headers"]
        if start["status"] < 400:
            return _FORGET not in headers
        return any(name == _COST for name, _ in headers)

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

    def __init__(self, app: ASGIApp, start: Callable[..., None], keys: Keys) -> None:
        self._app = app
        self._start = start
        self._keys = keys
        self._running: dict[bytes, Recording] = {}
        self._files = trio.CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        key = b""
        post = scope["type"] == "http" and scope["method"] == "POST"
        if post and scope["path"] not in _WITHOUT:
            key = {name.lower(): value for name, value in scope["headers"]}.get(KEY_HEADER, b"")
        if not key:
            await self._app(scope, receive, send)
            return
        try:
            body = await _whole_body(receive)
            if body is None:
                return
            recording, extra = await self._recording(scope, key, body)
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

    async def _recording(
        self, scope: Scope, key: bytes, body: bytes
    ) -> tuple[Recording, Sequence[tuple[bytes, bytes]]]:
        if len(key) > limits.API_KEY_BYTES_MAX:
            raise ApiError("api.bad_request", "Idempotency-Key is too long")
        made = self._keys.key(scope["path"], key, body)
        found = self._running.get(made.name)
        if found is None and made.name in self._keys.answers:
            kept = await self._on_disk(self._keys.answers.get, made.name)
            # Another call may have begun it meanwhile.
            found = self._running.get(made.name) or (Recording.of(kept) if kept else None)
        bought = self._keys.bought(made.name) if found is None else None
        known = found or bought
        if known is not None and known.body != made.body:
            raise ApiError("api.key_reused")
        if found is not None:
            return found, (_REPLAYED,)
        if bought is not None:
            raise _lost(bought)
        if len(self._running) >= limits.API_KEYS_MAX:
            raise ApiError("api.too_many")
        recording = self._running[made.name] = Recording(made.body)
        self._start(self._run, made, recording, scope, body)
        return recording, ()

    async def _on_disk(self, do: Callable[..., Any], *values: Any) -> Any:
        return await trio.to_thread.run_sync(do, *values, limiter=self._files)

    async def _run(self, key: RequestKey, recording: Recording, scope: Scope, body: bytes) -> None:
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        current_key.set(key)  # of this task, and of those that it starts

        async def receive() -> Message:
            if not waiting:
                await trio.sleep_forever()  # its client is never seen to leave
            return waiting.pop()

        async def record(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and (recording.lasts or self._keys.bought(key.name) is not None):
                await self._keep(key.name, recording.kept(message))
            recording.add(message)

        try:
            await self._app(scope, receive, record)
        finally:
            recording.finish()
            del self._running[key.name]

    async def _keep(self, name: bytes, answer: KeptAnswer) -> None:
        try:
            await self._on_disk(self._keys.answers.put, name, answer)
        except OSError as error:  # the client gets it all the same, once
            log.warning("answer.not_kept", error=str(error))


def _lost(bought: Bought) -> ApiError:
    """It was paid for, and its answer is not there."""
    receipts = ", ".join(receipt.hex() for receipt in bought.receipt_ids)
    detail = f"{format_credits(bought.paid_ucr)} credits were paid so far"
    if receipts:
        detail += f", receipt {receipts}"
    error = ApiError("api.answer_gone" if bought.answered else "request.interrupted", detail)
    error.paid_ucr, error.again = bought.paid_ucr, False
    return error


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
