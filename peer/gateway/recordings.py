"""Requests that run to their end whoever stays, and their answers as they are made.

Each stands under a name that only this node can make. The last piece is given out when the whole
is on disk, and the log knows what each name bought, so a restart changes nothing.
Rule: peer/gateway/README.md, "Once", "Later".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog
import trio
from starlette.types import ASGIApp, Message, Scope, Send

from peer.asking import current_key
from peer.gateway.failures import COST_HEADER, FORGET_HEADER, ApiError
from peer.keys import Answers, KeptAnswer
from protocol import limits
from protocol.units import format_credits
from router.actions import RequestKey
from router.keyed import Bought

log = structlog.get_logger()

_COST: Final = COST_HEADER.encode()
_FORGET: Final = FORGET_HEADER.encode()


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
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
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
        """There is no more; of one that was cancelled, nothing is."""
        if self.scope.cancelled_caught:
            self.messages.clear()
        self.done = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = trio.Event()

    @property
    def lasts(self) -> bool:
        """Whether a retry should get it: an answer, or a failure that was paid for."""
        if self.status is None:
            return False
        if self.status < 400:
            return self.header(_FORGET) != "false"
        return self.header(_COST) is not None

    @property
    def status(self) -> int | None:
        """The answer's HTTP status, when it has begun."""
        return self.messages[0]["status"] if self.messages else None

    def header(self, name: bytes) -> str | None:
        """A header of the answer, when it has begun."""
        headers = self.messages[0]["headers"] if self.messages else ()
        return next((value.decode() for known, value in headers if known == name), None)

    async def play(self, send: Send, extra: Sequence[tuple[bytes, bytes]]) -> bool:
        """Send what there is, and what comes, to one client; False when there was nothing."""
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
                return sent > 0
            await more.wait()


class Recordings:
    """The requests that run, in a nursery of the server, and what became of the others."""

    def __init__(self, start: Callable[..., None], keys: Keys) -> None:
        self._start = start
        self._keys = keys
        self._running: dict[bytes, Recording] = {}
        self._failed: dict[bytes, Recording] = {}  # those that cost nothing, oldest first
        self._files = trio.CapacityLimiter(1)

    def key(self, path: str, key: bytes, body: bytes) -> RequestKey:
        """What stands for a key of a path, and for a body. ApiError `api.bad_request`."""
        if len(key) > limits.API_KEY_BYTES_MAX:
            raise ApiError("api.bad_request", "Idempotency-Key is too long")
        return self._keys.key(path, key, body)

    async def begin(
        self, app: ASGIApp, scope: Scope, made: RequestKey, body: bytes
    ) -> tuple[Recording, bool]:
        """A request's recording, and whether it is an earlier one's; `app` runs a new one.

        ApiError `api.key_reused`, `api.too_many`, and for one that was paid for and is not there
        `api.answer_gone`, `request.interrupted`.
        """
        found = await self._known(made.name)
        bought = self._keys.bought(made.name) if found is None else None
        known = found or bought
        if known is not None and known.body != made.body:
            raise ApiError("api.key_reused")
        if found is not None:
            return found, True
        if bought is not None:
            raise _lost(bought)
        if len(self._running) >= limits.API_KEYS_MAX:
            raise ApiError("api.too_many")
        self._failed.pop(made.name, None)
        recording = self._running[made.name] = Recording(made.body)
        self._start(self._run, app, made, recording, scope, body)
        return recording, False

    async def find(self, name: bytes) -> Recording:
        """The recording of a name.

        ApiError `request.unknown`, `api.answer_gone`, `request.interrupted`.
        """
        found = await self._known(name) or self._failed.get(name)
        if found is not None:
            return found
        bought = self._keys.bought(name)
        raise ApiError("request.unknown", name.hex()[:12]) if bought is None else _lost(bought)

    async def drop(self, name: bytes) -> None:
        """End it, if it runs: what had arrived is paid. Its answer is not kept."""
        running = self._running.get(name)
        if running is not None:
            running.scope.cancel()
        self._failed.pop(name, None)
        await self._on_disk(self._keys.answers.remove, name)

    async def _known(self, name: bytes) -> Recording | None:
        found = self._running.get(name)
        if found is None and name in self._keys.answers:
            kept = await self._on_disk(self._keys.answers.get, name)
            # Another call may have begun it meanwhile.
            found = self._running.get(name) or (Recording.of(kept) if kept else None)
        return found

    async def _on_disk(self, do: Callable[..., Any], *values: Any) -> Any:
        return await trio.to_thread.run_sync(do, *values, limiter=self._files)

    async def _run(
        self, app: ASGIApp, key: RequestKey, recording: Recording, scope: Scope, body: bytes
    ) -> None:
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
            with recording.scope:
                await app(scope, receive, record)
        except Exception:
            log.exception("gateway.request_failed")
        finally:
            recording.finish()
            del self._running[key.name]
            if not recording.lasts:
                self._remember(key.name, recording)

    def _remember(self, name: bytes, failed: Recording) -> None:
        self._failed[name] = failed
        while len(self._failed) > limits.API_FAILURES_KEPT:
            del self._failed[next(iter(self._failed))]

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
