"""The engine as the daemon has it: `LlamaEngine` in a trio process, its worker beside it.

    python -m tests.bench.serving.peerd_side MODEL THREADS PLACES CONTEXT_TOKENS END_TOKENS

With a busy round, a task of the same trio loop computes all the time, in slices, as a daemon
with much gossip would.
"""

import json
import os
import sys
import time
from collections import deque
from pathlib import Path

import structlog
import trio

from engine.interface import EngineEvent, Finished, JobSpec, Started, Tokens
from engine.llama import LlamaEngine
from engine.settings import LlamaSettings
from protocol.fields import (
    ChatMessage,
    GenerationParameters,
    InferenceType,
    LogitBias,
    Prompt,
)
from protocol.units import NS_PER_MS
from tests.bench.serving.model import Request
from tests.bench.serving.timing import Clock, Round, report, stopwatch, tell

# Gossip, crypto and journal work in pieces of this size and less.
BUSY_SLICE_NS = 2 * NS_PER_MS
FORBIDDEN_MILLI = -100_000


async def _keep_busy() -> None:
    while True:
        end_ns = time.perf_counter_ns() + BUSY_SLICE_NS
        while time.perf_counter_ns() < end_ns:
            pass
        await trio.lowlevel.checkpoint()


class Side:
    """Runs rounds on an engine with one model."""

    def __init__(self, engine: LlamaEngine, end_tokens: list[int]) -> None:
        self._engine = engine
        self._model = engine.models()[0].name
        worker_pid = engine.worker_pid(self._model)
        assert worker_pid is not None
        self.worker_pid = worker_pid
        self._now_ns = time.perf_counter_ns
        self._settings = ""
        self._bias = tuple(LogitBias(token, FORBIDDEN_MILLI) for token in end_tokens)

    async def run(self, asked: Round) -> None:
        """Work off a round and report it."""
        todo = deque(asked.requests)
        clocks: list[Clock] = []
        async with trio.open_nursery() as others:
            if asked.busy:
                others.start_soon(_keep_busy)
            self._now_ns = stopwatch(self.worker_pid, processor=asked.processor)
            start_ns = self._now_ns()
            async with trio.open_nursery() as streams:
                for _ in range(asked.streams):
                    streams.start_soon(self._stream, todo, clocks)
            report(self._now_ns() - start_ns, clocks, self._settings)
            others.cancel_scope.cancel()

    async def _stream(self, todo: deque[Request], clocks: list[Clock]) -> None:
        while todo:
            clocks.append(await self._request(todo.popleft()))

    async def _request(self, request: Request) -> Clock:
        prompt = Prompt(InferenceType.COMPLETION, (ChatMessage("user", request.text),))
        asked = GenerationParameters(
            request.output_tokens, 0, 0, 1000, 1, (), logit_bias=self._bias
        )
        clock = Clock(self._now_ns)

        def take(event: EngineEvent) -> None:
            if isinstance(event, Tokens):
                clock.tick()
            elif isinstance(event, Started):
                clock.input_tokens = event.input_tokens
            elif isinstance(event, Finished):
                clock.output_tokens = event.output_tokens
                self._settings = event.settings

        await self._engine.run_job(JobSpec(os.urandom(16), self._model, prompt, asked), take)
        return clock


async def main() -> None:
    """Serve rounds until the input ends."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    path, threads, places, context_tokens, end_tokens = sys.argv[1:]
    settings = LlamaSettings(
        n_threads=int(threads),
        places=int(places),
        context_tokens=int(context_tokens),
    )
    engine = LlamaEngine([Path(path)], settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        side = Side(engine, json.loads(end_tokens))
        tell({"pids": [os.getpid(), side.worker_pid]})
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            await side.run(Round.read(line))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
