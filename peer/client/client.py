"""The asynchronous client, on trio."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

from peer.asking import parse_options, to_ask
from peer.client.answer import Answer
from peer.client.ephemeral import open_line
from peer.client.lines import Line, SocketLine
from peer.client.settings import AskSettings, Prompt, ask_params
from peer.config import CONFIG_FILE, RequesterConfig, load_config
from peer.embedding_jobs import read_vectors
from protocol.errors import NetworkError
from protocol.units import cost_ucr
from router.quoting import input_tokens_bucket, input_tokens_estimate

Json = dict[str, Any]

DATA_VARIABLE = "PEERD_DATA"


class AsyncTextStream:
    """An answer as it comes: iterate over its text; `answer` has the rest."""

    def __init__(self, events: AsyncIterator[Json]) -> None:
        self._events = events
        self.answer = Answer()

    def __aiter__(self) -> "AsyncTextStream":
        return self

    async def __anext__(self) -> str:
        """The next piece of text. AskFailed; NetworkError when the node goes away."""
        while True:
            text = self.answer.add(await anext(self._events))
            if text:
                return text


class AsyncClient:
    """A node's side of the market, for programs on trio.

    `directory` is the node's data directory (default: PEERD_DATA, or ~/.peerd), whose daemon
    has to run.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        line: Line | None = None,
        defaults: RequesterConfig | None = None,
    ) -> None:
        named = directory or os.environ.get(DATA_VARIABLE) or "~/.peerd"
        home = Path(named).expanduser()
        self._line = line or SocketLine(home)
        if defaults is None:
            path = home / CONFIG_FILE
            defaults = load_config(path if path.exists() and line is None else None, {}).requester
        self.defaults = defaults

    @classmethod
    @asynccontextmanager
    async def join(
        cls,
        *bootstrap: str,
        network: str = "main",
        directory: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator["AsyncClient"]:
        """A client with a node of its own for the length of the block, that joins by these
        addresses, .../p2p/ID.

        It keeps its key and channels in `directory`; without one it has a new key, and what is
        left of its deposits is back when the block ends. NetworkError `network.listen`,
        `request.not_connected`.
        """
        async with open_line(bootstrap, network, directory) as (line, defaults):
            yield cls(line=line, defaults=defaults)

    async def ask(self, prompt: Prompt, **settings: Unpack[AskSettings]) -> Answer:
        """The whole answer. AskFailed, NetworkError; ConfigError for wrong settings."""
        async with self.stream(prompt, **settings) as stream:
            async for _ in stream:
                pass
        return stream.answer

    @asynccontextmanager
    async def stream(
        self, prompt: Prompt, **settings: Unpack[AskSettings]
    ) -> AsyncIterator[AsyncTextStream]:
        """The answer as it comes; leaving the block early cancels it and stops paying."""
        params = ask_params(prompt, settings, self.defaults)
        async with self._line.call("ask", params) as events:
            yield AsyncTextStream(events)

    async def embed(
        self, texts: Sequence[str], **settings: Unpack[AskSettings]
    ) -> tuple[tuple[bytes, ...], Answer]:
        """A vector for each text, little-endian float32, and what it cost. As `ask`; RemoteError
        `chunk.bad_vectors`."""
        turns = [{"role": "user", "content": text} for text in texts]
        params = ask_params(turns, settings, self.defaults, embed=True)
        answer = Answer()
        async with self._line.call("ask", params) as events:
            async for event in events:
                answer.add(event)
        return read_vectors(answer.text, len(texts)), answer

    async def models(self) -> list[Json]:
        """What is on offer now: providers, context, lowest prices a million tokens."""
        return list((await self._one("models"))["models"])

    async def quote(self, prompt: Prompt, **settings: Unpack[AskSettings]) -> Json:
        """What an answer would cost, in ucr: by the best bid at most, and likely when all
        `max_tokens` are used; with all `bids`, or the offers that stand, best first. Nobody is
        awarded, and the prompt stays here. AskFailed `request.no_bids` when nobody sells it,
        `request.unknown_model` when only others are sold."""
        params = {**ask_params(prompt, settings, self.defaults), "quote": True}
        asked, told = to_ask(parse_options(params), 0), Answer()
        async with self._line.call("ask", params) as events:
            async for event in events:
                told.add(event)
                if event["event"] == "quote":
                    best, likely = event["bids"][0], input_tokens_estimate(asked.prompt)
                    prices = best["input_price_ucr"], best["output_price_ucr"]
                    made = asked.parameters.output_tokens_max
                    return {
                        "model": asked.model,
                        "request_id": told.request_id,
                        "providers": len(event["bids"]),
                        "input_tokens_max": input_tokens_bucket(asked.prompt),
                        "cost_max_ucr": best["cost_max_ucr"],
                        "cost_likely_ucr": cost_ucr(likely, made, *prices),
                        "bids": [_bid(bid) for bid in event["bids"]],
                    }
        raise NetworkError("control.unavailable", "the daemon said nothing")

    async def history(self, last: int = 100) -> list[Json]:
        """The last jobs that were bought and sold, oldest first."""
        return list((await self._one("history", last=last))["jobs"])

    async def receipt(self, receipt_id: str) -> Json:
        """A receipt by its id, with its signatures. NetworkError `receipt.unknown`."""
        return await self._one("receipt", receipt_id=receipt_id)

    async def channels(self) -> list[Json]:
        """Every channel."""
        return list((await self._one("channels"))["channels"])

    async def balance(self) -> Json:
        """Spent, earned, locked, unpaid, net; in ucr."""
        return dict((await self._one("channels"))["balance"])

    async def status(self) -> Json:
        """Who and where the node is."""
        return await self._one("status")

    async def _one(self, method: str, **params: Any) -> Json:
        async with self._line.call(method, params) as answers:
            async for value in answers:
                return value
        raise NetworkError("control.unavailable", "the daemon said nothing")


def _bid(told: Json) -> Json:
    """A bid that can be taken: without what only the events of a request need."""
    return {name: value for name, value in told.items() if name not in ("event", "refused")}
