"""Requests that nobody waits for. Source: peer/gateway/README.md, "Later"; RFC 7240."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from peer.gateway.app import EXCEPTIONS
from peer.gateway.failures import ApiError
from peer.gateway.once import Later, Once, Played
from peer.gateway.recordings import Recording, Recordings
from protocol import limits
from tests.peer.gateway.test_once import Keys

CHAT = "/v1/chat/completions"
ASYNC = {"Prefer": "wait=5, Respond-Async; x=1"}


class Server:
    """A model that answers when it is let go on, behind the real middleware and paths."""

    def __init__(self, nursery: trio.Nursery, directory: Path) -> None:
        self.runs = self.ended = 0
        self.go_on = trio.Event()
        self.fault: Callable[[], Exception] | None = None
        self.stream = False
        recordings = Recordings(nursery.start_soon, Keys(directory))
        routes = [
            Route(path, self.chat, methods=["POST"]) for path in (CHAT, "/v1/quote", "/v1/x")
        ]
        app = Starlette(
            routes=[*routes, *Later(recordings).routes()], exception_handlers=EXCEPTIONS
        )
        transport = httpx.ASGITransport(Once(app, recordings))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def chat(self, request: Request) -> Any:
        self.runs += 1
        try:
            if self.stream:
                headers = {"x-request-id": "aa"}
                return StreamingResponse(self._parts(), headers=headers)
            await self.go_on.wait()
            if self.fault is not None:
                raise self.fault()
            headers = {"x-request-id": "aa", "x-peerd-cost-ucr": "7", "x-peerd-receipt": "bb, cc"}
            return JSONResponse({"run": self.runs}, headers=headers)
        finally:
            self.ended += 1

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"begin "
        await self.go_on.wait()
        yield b"end"

    async def submit(self, path: str = CHAT, **headers: str) -> httpx.Response:
        return await self.client.post(path, json={}, headers={**ASYNC, **headers})

    async def status(self, where: str) -> Any:
        return (await self.client.get(where)).json()


@pytest.fixture
def server(nursery: trio.Nursery, tmp_path: Path) -> Server:
    return Server(nursery, tmp_path)


async def test_an_answer_is_there_later(server: Server) -> None:
    """202 at once with where it will be; then its state, and its bytes as often as one likes."""
    accepted = await server.submit()
    where = accepted.headers["location"]
    assert (accepted.status_code, accepted.headers["preference-applied"]) == (202, "respond-async")
    assert accepted.json()["status"] == (await server.status(where))["status"] == "running"
    server.go_on.set()
    first = await server.client.get(where + "/answer")
    again = await server.client.get(where + "/answer")
    assert first.json() == again.json() == {"run": 1}
    assert first.headers["x-peerd-cost-ucr"] == "7"
    assert await server.status(where) == {
        "id": where.rpartition("/")[2],
        "object": "request",
        "status": "completed",
        "http_status": 200,
        "request_id": "aa",
        "cost_ucr": 7,
        "receipt_ids": ["bb", "cc"],
    }
    other = await server.submit()
    assert other.headers["location"] != where
    await trio.testing.wait_all_tasks_blocked()
    assert server.runs == 2


async def test_who_asks_while_it_runs_is_shown_it_as_it_comes(server: Server) -> None:
    """A stream is played from its beginning to two readers, to its end."""
    server.stream = True
    where = (await server.submit()).headers["location"]
    await trio.testing.wait_all_tasks_blocked()
    assert (await server.status(where))["http_status"] == 200
    answers = []

    async def read() -> None:
        answers.append((await server.client.get(where + "/answer")).content)

    async with trio.open_nursery() as readers:
        readers.start_soon(read)
        readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        server.go_on.set()
    assert answers == [b"begin end"] * 2


async def test_submitted_twice_under_a_key_it_is_one_request(server: Server) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = await server.submit(**key), await server.submit(**key)
    assert first.headers["location"] == again.headers["location"]
    server.go_on.set()
    waited = await server.client.post(CHAT, json={}, headers=key)
    assert (waited.json(), server.runs) == ({"run": 1}, 1)
    late = await server.submit(**key)
    assert (late.status_code, late.json()["status"]) == (202, "completed")


@pytest.mark.parametrize("stream", [False, True])
async def test_it_can_be_ended_and_its_answer_forgotten(server: Server, stream: bool) -> None:
    """Cancelled while it runs, it says so, also when some was there; then its text is gone."""
    server.stream = stream
    where = (await server.submit()).headers["location"]
    await trio.testing.wait_all_tasks_blocked()
    assert (await server.client.delete(where)).status_code == 204
    await trio.testing.wait_all_tasks_blocked()
    assert server.ended == 1
    assert (await server.status(where))["status"] == "cancelled"
    gone = await server.client.get(where + "/answer")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "request.cancelled")
    server.go_on.set()
    done = (await server.submit()).headers["location"]
    await server.client.get(done + "/answer")
    assert (await server.client.delete(done)).status_code == 204
    assert (await server.client.get(done + "/answer")).status_code == 404
    assert (await server.client.delete(done)).status_code == 404


async def test_one_that_is_cut_off_while_it_is_read_sends_no_second_answer(
    nursery: trio.Nursery,
) -> None:
    """What was sent of it ends where it ended."""
    recording, sent = Recording(b""), []

    async def send(message: Message) -> None:
        sent.append(message)

    begin = {"type": "http.response.start", "status": 200, "headers": []}
    recording.add(begin)
    nursery.start_soon(Played(recording), {"type": "http"}, trio.sleep_forever, send)
    await trio.testing.wait_all_tasks_blocked()
    recording.scope.cancel()
    with recording.scope:
        await trio.lowlevel.checkpoint()
    recording.finish()
    await trio.testing.wait_all_tasks_blocked()
    assert sent == [begin]


async def test_a_failure_is_told_and_can_be_tried_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that cost nothing is remembered for who asks, boundedly, and hinders no retry."""
    monkeypatch.setattr(limits, "API_FAILURES_KEPT", 2)
    server.go_on.set()
    server.fault = lambda: ApiError("request.no_bids")
    where = (await server.submit(**{"Idempotency-Key": "k"})).headers["location"]
    answer = await server.client.get(where + "/answer")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "request.no_bids")
    told = await server.status(where)
    assert (told["status"], told["http_status"], told["cost_ucr"]) == ("failed", 503, None)
    server.fault = None
    assert (await server.submit(**{"Idempotency-Key": "k"})).headers["location"] == where
    assert (await server.client.get(where + "/answer")).json() == {"run": 2}
    server.fault = lambda: ApiError("request.no_bids")
    failed = []
    for _ in range(3):
        failed.append((await server.submit()).headers["location"])
        await trio.testing.wait_all_tasks_blocked()
    assert [(await server.client.get(one)).status_code for one in failed] == [404, 200, 200]


async def test_a_fault_of_ours_ends_one_request_alone(server: Server) -> None:
    """Whatever is raised: its own client is told, the server's other requests go on."""
    server.go_on.set()
    server.fault = lambda: ZeroDivisionError("a fault")
    where = (await server.submit()).headers["location"]
    assert (await server.client.get(where + "/answer")).status_code == 500
    server.fault = None
    where = (await server.submit()).headers["location"]
    assert (await server.client.get(where + "/answer")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/quote", "/v1/x"])
async def test_what_buys_no_answer_is_waited_for(server: Server, path: str) -> None:
    server.go_on.set()
    assert (await server.submit(path)).status_code == 200


@pytest.mark.parametrize("name", ["0" * 64, "zz", "0" * 62, "0" * 66])
async def test_unknown_names(server: Server, name: str) -> None:
    for answer in (
        await server.client.get(f"/v1/requests/{name}"),
        await server.client.get(f"/v1/requests/{name}/answer"),
        await server.client.delete(f"/v1/requests/{name}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request.unknown")
