"""A LLaMA of about 125 million parameters with seeded random weights, and prompts for it.

Its 32,000 tokens are 3 control tokens, 256 bytes, single characters and made-up words. Every
beginning of a word is a token too, and nothing else joins characters, so each word of a prompt
is one token. What is no text scores 0 at the end of the network, which the best of 32,000
random scores always beats: greedy output is words, and never ends by itself.
"""

import ctypes
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from engine.native import Vocabulary, start_backend

# In the file's name: what is made differently is another file.
VERSION = 1
VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS, FEED_FORWARD = 32_000, 768, 12, 12, 4, 2048
CONTEXT_TOKENS = 4096
CONTROL = ("<unk>", "<s>", "</s>")
SPACE = "\u2581"  # what the tokeniser makes of a space
TEMPLATE = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
WEIGHTS = {"f16": None, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}


def words() -> list[str]:
    """Tokens of whole words and of their beginnings: a shorter one is before a longer one."""
    letters = ("bcdfghjklmnprstvwxyz", "aeiou")
    known = [SPACE]
    for parent in known:
        for letter in letters[len(parent) % 2 == 0]:
            known.append(parent + letter)
            if len(known) == VOCABULARY:
                break
        if len(known) == VOCABULARY:
            break
    return known[1:]


def _tokens() -> tuple[list[str], list[int], list[float]]:
    """The vocabulary: texts, kinds and scores; the tokeniser joins the higher score first."""
    kind = gguf.TokenType
    texts = [
        *CONTROL,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        SPACE,
        *map(chr, range(33, 127)),
    ]
    kinds = [kind.UNKNOWN, kind.CONTROL, kind.CONTROL, *[kind.BYTE] * 256]
    texts += words()[: VOCABULARY - len(texts)]
    kinds += [kind.NORMAL] * (VOCABULARY - len(kinds))
    return texts, [int(each) for each in kinds], [-float(index) for index in range(VOCABULARY)]


def _write(path: Path) -> None:
    rng = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("bench-125m")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(VOCABULARY)
    texts, kinds, scores = _tokens()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_scores(scores)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)

    def matrix(name: str, rows: int, columns: int, scale: float = 1.0) -> None:
        values = rng.standard_normal((rows, columns), np.float32) * np.float32(
            scale * columns**-0.5
        )
        if name == "output":
            values[: len(CONTROL) + 256] = 0
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    ones = np.ones(WIDTH, np.float32)
    matrix("token_embd", VOCABULARY, WIDTH, WIDTH**0.5)
    matrix("output", VOCABULARY, WIDTH, 3.0)
    writer.add_tensor("output_norm.weight", ones)
    keys = WIDTH // HEADS * KV_HEADS
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        writer.add_tensor(f"{block}.attn_norm.weight", ones)
        writer.add_tensor(f"{block}.ffn_norm.weight", ones)
        matrix(f"{block}.attn_q", WIDTH, WIDTH, 2.0)
        matrix(f"{block}.attn_k", keys, WIDTH, 2.0)
        matrix(f"{block}.attn_v", keys, WIDTH)
        matrix(f"{block}.attn_output", WIDTH, WIDTH)
        matrix(f"{block}.ffn_gate", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_up", FEED_FORWARD, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantize(source: Path, target: Path, kind: int) -> None:
    start_backend()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = kind
    status = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)
    )
    if status:
        raise RuntimeError(f"llama_model_quantize returned {status} for {target}")


def make_model(cache: Path, weights: str) -> Path:
    """The file with these weights (a key of WEIGHTS); made when the cache does not have it."""
    path = cache / f"bench-125m-v{VERSION}-{weights}.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Under another name until it is whole: an interrupted run must not leave half a file.
        part = path.with_suffix(".part")
        kind = WEIGHTS[weights]
        if kind is None:
            _write(part)
        else:
            _quantize(make_model(cache, "f16"), part, kind)
        part.rename(path)
    return path


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: a text of `input_tokens` tokens, and exactly how many shall follow."""

    text: str
    input_tokens: int
    output_tokens: int


class PromptMaker:
    """Prompts of exact lengths for a model, from words that are one token each."""

    def __init__(self, path: Path) -> None:
        start_backend()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
        vocabulary = Vocabulary(model)
        self._tokenize = vocabulary.tokenize
        self._begin = int(vocabulary.begins_texts)
        # Only the end tokens of a model that was not made here can come up.
        self.end_tokens = sorted(vocabulary.end_tokens)
        pieces = (piece.decode("utf-8", "replace") for piece in vocabulary.pieces)
        self._words = [piece[1:] for piece in pieces if piece[:1] == " " and piece[1:].isalpha()]

    def requests(
        self, count: int, lengths: tuple[int, int], output_tokens: int, seed: str
    ) -> Sequence[Request]:
        """`count` requests with lengths spread evenly over a range, in a seeded order.

        No two begin alike, so nobody's known beginnings help.
        """
        rng = random.Random(seed)
        low, high = lengths
        spread = [low + (high - low) * index // max(1, count - 1) for index in range(count)]
        if count == 1:
            spread = [(low + high) // 2]
        rng.shuffle(spread)
        return [self._request(rng, length, output_tokens) for length in spread]

    def _request(self, rng: random.Random, length: int, output_tokens: int) -> Request:
        chosen: list[str] = []
        while True:
            chosen.append(rng.choice(self._words))
            if len(chosen) + self._begin < length:
                continue
            text = " ".join(chosen)
            tokens = len(self._tokenize(text)) + self._begin
            if tokens >= length:
                return Request(text, tokens, output_tokens)
