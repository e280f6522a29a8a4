"""The engine's bench: its plumbing on the embedded model, and what it makes of the figures."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from engine.embedded import embedded_model_path
from tests.bench import engine
from tests.bench.serving import http_side
from tests.bench.serving.model import Request, words
from tests.bench.serving.table import lines
from tests.bench.serving.timing import Round


def test_it_runs_on_the_embedded_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every contestant but llama-server, in processes of their own; `figures` checks counts."""
    arguments = ["--json", "--quick", "--tokens=4", "--threads=1", f"--cache={tmp_path}"]
    engine.main([*arguments, "--levels=1,2", f"--model={embedded_model_path()}"])
    found = json.loads(capsys.readouterr().out)
    (levels,) = found["weights"].values()
    assert list(levels) == ["1", "2"]
    for level in levels.values():
        for name in ("tokens_per_s", "tokens_per_cpu_s", "ttft_p50_ms", "ttft_p95_ms"):
            assert level[name] > 0
            assert level[f"{name}_llama_server"] is None
        assert level["ratio_llama_server"] is None
        assert level["ratio_sequential"] > 0
        assert level["ratio_trio_busy"] > 0
    assert found["machine"]["threads"] == 1
    assert [row.split()[3] for row in lines(found)] == ["1", "2"]


def done(input_tokens: int, output_tokens: int, ttft_ns: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "ttft_ns": ttft_ns,
        "gaps_ns": [ttft_ns // 4, ttft_ns // 2],
    }


def test_a_round_counts_only_what_was_asked_for() -> None:
    """A contestant that ends an answer early would look faster than it is."""
    asked = Round(2, [Request("a", 5, 10), Request("b", 7, 10)])
    answer = {"duration_ns": 2_000_000_000, "requests": [done(7, 10, 4000), done(5, 10, 2000)]}
    found = engine.figures(asked, answer, used_ns=500_000_000)
    assert found["tokens_per_s"] == 10
    assert found["tokens_per_cpu_s"] == 40
    assert found["ttft_p50_ms"] == 0.003
    assert found["gap_max_ms"] == 0.002
    answer["requests"] = [done(7, 10, 1), done(5, 9, 1)]
    with pytest.raises(RuntimeError, match="asked for"):
        engine.figures(asked, answer, used_ns=500_000_000)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """Each round is compared within itself: the machine may be slower in the next."""
    speeds = {"ours": (10, 40, 90), "busy": (9, 20, 90), "sequential": (5, 5, 5)}
    names = ("tokens_per_s", "tokens_per_cpu_s", "ttft_p50_ms", "ttft_p95_ms")
    results = {
        side: [dict.fromkeys(names, float(speed)) for speed in values]
        for side, values in speeds.items()
    }
    found = engine.summary(results)
    assert (found["ratio_trio_busy"], found["ratio_sequential"]) == (0.9, 8.0)
    assert (found["tokens_per_s"], found["tokens_per_s_llama_server"]) == (40, None)


EVENT = b'8\r\ndata: {"content":" a","stop":false}\n\n\r\n'
LAST = b'8\r\ndata: {"stop":true,"tokens_predicted":2,"tokens_evaluated":3}\n\n\r\n'


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_a_stream_is_understood_however_it_is_cut(size: int) -> None:
    """The client of llama-server looks at marks only, and those may come in pieces."""
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + EVENT * 2 + LAST
    said += b"0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for start in range(0, len(said), size):
                    connection.sendall(said[start : start + size])
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        answer = http_side.Answer(port, [], Request("a", 3, 2), time.perf_counter_ns)
        while not answer.receive():
            pass
        clock = answer.check()
        thread.join()
    assert (clock.input_tokens, clock.output_tokens) == (3, 2)
    assert clock.figures()["ttft_ns"] > 0


def test_the_made_vocabulary_holds_every_beginning_of_its_words() -> None:
    """So the tokeniser makes each word one token."""
    made = words()
    assert len(made) == len(set(made))
    known = set(made)
    assert all(word[:-1] in known for word in made if len(word) > 2)
