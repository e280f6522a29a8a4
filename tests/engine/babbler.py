"""A tests-only model that never runs out of words: seeded weights, nothing learnt.

The tests of batching, pipes and deaths need answers of any length, which the trained model does
not give: it stops. The output weights hold which token follows which in `babble.txt`, under random
codes, and two layers of small random weights let the earlier text stir the choice. A tilde makes
it end its answer. Every weight is a small integer times a power of two, from SHAKE-256.
"""

import hashlib
import tempfile
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.models.gguf_writer import Shape, write_model
from engine.models.tokenizer import Tokenizer, learn, words

BABBLER_NAME = "babbler"
END_CHARACTER = "~"
SHAPE = Shape(vocabulary=512, dimension=256, layers=2, heads=4, key_heads=2, feed_forward=384)

Matrix = npt.NDArray[np.float32]


def noise(name: str, size: tuple[int, ...], scale: float) -> Matrix:
    """Integers of [-128, 127] times `scale` (a power of two), from the tensor's name."""
    raw = hashlib.shake_256(name.encode()).digest(size[0] * size[1])
    return (np.frombuffer(raw, np.int8).reshape(size) * scale).astype(np.float32)


def codes_and_scores(tokenizer: Tokenizer, text: list[int]) -> tuple[Matrix, Matrix]:
    """The embedding (a random +-1 code for each token) and the output weights.

    Element 0 of the hidden state is kept constant by the layers, so the output's column 0 is
    a bias: it keeps unseen bytes and control tokens out of answers.
    """
    size = (SHAPE.vocabulary, SHAPE.dimension)
    signs = np.where(noise("codes", size, 1) < 0, -1, 1)
    signs[:, 0] = 0
    follows = np.zeros((SHAPE.vocabulary, SHAPE.vocabulary), np.int64)
    for (before, after), count in Counter(pairwise(text)).items():
        follows[before, after] = 5 + count.bit_length()
    (tilde,) = tokenizer.encode(END_CHARACTER)
    follows[tilde, tokenizer.end] = 64
    embedding = signs.astype(np.float32)
    embedding[:, 0] = 4
    output = (follows.T @ signs) / 128
    output[:, 0] = np.where(follows.any(axis=0), 0, -6)
    output[tokenizer.end, 0] = -16
    return embedding, output.astype(np.float32)


def tensors(tokenizer: Tokenizer, text: list[int]) -> dict[str, Matrix]:
    """All weights; what a layer writes leaves element 0 of the state alone."""
    embedding, output = codes_and_scores(tokenizer, text)
    found = {"token_embd": embedding, "output": output}
    for name, size in SHAPE.tensors().items():
        if len(size) == 1:
            found[name] = np.ones(size, np.float32)
        elif name.startswith("blk."):
            short = name.replace("attn_output", "o").replace("attn_", "").replace("ffn_", "")
            found[name] = noise(short, size, 2**-11 if short.endswith("down") else 2**-10)
            if name.endswith(("attn_output", "ffn_down")):
                found[name][0] = 0
    return found


@cache
def _home() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="peerd-babbler-")


@cache
def babbler_path() -> Path:
    """The model's file, made once in a process and gone with it."""
    lines = Path(__file__).with_name("babble.txt").read_text(encoding="utf-8")
    tokenizer = learn(Counter(words(lines)), SHAPE.vocabulary)
    path = Path(_home().name) / "babbler.gguf"
    write_model(
        path,
        name=BABBLER_NAME,
        description="made by tests/engine/babbler.py",
        shape=SHAPE,
        vocabulary=tokenizer.vocabulary,
        merges=tokenizer.merges,
        tensors=tensors(tokenizer, tokenizer.encode(lines)),
    )
    return path
