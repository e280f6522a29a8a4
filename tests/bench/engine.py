"""How fast the engine serves: against llama-server, `llama_cpp.Llama`, and itself when busy.

    python -m tests.bench.engine [--json] [--build-llama-server | --llama-server PATH]
        [--levels 1,4,8,16,32] [--weights f16,q4_0] [--rounds 3] [--tokens 64] [--threads N]
        [--quick] [--clock processor] [--cache DIRECTORY] [--model PATH]

For each weight type and level n: n streams work off requests with prompts of 16 to 512 tokens,
spread evenly and in a seeded order, each answered greedily with exactly --tokens tokens. The same
requests go to all contestants, one contestant at a time, in rounds that take turns (each round
begins with another one); a request that begins like an earlier one does not occur.

- `LlamaEngine`, through its public interface, in a trio process with its worker process.
- The same with a task in that trio loop that computes without end in slices of 2 ms.
- llama-server, built from the source of the installed llama-cpp-python and running on its shared
  libraries, streaming over HTTP on loopback to a client in a process of its own.
- `llama_cpp.Llama`, one call after another, on the round's first requests (at least 6).

Threads, batch, micro-batch, kind and layout of the keys and values, flash attention and places
(= n) are the same. Figures are medians of the rounds, ratios are medians of the rounds' ratios.
`tokens_per_cpu_s` is per second of the server's own processes: worker and trio process, or
llama-server without its client. Figures of llama-server are null when it is not asked for.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import llama_cpp
import numpy as np

from engine.native import build_name
from engine.settings import available_threads
from tests.bench.serving import llama_server
from tests.bench.serving.model import WEIGHTS, PromptMaker, make_model
from tests.bench.serving.table import HEAD, lines
from tests.bench.serving.timing import Round, processor_ns

PROMPT_TOKENS = (16, 512)
CONTEXT_TOKENS = 1024
REQUESTS_PER_STREAM, REQUESTS_MIN = 2, 6


def progress(text: str) -> None:
    """For whoever waits."""
    print(text, file=sys.stderr, flush=True)


class Contestant:
    """A process of tests/bench/serving; `pids` are those whose CPU counts."""

    def __init__(self, module: str, *arguments: object, pid: int | None = None) -> None:
        command = [sys.executable, "-m", f"tests.bench.serving.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        ready = self._read()
        self.pids: list[int] = [pid] if pid else ready["pids"]
        self.settings = ""

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended, see above")
        return json.loads(line)

    def ask(self, asked: Round) -> dict[str, float]:
        """One round's figures."""
        assert self._process.stdin is not None
        before_ns = sum(map(processor_ns, self.pids))
        self._process.stdin.write(asked.line() + "\n")
        self._process.stdin.flush()
        answer = self._read()
        used_ns = sum(map(processor_ns, self.pids)) - before_ns
        self.settings = answer["settings"]
        return figures(asked, answer, used_ns)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def figures(asked: Round, answer: Any, used_ns: int) -> dict[str, float]:
    """What a round says. RuntimeError unless exactly what was asked was done."""
    done = answer["requests"]
    wanted = sorted((each.input_tokens, each.output_tokens) for each in asked.requests)
    if wanted != sorted((each["input_tokens"], each["output_tokens"]) for each in done):
        raise RuntimeError(f"asked for {wanted}, done {done}")
    tokens = sum(each["output_tokens"] for each in done)
    ttft_ms = [each["ttft_ns"] / 1e6 for each in done]
    # One call after another has no gaps: all tokens come at once.
    gaps_ms = [gap_ns / 1e6 for each in done for gap_ns in each["gaps_ns"]] or [0.0]
    return {
        "tokens_per_s": tokens / (answer["duration_ns"] / 1e9),
        "tokens_per_cpu_s": tokens / (max(used_ns, 1) / 1e9),
        "ttft_p50_ms": float(np.percentile(ttft_ms, 50)),
        "ttft_p95_ms": float(np.percentile(ttft_ms, 95)),
        "gap_p50_ms": float(np.percentile(gaps_ms, 50)),
        "gap_max_ms": max(gaps_ms),
    }


def measure(
    options: argparse.Namespace, path: Path, maker: PromptMaker, level: int
) -> dict[str, Any]:
    """All figures of one model at one level."""
    end = "[]" if options.model is None else json.dumps(maker.end_tokens)
    with ExitStack() as stack:

        def start(module: str, *arguments: object, pid: int | None = None) -> Contestant:
            made = Contestant(module, *arguments, end, pid=pid)
            stack.callback(made.close)
            return made

        ours = start("peerd_side", path, options.threads, level, CONTEXT_TOKENS)
        sides = {"ours": ours, "busy": ours}
        sides["sequential"] = start("sequential_side", path, options.threads, CONTEXT_TOKENS)
        if options.llama_server:
            server = llama_server.LlamaServer(
                options.llama_server,
                path,
                options.cache / "llama-server.log",
                threads=options.threads,
                places=level,
                context_tokens=CONTEXT_TOKENS,
            )
            stack.callback(server.close)
            options.shares_libraries = server.shares_libraries
            sides["server"] = start("http_side", server.port, server.pid, pid=server.pid)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(-1, options.rounds):
            ask_all(options, maker, level, number, sides, results)
        return {**summary(results), "settings": ours.settings}


