"""A node's methods called in the same process: answers, errors, leaving early.

Source: peer/client/lines.py.
"""

from typing import Any

import pytest
import trio
import trio.testing

from peer.client.answer import Answer, AskFailed
from peer.client.client import AsyncClient
from peer.client.lines import DirectLine
from peer.config import RequesterConfig
from peer.control import Answer as Say
from protocol.errors import ConfigError, NetworkError

Json = dict[str, Any]


async def count(params: Json, answer: Say) -> None:
    for number in range(params["to"]):
        await answer({"number": number})


async def refuse(params: Json, answer: Say) -> None:
    await answer({"number": 0})
    raise ConfigError("config.bad_value", "no")


async def test_answers_come_in_order_to_their_end(nursery: trio.Nursery) -> None:
    line = DirectLine({"count": count}, nursery)
    async with line.call("count", {"to": 3}) as answers:
        assert [value["number"] async for value in answers] == [0, 1, 2]


async def test_a_method_s_error_is_raised_where_it_is_called(nursery: trio.Nursery) -> None:
    line = DirectLine({"refuse": refuse}, nursery)
    async with line.call("refuse", {}) as answers:
        assert await anext(answers) == {"number": 0}
        with pytest.raises(ConfigError):
            await anext(answers)
    with pytest.raises(NetworkError, match=r"control\.bad_request"):
        async with line.call("unknown", {}):
            pass


async def test_leaving_early_cancels_the_method(nursery: trio.Nursery) -> None:
    cancelled = trio.Event()

    async def endless(params: Json, answer: Say) -> None:
        try:
            while True:
                await answer({"event": "text", "text": "a", "at_ms": 1.0})
        finally:
            cancelled.set()

    client = AsyncClient(line=DirectLine({"ask": endless}, nursery), defaults=RequesterConfig())
    with trio.fail_after(5):
        async with client.stream("Why?") as stream:
            assert await anext(stream) == "a"
        await cancelled.wait()
    assert stream.answer.text == "a"
    assert stream.answer.receipt is None


def test_a_failed_request_says_what_was_paid() -> None:
    answer = Answer()
    assert answer.add({"event": "text", "text": "Par", "at_ms": 2.0}) == "Par"
    failed = {"event": "failed", "code": "request.deadline", "detail": "", "paid_ucr": 9}
    with pytest.raises(AskFailed) as caught:
        answer.add(failed)
    assert (caught.value.code, caught.value.paid_ucr) == ("request.deadline", 9)
    with pytest.raises(AskFailed, match=r"provider\.refused"):
        answer.add({**failed, "code": "of.a.newer.daemon"})
