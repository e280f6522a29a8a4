"""One key, one answer, one bill. Source: peer/gateway/README.md, "Once"."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.gateway.once import Once
from peer.gateway.recordings import Recordings
from peer.keys import Answers
from protocol import limits
from protocol.crypto import digest
from protocol.records import ReceiptAcknowledged
from protocol.signing import receipt_id
from router.actions import RequestKey
from router.keyed import Bought, Keyed, KeyedLane
from router.ledger import Ledger
from tests.vectors.samples import RECEIPT


class Keys:
    """A node's keys on its real parts: a log's book, which nothing here fills, and a directory."""

    def __init__(self, directory: Path) -> None:
        self.answers = Answers(directory)
        self.ledger = Ledger("once", bytes(32))
        self.orphans: frozenset[bytes] = frozenset()

    def key(self, path: str, key: bytes, body: bytes) -> RequestKey:
        return RequestKey(digest(path.encode(), b"\0", key), digest(body))

    def bought(self, name: bytes) -> Bought | None:
        return self.ledger.keyed.bought(name, self.ledger.channels, self.orphans, time.time_ns())


class Server:
    """An application that counts what it does, behind Once, and clients of it."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self.keys = Keys(directory)
        self.recordings = Recordings(nursery.start_soon, self.keys)
        self.once = Once(self.app, self.recordings)
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


async def test_a_key_is_answered_once(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The same bytes again, said to be a replay; another key or path runs anew."""
    server = Server(nursery, tmp_path)
    first = await server.ask(body=b'{"a": 1}')
    again = await server.ask(body=b'{"a": 1}')
    assert (first[:2], again[:2]) == ((200, b"begin run 1"), (200, b"begin run 1"))
    assert (first[2], again[2]) == ([], [b"idempotent-replayed"])
    assert server.bodies == [b'{"a": 1}']
    await server.ask(key="other")
    await server.ask(path="/v1/y")
    assert server.runs == 3


async def test_without_a_key_everything_runs(nursery: trio.Nursery, tmp_path: Path) -> None:
    server = Server(nursery, tmp_path)
    for _ in range(2):
        server.bodies.clear()
        with trio.move_on_after(1):
            await server.ask(key="")
    assert server.runs == 2


async def test_another_body_is_refused(nursery: trio.Nursery, tmp_path: Path) -> None:
    server = Server(nursery, tmp_path)
    await server.ask(body=b'{"a": 1}')
    status, body, _ = await server.ask(body=b'{"a": 2}')
    assert status == 422
    assert b"api.key_reused" in body
    assert server.runs == 1


async def test_a_retry_meanwhile_shares_the_run(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A client that left does not end it; the next one gets it all, from the beginning."""
    server = Server(nursery, tmp_path)
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
    nursery: trio.Nursery, tmp_path: Path, status: int, headers: list[Any], runs: int
) -> None:
    server = Server(nursery, tmp_path)
    server.status, server.headers = status, headers
    for _ in range(2):
        assert (await server.ask())[0] == status
    assert server.runs == runs


async def test_what_is_kept_is_bounded(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest makes room, and its file goes."""
    monkeypatch.setattr(limits, "API_KEYS_MAX", 3)
    server = Server(nursery, tmp_path)
    for number in range(6):
        await server.ask(key=str(number))
    assert server.runs == 6
    assert len(list((tmp_path / "answers").iterdir())) == 3
    await server.ask(key="0")
    assert server.runs == 7
    assert (await server.ask(key="k" * 256))[0] == 400
    monkeypatch.setattr(limits, "API_BODY_BYTES_MAX", 10)
    assert (await server.ask(key="long", body=b"x" * 11))[0] == 413


async def test_another_process_on_the_directory_gives_the_same_answer(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Bytes and headers, and what was cut off in writing is removed; not after a day."""
    first = await Server(nursery, tmp_path).ask()
    assert next((tmp_path / "answers").iterdir()).stat().st_mode & 0o777 == 0o600
    (tmp_path / "answers" / "00.part").write_bytes(b"half")
    server = Server(nursery, tmp_path)
    again = await server.ask()
    assert again[:2] == first[:2]
    assert (await server.ask(body=b"[]"))[0] == 422
    assert len(list((tmp_path / "answers").iterdir())) == 1
    assert server.runs == 0
    for path in (tmp_path / "answers").iterdir():
        os.utime(path, (time.time() - 25 * 3_600,) * 2)
    server = Server(nursery, tmp_path)
    await server.ask()
    assert server.runs == 1


async def test_a_damaged_answer_is_none(nursery: trio.Nursery, tmp_path: Path) -> None:
    await Server(nursery, tmp_path).ask()
    next((tmp_path / "answers").iterdir()).write_bytes(b"\xff")
    server = Server(nursery, tmp_path)
    assert (await server.ask())[:2] == (200, b"begin run 1")
    assert server.runs == 1


async def test_what_was_paid_and_is_not_there_says_so(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """It does not run again: the log knows of a lane that a request of the key was awarded on."""
    server = Server(nursery, tmp_path)
    book, key = server.keys.ledger.keyed, server.keys.key("/v1/x", b"k", b"{}")
    book.keep(Keyed(*key, bytes(32), time.time_ns(), [KeyedLane(bytes(32), 1)]))
    server.keys.orphans = frozenset(book.requests)
    status, body, names = await server.ask()
    assert (status, b"x-should-retry" in names) == (502, True)
    assert b"request.interrupted" in body
    assert (await server.ask(body=b"[]"))[0] == 422
    receipt = replace(RECEIPT, cid=bytes(32), lane=1, price_ucr=7)
    book.watch(ReceiptAcknowledged(receipt, bytes(64), bytes(64)))
    status, body, names = await server.ask()
    assert (status, b"x-peerd-cost-ucr" in names) == (410, True)
    assert receipt_id(receipt).hex().encode() in body
    assert b"0.000007 credits were paid so far" in body
    assert server.runs == 0