def ask_all(
    options: argparse.Namespace,
    maker: PromptMaker,
    level: int,
    number: int,
    sides: dict[str, Contestant],
    results: dict[str, list[dict[str, float]]],
) -> None:
    """One round of every contestant; round -1 is short, and only warms up."""
    count = 2 if number < 0 else max(REQUESTS_MIN, level * REQUESTS_PER_STREAM)
    names = list(sides)
    shift = number % len(names)
    for name in names[shift:] + names[:shift]:
        # A seed of its own where the same process runs twice: it knows the first's beginnings.
        seed = f"{number} {name == 'busy'}"
        requests = list(maker.requests(count, PROMPT_TOKENS, options.tokens, seed))
        if name == "sequential" and count > REQUESTS_MIN:
            requests = list(maker.requests(REQUESTS_MIN, PROMPT_TOKENS, options.tokens, seed))
        asked = Round(level, requests, name == "busy", options.clock == "processor")
        found = sides[name].ask(asked)
        if number >= 0:
            results[name].append(found)
            progress(f"  round {number + 1}: {name:<10} {found['tokens_per_s']:8.1f} tokens/s")


def summary(results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of the rounds."""
    ours = results["ours"]
    found: dict[str, Any] = {}
    for suffix, name in (("", "ours"), ("_llama_server", "server")):
        for figure in ours[0]:
            rounds = [each[figure] for each in results.get(name, ())]
            found[figure + suffix] = round(median(rounds), 2) if rounds else None

    def ratio(above: str, below: str, figure: str = "tokens_per_s") -> float | None:
        if above not in results or below not in results:
            return None
        pairs = zip(results[above], results[below], strict=True)
        return round(median(one[figure] / other[figure] for one, other in pairs), 3)

    found["ratio_llama_server"] = ratio("ours", "server")
    found["ratio_llama_server_cpu"] = ratio("ours", "server", "tokens_per_cpu_s")
    found["ratio_ttft_p50"] = ratio("ours", "server", "ttft_p50_ms")
    found["ratio_ttft_p95"] = ratio("ours", "server", "ttft_p95_ms")
    found["ratio_sequential"] = ratio("ours", "sequential")
    found["ratio_trio_busy"] = ratio("busy", "ours")
    return found


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "threads": options.threads,
        "engine": build_name(),
        "system": llama_cpp.llama_print_system_info().decode(),
        "llama_server_shares_libraries": options.shares_libraries,
    }


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line; --quick only changes what is not given."""
    parser = argparse.ArgumentParser(description="speed of the engine", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--levels", help="streams at once (1,4,8,16,32)")
    parser.add_argument("--weights", help=f"of the made model: {','.join(WEIGHTS)} (both)")
    parser.add_argument("--rounds", type=int, help="turns of every contestant (3)")
    parser.add_argument("--tokens", type=int, help="of each answer (64)")
    parser.add_argument("--quick", action="store_true", help="levels 1,8, one round, 32 tokens")
    parser.add_argument(
        "--threads",
        type=int,
        default=max(1, available_threads() - 1),
        help="of each contestant; the default leaves a core to the daemon or the client",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "peerd-bench",
        help="directory of the models and of llama-server's build (%(default)s)",
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "processor"),
        default="wall",
        help="for a machine with other work: processor time of worker and llama-server alone",
    )
    parser.add_argument("--model", type=Path, help="a GGUF instead of the made ones")
    server = parser.add_mutually_exclusive_group()
    server.add_argument("--llama-server", type=Path, help="a server's binary to compare with")
    server.add_argument(
        "--build-llama-server", action="store_true", help="make it first; takes minutes once"
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    options.levels = options.levels or ("1,8" if quick else "1,4,8,16,32")
    options.levels = [int(level) for level in options.levels.split(",")]
    options.weights = (options.weights or ",".join(WEIGHTS)).split(",")
    if unknown := set(options.weights) - set(WEIGHTS):
        parser.error(f"--weights: {', '.join(sorted(unknown))}: only {', '.join(WEIGHTS)}")
    options.rounds = options.rounds or (1 if quick else 3)
    options.tokens = options.tokens or (32 if quick else 64)
    options.shares_libraries = None
    return options


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures: `weights` -> type -> level."""
    if options.build_llama_server:
        progress("llama-server ...")
        options.llama_server = llama_server.build(options.cache)
    paths = {options.model.stem: options.model} if options.model else {}
    if not options.model:
        paths = {name: make_model(options.cache, name) for name in options.weights}
    weights: dict[str, dict[str, Any]] = {name: {} for name in paths}
    for name, path in paths.items():
        maker = PromptMaker(path)
        for level in options.levels:
            progress(f"{name}, {level} streams")
            weights[name][str(level)] = measure(options, path, maker, level)
    return {
        "machine": machine(options),
        "clock": options.clock,
        "rounds": options.rounds,
        "output_tokens": options.tokens,
        "prompt_tokens": PROMPT_TOKENS,
        "weights": weights,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table, or one JSON object."""
    options = read_options(arguments)
    found = run(options)
    if options.json:
        print(json.dumps(found))
        return
    print(*HEAD, *lines(found), sep="\n")


if __name__ == "__main__":
    main()
