"""The log's thread: calls in order, their errors come back, and none is left behind.

Source: peer/writer_thread.py.
"""

import threading
from functools import partial

import pytest
import trio

from peer.writer_thread import WriterThread


async def test_calls_are_made_in_order_in_one_other_thread() -> None:
    where: list[tuple[int, str]] = []
    with WriterThread() as thread:
        for number in range(5):
            await thread.run(lambda: where.append((number, threading.current_thread().name)))  # noqa: B023
    assert where == [(number, "log writer") for number in range(5)]


async def test_an_error_comes_back_and_the_next_call_is_made() -> None:
    def fail() -> None:
        raise OSError(5, "injected")

    made: list[int] = []
    with WriterThread() as thread:
        with pytest.raises(OSError, match="injected"):
            await thread.run(fail)
        await thread.run(partial(made.append, 1))
    assert made == [1]


async def test_cancelling_waits_for_the_call_that_has_begun() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        assert go.wait(30)
        done.append(True)

    with WriterThread() as thread, trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, work)
            assert await trio.to_thread.run_sync(begun.wait, 30)
            scope.cancel()
            go.set()
    assert done == [True]


async def test_the_thread_ends_with_its_block() -> None:
    async def broken_off() -> None:
        with WriterThread() as thread:
            await thread.run(lambda: None)
            raise KeyError

    with pytest.raises(KeyError):
        await broken_off()
    assert "log writer" not in [one.name for one in threading.enumerate()]
