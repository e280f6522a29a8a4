"""A client of llama-server that costs little: one thread, plain sockets, no parsing while it runs.

    python -m tests.bench.serving.http_side PORT PID END_TOKENS

Each request has its own connection. What comes is only looked at for the mark of an event and for
the end of the answer; it is read as JSON, and checked, after the round.
"""

import json
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable

from tests.bench.serving.model import Request
from tests.bench.serving.timing import Clock, Round, report, rounds, stopwatch, tell

EVENT, END = b"data: ", b"\r\n0\r\n\r\n"
READ_BYTES = 256 * 1024


class Answer:
    """A connection with one request on it."""

    def __init__(
        self, port: int, bias: list[list[object]], request: Request, now_ns: Callable[[], int]
    ) -> None:
        """Ask; the greediest and cheapest sampling that the server knows."""
        body = json.dumps(
            {
                "prompt": request.text,
                "n_predict": request.output_tokens,
                "stream": True,
                "samplers": ["top_k"],
                "top_k": 1,
                "logit_bias": bias,
            }
        ).encode()
        head = (
            "POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._got = bytearray()
        # Connecting is not counted: a caller with many requests keeps connections.
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.clock = Clock(now_ns)
        self.socket.sendall(head.encode() + body)

    def receive(self) -> bool:
        """Take what is there; whether the answer is over."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise RuntimeError(f"llama-server closed the connection: {bytes(self._got[-500:])!r}")
        # From a little before, as a mark may come in two pieces.
        fresh = max(0, len(self._got) - len(EVENT) + 1)
        self._got += data
        is_over = self._got.endswith(END)
        # The last event has no token; whatever comes with it has.
        if self._got.find(EVENT, fresh) >= 0 and not (is_over and data.count(EVENT) < 2):
            self.clock.tick()
        return is_over

    def check(self) -> Clock:
        """Fill in what the server says at the end."""
        self.socket.close()
        last = json.loads(self._got.rpartition(EVENT)[2].partition(b"\n")[0])
        if not last.get("stop"):
            raise RuntimeError(f"llama-server ended an answer early: {last}")
        self.clock.input_tokens = last["tokens_evaluated"]
        self.clock.output_tokens = last["tokens_predicted"]
        return self.clock


def run(port: int, pid: int, bias: list[list[object]], asked: Round) -> None:
    """Work off a round and report it."""
    now_ns = stopwatch(pid, processor=asked.processor)
    todo = deque(asked.requests)
    over: list[Answer] = []
    with selectors.DefaultSelector() as selector:

        def ask_next() -> None:
            answer = Answer(port, bias, todo.popleft(), now_ns)
            selector.register(answer.socket, selectors.EVENT_READ, answer)

        start_ns = now_ns()
        for _ in range(min(asked.streams, len(todo))):
            ask_next()
        while selector.get_map():
            for key, _ in selector.select():
                answer: Answer = key.data
                if not answer.receive():
                    continue
                selector.unregister(answer.socket)
                over.append(answer)
                if todo:
                    ask_next()
        duration_ns = now_ns() - start_ns
    report(duration_ns, [answer.check() for answer in over])


def main() -> None:
    """Serve rounds until the input ends."""
    port, pid, end_tokens = map(json.loads, sys.argv[1:])
    tell({})
    for asked in rounds():
        run(port, pid, [[token, False] for token in end_tokens], asked)


if __name__ == "__main__":
    main()
