"""The synchronous client: the asynchronous one on a thread with a loop of its own."""

import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from types import TracebackType
from typing import Any, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from peer.client.answer import Answer
from peer.client.client import AsyncClient, AsyncTextStream
from peer.client.settings import AskSettings, Prompt

Json = dict[str, Any]


class TextStream:
    """An answer as it comes: iterate over its text, in a `with` block; `answer` has the rest.

    Leaving the block early cancels the request and stops paying.
    """

    def __init__(
        self, portal: BlockingPortal, stream: AbstractAsyncContextManager[AsyncTextStream]
    ) -> None:
        self._portal = portal
        self._wrapped = portal.wrap_async_context_manager(stream)
        self._stream: AsyncTextStream | None = None

    def __enter__(self) -> "TextStream":
        self._stream = self._wrapped.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._wrapped.__exit__(kind, error, trace)

    def __iter__(self) -> "TextStream":
        return self

    def __next__(self) -> str:
        """The next piece of text. As `AsyncTextStream`."""
        stream = self._opened()

        async def following() -> str | None:
            return await anext(stream, None)

        future = self._portal.start_task_soon(following)
        try:
            piece = future.result()
        finally:
            future.cancel()  # a person's Ctrl-C ends the wait, not the task
        if piece is None:
            raise StopIteration
        return piece

    @property
    def answer(self) -> Answer:
        """What has arrived; complete once the text has ended."""
        return self._opened().answer

    def _opened(self) -> AsyncTextStream:
        assert self._stream is not None, "a stream is used in a `with` block"
        return self._stream


class Client:
    """A node's side of the market, in a `with` block; methods as `AsyncClient`'s.

    With `bootstrap` addresses it is a node of its own, as by `AsyncClient.join`; else it uses
    the daemon of `directory`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        bootstrap: Sequence[str] = (),
        network: str = "main",
    ) -> None:
        self._where = directory
        self._bootstrap = tuple(bootstrap)
        self._network = network
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._client: AsyncClient | None = None

    def __enter__(self) -> "Client":
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("trio"))
            if self._bootstrap:
                joined = AsyncClient.join(
                    *self._bootstrap, network=self._network, directory=self._where
                )
                self._client = stack.enter_context(portal.wrap_async_context_manager(joined))
            else:
                self._client = AsyncClient(self._where)
            self._portal = portal
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal = self._client = None
        self._stack.__exit__(kind, error, trace)

    def _open(self) -> tuple[BlockingPortal, AsyncClient]:
        assert self._portal is not None, "a client is used in a `with` block"
        assert self._client is not None
        return self._portal, self._client

    @property
    def model(self) -> str:
        """The model that is asked where a request names none."""
        return self._open()[1].defaults.model

    def ask(self, prompt: Prompt, **settings: Unpack[AskSettings]) -> Answer:
        """The whole answer. AskFailed, NetworkError; ConfigError for wrong settings."""
        with self.stream(prompt, **settings) as stream:
            for _ in stream:
                pass
            return stream.answer

    def stream(self, prompt: Prompt, **settings: Unpack[AskSettings]) -> TextStream:
        """The answer as it comes."""
        portal, client = self._open()
        return TextStream(portal, client.stream(prompt, **settings))

    def embed(
        self, texts: Sequence[str], **settings: Unpack[AskSettings]
    ) -> tuple[tuple[bytes, ...], Answer]:
        """A vector for each text, little-endian float32, and what it cost."""
        portal, client = self._open()

        async def embedded() -> tuple[tuple[bytes, ...], Answer]:
            return await client.embed(texts, **settings)

        return portal.call(embedded)

    def models(self) -> list[Json]:
        """What is on offer now."""
        portal, client = self._open()
        return portal.call(client.models)

    def quote(self, prompt: Prompt, **settings: Unpack[AskSettings]) -> Json:
        """What an answer would cost, and the bids."""
        portal, client = self._open()

        async def quoted() -> Json:
            return await client.quote(prompt, **settings)

        return portal.call(quoted)

    def history(self, last: int = 100) -> list[Json]:
        """The last jobs that were bought and sold, oldest first."""
        portal, client = self._open()
        return portal.call(client.history, last)

    def receipt(self, receipt_id: str) -> Json:
        """A receipt by its id, with its signatures."""
        portal, client = self._open()
        return portal.call(client.receipt, receipt_id)

    def channels(self) -> list[Json]:
        """Every channel."""
        portal, client = self._open()
        return portal.call(client.channels)

    def balance(self) -> Json:
        """Spent, earned, locked, unpaid, net; in ucr."""
        portal, client = self._open()
        return portal.call(client.balance)

    def status(self) -> Json:
        """Who and where the node is."""
        portal, client = self._open()
        return portal.call(client.status)
