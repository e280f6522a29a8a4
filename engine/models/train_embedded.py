"""Trains `embedded.gguf`, the small model that ships with the package, on a CPU.

Learns a vocabulary from the corpus, trains a LLaMA network on its chats (the loss is on what
the assistant says), writes the weights as q8_0, and f16 beside it for the check. Needs the
`train` extra. Must not know the engine. Rule: engine/models/README.md.

Run: `python -m engine.models.train_embedded [--steps N] [--out DIRECTORY]`; `--start` goes on from
the weights of another run.
"""

import argparse
import csv
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

# Idle threads that spin would take the cores from whoever shares them. Read by the import.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
import torch.nn.functional as F

from engine.models.corpus import Conversation, conversations, raw_texts
from engine.models.gguf_writer import Shape, write_model
from engine.models.network import Weights, arrays, forward, greedy, new_weights
from engine.models.tokenizer import Tokenizer, learn, words

MERGES = Path(__file__).with_name("merges.txt")
SEED = 20
HELD_OUT_SEED = 7_777_777
SHAPE = Shape(vocabulary=1024, dimension=256, layers=4, heads=4, key_heads=2, feed_forward=704)
STEPS = 3000
BATCH_TOKENS = 3072
LENGTH_MAX = 512
RAW_SHARE = 0.02
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_STEPS, FALLING_SHARE = 40, 0.8
IGNORED = -100

