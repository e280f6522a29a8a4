"""Asks a model questions through the engine at temperature 0, and counts the right answers.

The questions are a TOML file of the tests: `[category]`, then `"question" = ["words", ...]`, all
of which the answer must hold. Rule: engine/models/README.md.

Run: `python -m engine.models.evaluate [model.gguf] [questions.toml]`, or `--check f16.gguf
answers.json` to compare llama.cpp's tokens with those of the network that was trained.
"""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.batcher import Batcher
from engine.embedded import embedded_model_path
from engine.frames import JobEvent, JobFailed, JobFinished, JobTokens, Submit
from engine.native import NativeModel, Row, start_backend
from engine.prompts import PromptReader
from engine.speed import Speedometer
from protocol.fields import (
    ChatMessage,
    FinishReason,
    GenerationParameters,
    InferenceType,
    Prompt,
)

PLACES = 8
ANSWER_TOKENS_MAX = 128
QUESTIONS = Path(__file__).parents[2] / "tests" / "engine" / "held_out.toml"

Chat = tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said: text, tokens, and whether it ended by itself."""

    text: str
    tokens: int
    stopped: bool


def user(*texts: str) -> Chat:
    """A chat of user and assistant turns, the user's first."""
    roles = ("user", "assistant")
    return tuple(ChatMessage(roles[index % 2], text) for index, text in enumerate(texts))


def answers(path: Path, chats: Sequence[Chat]) -> list[Answer]:
    """The greedy answers to chats, in their order."""
    start_backend()
    model = NativeModel(path, places=PLACES, context_tokens=1024, threads=1)
    try:
        events: list[JobEvent] = []
        batcher = Batcher(
            model,
            PromptReader(model.vocabulary, model.chat_template, model.context_tokens),
            Speedometer(model.places),
            events.append,
            chunk_tokens=256,
            queue_jobs=len(chats),
        )
        greedy = GenerationParameters(ANSWER_TOKENS_MAX, 0, 0, 1000, 1, ())
        for number, chat in enumerate(chats):
            batcher.submit(Submit(number, Prompt(InferenceType.CHAT, chat), greedy))
        while batcher.is_busy:
            batcher.step()
    finally:
        model.close()
    texts = [""] * len(chats)
    ends: dict[int, JobFinished] = {}
    for event in events:
        if isinstance(event, JobTokens):
            texts[event.handle] += event.text
        elif isinstance(event, JobFinished):
            ends[event.handle] = event
        elif isinstance(event, JobFailed):
            raise ValueError(f"{event.code}: {event.detail}")
    return [
        Answer(text, ends[number].output_tokens, ends[number].reason == FinishReason.STOP)
        for number, text in enumerate(texts)
    ]


def holds(text: str, words: Sequence[str]) -> bool:
    """Whether an answer holds all the words, whatever the case; `a|b` is a or b."""
    small = text.lower()
    return all(any(part in small for part in word.lower().split("|")) for word in words)


def questions(path: Path = QUESTIONS) -> Mapping[str, Mapping[str, list[str]]]:
    """Category -> question -> the words of a right answer."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def measure(
    path: Path, asked: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, list[tuple[str, Answer, bool]]]:
    """Category -> (question, answer, whether it is right and ended by itself)."""
    flat = [(name, text, words) for name, held in asked.items() for text, words in held.items()]
    said = answers(path, [user(text) for _, text, _ in flat])
    found: dict[str, list[tuple[str, Answer, bool]]] = {name: [] for name in asked}
    for (name, text, words), answer in zip(flat, said, strict=True):
        found[name].append((text, answer, answer.stopped and holds(answer.text, words)))
    return found


def agreement(path: Path, cases: Sequence[Mapping[str, list[int]]]) -> int:
    """In how many cases llama.cpp's greedy tokens are the network's own, token for token."""
    start_backend()
    model = NativeModel(path, places=1, context_tokens=1024, threads=1)
    equal = 0
    for case in cases:
        tokens, said = list(case["prompt"]), list[int]()
        position = 0
        while len(said) <= len(case["answer"]):
            model.decode([Row(0, position, tokens, True)])
            position += len(tokens)
            best = int(model.logits(1)[0].argmax())
            if best in model.vocabulary.end_tokens:
                break
            said.append(best)
            tokens = [best]
        equal += said[: len(case["answer"])] == case["answer"]
        model.forget(0)
    model.close()
    return equal


def main(arguments: list[str]) -> None:
    """Print the accuracy by category and every wrong answer, or the agreement."""
    if arguments[:1] == ["--check"]:
        cases = json.loads(Path(arguments[2]).read_text())
        print(f"{agreement(Path(arguments[1]), cases)} of {len(cases)} answers are equal")
        return
    path = Path(arguments[0]) if arguments else embedded_model_path()
    found = measure(path, questions(Path(arguments[1])) if arguments[1:] else questions())
    for name, results in found.items():
        right = sum(fine for _, _, fine in results)
        print(f"{name:14} {right} of {len(results)}")
    for results in found.values():
        for text, answer, fine in results:
            if not fine:
                print(f"wrong: {text!r} -> {answer.text!r}")


if __name__ == "__main__":
    main(sys.argv[1:])
