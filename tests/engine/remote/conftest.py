"""A remote engine and the server that it asks, on loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from engine.remote import RemoteEngine, RemoteSettings
from protocol import limits
from tests.engine.scripted_server import (
    KEY,
    Handler,
    ScriptedServer,
    greet,
    open_server,
)

Remote = Callable[..., AbstractAsyncContextManager[tuple[RemoteEngine, ScriptedServer]]]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are real here: the server is on a socket."""
    monkeypatch.setattr(limits, "REMOTE_RETRY_NS", 1_000_000)
    monkeypatch.setattr(limits, "REMOTE_PROBE_NS_MIN", 1_000_000)


@pytest.fixture
def remote() -> Remote:
    """An engine whose probe has succeeded; then the server does as `answer` says."""

    @asynccontextmanager
    async def run(
        answer: Handler = greet, *, places: int = 2, context_tokens: int = 512
    ) -> AsyncIterator[tuple[RemoteEngine, ScriptedServer]]:
        with trio.fail_after(30):
            async with open_server() as server, trio.open_nursery() as nursery:
                settings = RemoteSettings("m", server.url, "the/M", KEY, places, context_tokens)
                engine = RemoteEngine(settings)
                await nursery.start(engine.run)
                assert len(engine.models()) == 1
                server.answer = answer
                server.seen.clear()
                yield engine, server
                nursery.cancel_scope.cancel()

    return run


@pytest.fixture
def ask(job, answer):
    """Run one job; its events."""

    async def run(engine: RemoteEngine, words: str = "Hello", **options):
        got = answer()
        await engine.run_job(job(words, model="m", **options), got.events.append)
        return got

    return run
