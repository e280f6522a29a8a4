"""One key, one answer, one bill. Source: peer/gateway/README.md, "Once"."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from peer.gateway.once import Once
from protocol import limits


class Server:
    """An application that counts what it does, behind Once, and clients of it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.once = Once(self.app, nursery.start_soon)
        self.runs = 0
        self.bodies: list[bytes] = []
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []
        self.go_on = trio.Event()
        self.go_on.set()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.runs += 1
        self.bodies.append((await receive())["body"])
        run = self.runs
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"begin ", "more_body": True})
        await self.go_on.wait()
        await send({"type": "http.response.body", "body": b"run %d" % run})

    async def ask(
        self,
        key: str = "k",
        body: bytes = b"{}",
        path: str = "/v1/x",
        leave: Callable[[bytes], bool] = lambda _: False,
    ) -> tuple[int, bytes, list[bytes]]:
        """Status, body and header names as one client gets them; it leaves when `leave` says."""
        status, got, names = 0, bytearray(), []
        pieces = [body[:1], body[1:]]
        gone = trio.Event()

        async def receive() -> dict[str, Any]:
            if pieces:
                return {
                    "type": "http.request",
                    "body": pieces.pop(0),
                    "more_body": bool(pieces),
                }
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, names
            if message["type"] == "http.response.start":
                status, names = message["status"], [name for name, _ in message["headers"]]
            got.extend(message.get("body", b""))
            if leave(bytes(got)):
                gone.set()
                await trio.sleep_forever()

        headers = [(b"Idempotency-Key", key.encode())] if key else []
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        await self.once(scope, receive, send)
        return status, bytes(got), names


async def test_a_key_is_answered_once(nursery: trio.Nursery) -> None:
    """The same bytes again, said to be a replay; another key or path runs anew."""
    server = Server(nursery)
    first = await server.ask(body=b'{"a": 1}')
    again = await server.ask(body=b'{"a": 1}')
    assert (first[:2], again[:2]) == ((200, b"begin run 1"), (200, b"begin run 1"))
    assert (first[2], again[2]) == ([], [b"idempotent-replayed"])
    assert server.bodies == [b'{"a": 1}']
    await server.ask(key="other")
    await server.ask(path="/v1/y")
    assert server.runs == 3


async def test_without_a_key_everything_runs(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    for _ in range(2):
        server.bodies.clear()
        with trio.move_on_after(1):
            await server.ask(key="")
    assert server.runs == 2


async def test_another_body_is_refused(nursery: trio.Nursery) -> None:
    server = Server(nursery)
    await server.ask(body=b'{"a": 1}')
    status, body, _ = await server.ask(body=b'{"a": 2}')
    assert status == 422
    assert b"api.key_reused" in body
    assert server.runs == 1


async def test_a_retry_meanwhile_shares_the_run(nursery: trio.Nursery) -> None:
    """A client that left does not end it; the next one gets it all, from the beginning."""
    server = Server(nursery)
    server.go_on = trio.Event()
    await server.ask(leave=lambda got: got == b"begin ")
    answers = []

    async def retry() -> None:
        answers.append(await server.ask())

    async with trio.open_nursery() as clients:
        clients.start_soon(retry)
        clients.start_soon(retry)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        server.go_on.set()
    assert [answer[:2] for answer in answers] == [(200, b"begin run 1")] * 2
    assert server.runs == 1


@pytest.mark.parametrize(
    ("status", "headers", "runs"),
    [
        (503, [], 2),  # cost nothing: a retry may succeed
        (400, [], 2),
        (502, [(b"x-peerd-cost-ucr", b"7")], 1),  # was paid: never twice
    ],
)
async def test_which_failures_are_kept(
    nursery: trio.Nursery, status: int, headers: list[Any], runs: int
) -> None:
    server = Server(nursery)
    server.status, server.headers = status, headers
    for _ in range(2):
        assert (await server.ask())[0] == status
    assert server.runs == runs


async def test_memory_is_bounded(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest that is done makes room; running ones are never dropped."""
    monkeypatch.setattr(limits, "API_KEYS_MAX", 3)
    server = Server(nursery)
    for number in range(6):
        await server.ask(key=str(number))
    assert server.runs == 6
    await server.ask(key="0")
    assert server.runs == 7
    assert (await server.ask(key="k" * 256))[0] == 400
    monkeypatch.setattr(limits, "API_BODY_BYTES_MAX", 10)
    assert (await server.ask(key="long", body=b"x" * 11))[0] == 413
