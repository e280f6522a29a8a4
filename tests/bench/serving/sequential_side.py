"""`llama_cpp.Llama`, the library's own interface: one call after another, whatever the streams.

python -m tests.bench.serving.sequential_side MODEL THREADS CONTEXT_TOKENS END_TOKENS
"""

import json
import os
import sys

from llama_cpp import Llama

from tests.bench.serving.timing import Clock, report, rounds, stopwatch, tell


def main() -> None:
    """Serve rounds until the input ends."""
    path, threads, context_tokens, end_tokens = sys.argv[1:]
    llama = Llama(
        path,
        n_ctx=int(context_tokens),
        n_threads=int(threads),
        n_threads_batch=int(threads),
        n_batch=2048,
        n_ubatch=512,
        flash_attn=True,
        verbose=False,
    )
    bias = dict.fromkeys(json.loads(end_tokens), -100.0)
    tell({"pids": [os.getpid()]})
    for asked in rounds():
        clocks = []
        now_ns = stopwatch(os.getpid(), processor=asked.processor)
        start_ns = now_ns()
        for request in asked.requests:
            clock = Clock(now_ns)
            usage = llama.create_completion(
                request.text,
                max_tokens=request.output_tokens,
                temperature=0.0,
                logit_bias=bias or None,
            )["usage"]
            clock.tick()
            clock.input_tokens = usage["prompt_tokens"]
            clock.output_tokens = usage["completion_tokens"]
            clocks.append(clock)
        report(now_ns() - start_ns, clocks)


if __name__ == "__main__":
    main()
