"""The figures of tests/bench/engine.py as the table of engine/README.md.

    python -m tests.bench.serving.table FILE...

Each file holds the JSON of a run; several may have measured different levels or weights.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = (
    "| weights | streams | tokens/s | ratio | TTFT p50 ms | TTFT p95 ms | longest gap ms"
    " | to one after another | busy to idle |",
    "|---|---|---|---|---|---|---|---|---|",
)


def _pair(level: dict[str, Any], figure: str) -> str:
    ours, theirs = level[figure], level[f"{figure}_llama_server"]
    return f"{ours:.0f}" if theirs is None else f"{ours:.0f} / {theirs:.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The rows of one run; where there are two numbers, the second is llama-server's."""
    for weights, levels in found["weights"].items():
        for streams, level in levels.items():
            figures = ("tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "gap_max_ms")
            speed, *waits = (_pair(level, figure) for figure in figures)
            ratios = [_ratio(level[f"ratio_{name}"]) for name in ("sequential", "trio_busy")]
            faster = _ratio(level["ratio_llama_server"])
            yield f"| {' | '.join([weights, streams, speed, faster, *waits, *ratios])} |"


def main() -> None:
    """Print the table of several runs."""
    rows = [row for path in sys.argv[1:] for row in lines(json.loads(Path(path).read_text()))]
    rows.sort(key=lambda row: (row.split()[1], int(row.split()[3])))
    print(*HEAD, *rows, sep="\n")


if __name__ == "__main__":
    main()