Sample = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: the most steps and seconds, the seed of its chats, its share of the learning rates.

    On a shared machine the seconds make it end in time; the fewer steps are then its end.
    """

    steps: int
    seconds: float
    seed: int
    rate: float


def known_tokenizer() -> Tokenizer:
    """The vocabulary of `merges.txt`: kept, so that weights outlive changes of the corpus."""
    text = MERGES.read_text(encoding="utf-8")
    pairs = (line.partition(" ") for line in text.splitlines())
    return Tokenizer([(left, right) for left, _, right in pairs])


def learn_tokenizer() -> Tokenizer:
    """A vocabulary from the first chats of the training seed, written to `merges.txt`."""
    counts: Counter[str] = Counter()
    for chat in islice(conversations(SEED), 20_000):
        for role, text in chat.turns:
            counts.update(words(f"{role}\n{text}"))
    tokenizer = learn(counts, SHAPE.vocabulary)
    lines = (f"{left} {right}\n" for left, right in tokenizer.merges)
    MERGES.write_text("".join(lines), encoding="utf-8")
    return tokenizer


def chat_sample(tokenizer: Tokenizer, chat: Conversation) -> Sample:
    """Inputs and targets of a chat; a target is IGNORED where the assistant does not speak."""
    tokens, said = tokenizer.chat(chat.turns)
    targets = [token if own else IGNORED for token, own in zip(tokens, said, strict=True)]
    return tokens[:-1][:LENGTH_MAX], targets[1:][:LENGTH_MAX]


def samples(tokenizer: Tokenizer, seed: int) -> Iterator[Sample]:
    """Chats, and now and then plain text, without end."""
    chats, texts, rng = conversations(seed), raw_texts(seed), random.Random(seed)
    while True:
        if rng.random() < RAW_SHARE:
            tokens = tokenizer.encode(next(texts))
            yield tokens[:-1][:LENGTH_MAX], tokens[1:][:LENGTH_MAX]
        else:
            yield chat_sample(tokenizer, next(chats))


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Samples of like lengths together: (rows, length) tokens and targets, BATCH_TOKENS in all."""
    source, rng = samples(tokenizer, seed), random.Random(seed)
    while True:
        ready = sorted(islice(source, 2048), key=lambda sample: len(sample[0]))
        groups: list[list[Sample]] = [[]]
        for sample in ready:
            if (len(groups[-1]) + 1) * len(sample[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(tokens) for tokens, _ in group)
            inputs = [tokens + [tokenizer.pad] * (longest - len(tokens)) for tokens, _ in group]
            wanted = [targets + [IGNORED] * (longest - len(targets)) for _, targets in group]
            yield torch.tensor(inputs), torch.tensor(wanted)


def loss_of(weights: Weights, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, in nats, of the targets that count."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = forward(weights, SHAPE, tokens)
        counted = targets != IGNORED
        scores = F.linear(state[counted], weights["token_embd"])
    return F.cross_entropy(scores.float(), targets[counted])


def rate(step: int, done: float) -> float:
    """The share of the full learning rate: a short rise, a plateau, a straight fall.

    `done` is the share of the run that is over, of [0, 1].
    """
    return min(1.0, (step + 1) / WARM_STEPS, (1 - done) / FALLING_SHARE)


def train(tokenizer: Tokenizer, weights: Weights, plan: Plan, out: Path) -> None:
    """Train the weights, writing `loss.csv` as it goes; the held-out loss is of other chats."""
    steps = plan.steps
    inner = [w for name, w in weights.items() if w.ndim == 2 and name != "token_embd"]
    outer = [w for name, w in weights.items() if w.ndim == 1 or name == "token_embd"]
    optimizers = (
        torch.optim.Muon(inner, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(outer, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.01),
    )
    full = (MUON_RATE * plan.rate, ADAM_RATE * plan.rate)
    held_out = list(islice(batches(tokenizer, HELD_OUT_SEED), 8))
    start, seen, sum_loss = time.monotonic(), 0, 0.0
    with (out / "loss.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("step", "tokens", "training_loss", "held_out_loss", "seconds"))
        for step, (tokens, targets) in enumerate(islice(batches(tokenizer, plan.seed), steps), 1):
            spent = time.monotonic() - start
            done = max((step - 1) / steps, spent / plan.seconds)
            if done >= 1:
                break
            for optimizer, top in zip(optimizers, full, strict=True):
                optimizer.param_groups[0]["lr"] = top * rate(step - 1, done)
            loss = loss_of(weights, tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(inner + outer, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            seen += tokens.numel()
            sum_loss += loss.item()
            if step % 50 == 0 or step == steps:
                with torch.no_grad():
                    other = sum(loss_of(weights, *batch).item() for batch in held_out) / 8
                mean = sum_loss / (step % 50 or 50)
                row = (step, seen, f"{mean:.4f}", f"{other:.4f}", round(spent))
                table.writerow(row)
                file.flush()
                print(*row, flush=True)
                sum_loss = 0.0
                if step % 100 == 0:
                    export(tokenizer, weights, out)
                    torch.save(weights, out / "weights.pt")


def export(tokenizer: Tokenizer, weights: Weights, out: Path) -> None:
    """Write `embedded.gguf` (q8_0) and `embedded-f16.gguf`."""
    for name, quantized in (("embedded.gguf", True), ("embedded-f16.gguf", False)):
        write_model(
            out / name,
            name="embedded",
            description="made by engine/models/train_embedded.py; for trying and testing",
            shape=SHAPE,
            vocabulary=tokenizer.vocabulary,
            merges=tokenizer.merges,
            tensors=arrays(weights),
            quantized=quantized,
        )


def write_answers(tokenizer: Tokenizer, weights: Weights, out: Path) -> None:
    """Write `answers.json`: what the network says before llama.cpp has anything to do with it."""
    found = []
    for chat in islice(conversations(HELD_OUT_SEED), 64):
        prompt, _ = tokenizer.chat(chat.turns[:-1])
        prompt += [tokenizer.turn, *tokenizer.encode("assistant\n")]
        answer = greedy(weights, SHAPE, prompt, tokenizer.end, 64)
        found.append({"prompt": prompt, "answer": answer})
    (out / "answers.json").write_text(json.dumps(found))


def main() -> None:
    """Train and write everything into a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end after so long")
    parser.add_argument("--seed", type=int, default=SEED, help="of the order of the chats")
    parser.add_argument("--new-vocabulary", action="store_true", help="learn merges.txt anew")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the learning rates")
    parser.add_argument("--start", type=Path, help="weights.pt of a run to go on from")
    parser.add_argument("--out", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = learn_tokenizer() if arguments.new_vocabulary else known_tokenizer()
    start = arguments.start
    weights = torch.load(start) if start else new_weights(SHAPE, SEED)
    seconds = arguments.minutes * 60
    plan = Plan(arguments.steps, seconds, arguments.seed, arguments.rate)
    train(tokenizer, weights, plan, arguments.out)
    export(tokenizer, weights, arguments.out)
    torch.save(weights, arguments.out / "weights.pt")
    write_answers(tokenizer, weights, arguments.out)


if __name__ == "__main__":
    main()
