"""One HTTP request over several asks. Source: peer/gateway/README.md, "Answers"."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from peer.config import RequesterConfig
from peer.gateway.asks import chat_asks
from peer.gateway.bodies import ChatBody, parse_body
from peer.gateway.exchange import Exchange
from router import actions, events

BODY = {"model": "m", "messages": [{"role": "user", "content": "a"}], "n": 8}


class Nobody:
    """A market where every ask fails, all at the same moment."""

    def __init__(self) -> None:
        self.asked = 0
        self._all = trio.Event()

    def new_ask_id(self) -> int:
        self.asked += 1
        return self.asked

    @asynccontextmanager
    async def ask(self, ask: actions.Ask) -> AsyncIterator[trio.MemoryReceiveChannel[Any]]:
        send, receive = trio.open_memory_channel[Any](2)
        send.send_nowait(events.Published(bytes([ask.ask_id]) * 32))
        send.send_nowait(events.Failed("request.no_bids", "", 0, 0))
        send.close()
        if ask.ask_id == BODY["n"]:
            self._all.set()
        await self._all.wait()
        with receive:
            yield receive

    async def wait_connected(self, timeout_s: float) -> bool:
        return True


async def test_choices_that_fail_together_are_one_error() -> None:
    """Those whose failure nobody takes any more are given up, and are no error of ours."""
    wanted = chat_asks(parse_body(json.dumps(BODY).encode(), ChatBody), RequesterConfig())
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await trio.sleep_forever()

    for _ in range(10):  # which of them is first is for the scheduler to say
        sent.clear()
        await Exchange(Nobody(), wanted, lambda: None)({"type": "http"}, receive, send)
        assert [message.get("status") for message in sent] == [503, None]
        assert json.loads(sent[1]["body"])["error"]["code"] == "request.no_bids"
