"""A small real generation at start: proves that a model works here and how fast it is.

Must not know jobs or pipes. Rule: engine/README.md.
"""

import time

import numpy as np

from engine.native import NativeModel, Row
from engine.prompts import PromptReader
from engine.speed import Speedometer
from protocol import limits
from protocol.errors import EngineError
from protocol.fields import ChatMessage, InferenceType, Prompt

GREETING = Prompt(InferenceType.CHAT, (ChatMessage("user", "Hello, how are you?"),))
PROMPT_TOKENS = 64
DECODE_STEPS = 4


def calibrate(model: NativeModel, prompts: PromptReader, speedometer: Speedometer) -> int:
    """Read a prompt, decode alone, then with every place; the time of reading one token in ns.

    That is this thread's own time, which other work on the machine does not stretch; the
    speedometer gets what the clock says.

    What it leaves in the sequences is forgotten when a job takes the place.

    EngineError `engine.bad_model` when the template fails or the logits are not finite.
    """
    try:
        tokens = prompts.read(GREETING)
    except EngineError as error:
        raise EngineError("engine.bad_model", f"self-test: {error.detail}") from None
    count = min(PROMPT_TOKENS, model.context_tokens - 2 * DECODE_STEPS - 2)
    tokens = (tokens * PROMPT_TOKENS)[: max(1, count)]
    deadline_ns = time.perf_counter_ns() + limits.ENGINE_CALIBRATION_NS_MAX
    # The first step of a shape also allocates, so each is done once before it counts.
    _run(model, [Row(0, 0, tokens, True)])
    model.forget(0)
    start_ns, thread_ns = time.perf_counter_ns(), time.thread_time_ns()
    _run(model, [Row(0, 0, tokens, True)])
    thread_ns = time.thread_time_ns() - thread_ns
    speedometer.record(0, len(tokens), time.perf_counter_ns() - start_ns)
    positions = [len(tokens)] + [0] * (model.places - 1)
    _decode(model, positions, tokens[0], model.places)
    for load in sorted({1, model.places}):
        best_ns = 0
        for _ in range(DECODE_STEPS):
            start_ns = time.perf_counter_ns()
            _decode(model, positions, tokens[0], load)
            now_ns = time.perf_counter_ns()
            best_ns = min(best_ns or now_ns - start_ns, now_ns - start_ns)
            if now_ns > deadline_ns:
                break
        speedometer.record(load, 0, best_ns)
    return thread_ns // len(tokens)


def _decode(model: NativeModel, positions: list[int], token: int, load: int) -> None:
    """One step of the first `load` sequences, which moves their positions."""
    _run(model, [Row(place, positions[place], [token], True) for place in range(load)])
    for place in range(load):
        positions[place] += 1


def _run(model: NativeModel, rows: list[Row]) -> None:
    model.decode(rows)
    if not np.isfinite(model.logits(len(rows))).all():
        raise EngineError("engine.bad_model", "self-test: scores are not finite numbers")


def try_adapters(model: NativeModel) -> None:
    """One token with each adapter. EngineError `engine.bad_model` as `calibrate`."""
    for number in range(1, model.adapters + 1):
        model.use_adapter(number)
        model.forget(0)
        model.decode([Row(0, 0, [0], True)])
        if not np.isfinite(model.logits(1)).all():
            detail = f"self-test: adapter {number} gives scores that are not finite numbers"
            raise EngineError("engine.bad_model", detail)
    model.use_adapter(0)
