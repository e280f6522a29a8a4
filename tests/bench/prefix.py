"""What a known beginning saves: six requests that share about 700 tokens, with and without.

    python -m tests.bench.prefix [--json] [--tokens N]

CPU of this process for six prompts with the same beginning and endings of their own, each
answered with one token, in three forms: `after`, one when the last has ended; `beside`, five
while the first is still answering (its beginning is copied); `together`, all at the same instant
(five wait until the first has read what they share). Both sides take turns within a run,
on one thread; the figures are medians of the turns, the ratios medians of the turns' ratios.
`alike` says whether every token was the same on both sides.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from engine.batcher import Batcher
from engine.embedded import embedded_model_path
from engine.frames import JobEvent, JobFinished, JobTokens, Submit
from engine.native import NativeModel, start_backend
from engine.prompts import PromptReader
from engine.speed import Speedometer
from protocol.fields import ChatMessage, GenerationParameters, InferenceType, Prompt

REQUESTS = 6
PLACES = 8
TURNS = 5
FORMS = ("after", "beside", "together")
SENTENCE = "A peer asks the others for an answer, and pays whoever gives it. "


def prompts_of(reader: PromptReader, tokens: int) -> list[Prompt]:
    """Six chats that begin with the same `tokens` tokens, or a few more."""
    text = ""
    while True:
        text += SENTENCE
        chats = [
            Prompt(InferenceType.CHAT, (ChatMessage("user", f"{text}{number} and so on?"),))
            for number in range(REQUESTS)
        ]
        if len(reader.read(chats[0])) >= tokens:
            return chats


def measure(model: NativeModel, reader: PromptReader, form: str, reuse: bool, tokens: int) -> Any:
    """CPU ms, tokens that were reused, and the tokens made."""
    events: list[JobEvent] = []
    batcher = Batcher(
        model,
        reader,
        Speedometer(PLACES),
        events.append,
        chunk_tokens=256,
        queue_jobs=REQUESTS,
        prefix_reuse=reuse,
    )
    chats = prompts_of(reader, tokens)
    start_ns = time.process_time_ns()
    for handle, chat in enumerate(chats):
        stays = form == "beside" and not handle
        asked = GenerationParameters(8 if stays else 1, 0, 0, 1000, 1, ())
        batcher.submit(Submit(handle, chat, asked))
        while form == "after" and batcher.is_busy:
            batcher.step()
        while stays and not any(isinstance(event, JobTokens) for event in events):
            batcher.step()
    while batcher.is_busy:
        batcher.step()
    cpu_ms = (time.process_time_ns() - start_ns) / 1e6
    made = sorted((e.handle, e.ids) for e in events if isinstance(e, JobTokens))
    reused = sum(event.reused_tokens for event in events if isinstance(event, JobFinished))
    return cpu_ms, reused, made


def run(path: Path, tokens: int) -> dict[str, Any]:
    """All figures of one model."""
    start_backend()
    model = NativeModel(path, places=PLACES, context_tokens=1024, threads=1)
    reader = PromptReader(model.vocabulary, model.chat_template, model.context_tokens)
    figures: dict[str, Any] = {"requests": REQUESTS, "shared_tokens": tokens}
    for form in FORMS:
        whole, reusing = [], []
        for _ in range(TURNS):
            whole.append(measure(model, reader, form, False, tokens))
            reusing.append(measure(model, reader, form, True, tokens))
        figures[form] = {
            "whole_cpu_ms": round(median(each[0] for each in whole), 1),
            "reusing_cpu_ms": round(median(each[0] for each in reusing), 1),
            "times_cheaper": round(
                median(a[0] / b[0] for a, b in zip(whole, reusing, strict=True)), 1
            ),
            "reused_tokens": reusing[0][1],
            "alike": whole[0][2] == reusing[0][2],
        }
    model.close()
    return figures


def main() -> None:
    """Measure and print a line for each form, or one JSON object."""
    parser = argparse.ArgumentParser(description="CPU of prompts that begin alike")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--model", type=Path, default=embedded_model_path())
    options = parser.parse_args()
    figures = run(options.model, options.tokens)
    if options.json:
        print(json.dumps(figures))
        return
    for form in FORMS:
        print(form, *(f"{name}={value}" for name, value in figures[form].items()))


if __name__ == "__main__":
    main()
