"""Makes `embedded.gguf`, the small model that ships with the package.

LLaMA architecture, byte-level BPE of 512 tokens learnt from `corpus.txt`, no training: the
output weights hold which token follows which in the corpus, under random codes, and two
layers of small random weights let the earlier text stir the choice. It answers in words of
the corpus and knows nothing. A tilde makes it end its answer. Every weight is a small
integer times a power of two, from SHAKE-256 and integer arithmetic, so a rebuild has the same
bytes on every machine. Must not know the engine. Rule: engine/README.md.

Run: `python -m engine.models.make_embedded [path]`.
"""

import hashlib
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

DIMENSION = 256
LAYERS = 2
HEADS = 4
KEY_HEADS = 2
FEED_FORWARD = 384
CONTEXT_TOKENS = 2048
VOCABULARY = 512
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
BEGIN, TURN, END, PAD = range(VOCABULARY - len(CONTROL_TOKENS), VOCABULARY)
END_CHARACTER = "~"

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# How GPT-2 cuts text into words before it merges: the "gpt-2" pre-tokeniser, for ASCII.
WORD = re.compile(r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")

Matrix = npt.NDArray[np.float16]


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in the order of the bytes."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]


def merge(word: list[str], left: str, right: str) -> list[str]:
    """The word with each adjacent (left, right) made one symbol."""
    merged: list[str] = []
    for symbol in word:
        # What was just merged is longer than `left`, so it is never merged twice in a pass.
        if merged and merged[-1] == left and symbol == right:
            merged[-1] = left + right
        else:
            merged.append(symbol)
    return merged


def learn_merges(text: str) -> tuple[list[str], list[str], list[str]]:
    """Byte-pair encoding of `text`: the vocabulary, the merges and the text in symbols."""
    symbols = byte_symbols()
    order = WORD.findall(text)
    counts = Counter(order)
    words = {word: [symbols[byte] for byte in word.encode()] for word in counts}
    vocabulary = list(symbols)
    merges: list[str] = []
    while len(vocabulary) < VOCABULARY - len(CONTROL_TOKENS):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in counts.items():
            for pair in pairwise(words[word]):
                pairs[pair] += count
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(f"{left} {right}")
        vocabulary.append(left + right)
        words = {word: merge(parts, left, right) for word, parts in words.items()}
    return vocabulary, merges, [symbol for word in order for symbol in words[word]]


def noise(name: str, rows: int, columns: int, scale: float) -> Matrix:
    """Integers of [-128, 127] times `scale` (a power of two), from the tensor's name."""
    raw = hashlib.shake_256(name.encode()).digest(rows * columns)
    return (np.frombuffer(raw, np.int8).reshape(rows, columns) * scale).astype(np.float16)


def codes_and_scores(vocabulary: list[str], text: list[str]) -> tuple[Matrix, Matrix]:
    """The embedding (a random +-1 code for each token) and the output weights.

    Element 0 of the hidden state is kept constant by the layers, so the output's column 0 is
    a bias: it keeps unseen bytes and control tokens out of answers.
    """
    raw = hashlib.shake_256(b"codes").digest(VOCABULARY * DIMENSION)
    signs = np.where(np.frombuffer(raw, np.int8).reshape(VOCABULARY, DIMENSION) < 0, -1, 1)
    signs[:, 0] = 0
    number = {symbol: index for index, symbol in enumerate(vocabulary)}
    follows = np.zeros((VOCABULARY, VOCABULARY), np.int64)
    for (before, after), count in Counter(pairwise(text)).items():
        follows[number[before], number[after]] = 5 + count.bit_length()
    follows[number[END_CHARACTER], END] = 64
    embedding = signs.astype(np.float16)
    embedding[:, 0] = 4
    # Exact: both factors are integers, the scale is a power of two.
    output = (follows.T @ signs) / 128
    output[:, 0] = np.where(follows.any(axis=0), 0, -6)
    output[END, 0] = -16
    return embedding, output.astype(np.float16)


def layer(index: int) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of one layer; what it writes leaves element 0 of the state alone."""
    name = f"blk.{index}."
    head = DIMENSION // HEADS
    ones = np.ones(DIMENSION, np.float32)
    written = {
        "attn_output": noise(name + "o", DIMENSION, DIMENSION, 2**-10),
        "ffn_down": noise(name + "down", DIMENSION, FEED_FORWARD, 2**-11),
    }
    for matrix in written.values():
        matrix[0] = 0
    tensors: dict[str, npt.NDArray[np.generic]] = {
        "attn_norm": ones,
        "attn_q": noise(name + "q", DIMENSION, DIMENSION, 2**-10),
        "attn_k": noise(name + "k", KEY_HEADS * head, DIMENSION, 2**-10),
        "attn_v": noise(name + "v", KEY_HEADS * head, DIMENSION, 2**-10),
        "ffn_norm": ones,
        "ffn_gate": noise(name + "gate", FEED_FORWARD, DIMENSION, 2**-10),
        "ffn_up": noise(name + "up", FEED_FORWARD, DIMENSION, 2**-10),
        **written,
    }
    return {f"{name}{key}.weight": tensor for key, tensor in tensors.items()}


def describe(writer: gguf.GGUFWriter, vocabulary: list[str], merges: list[str]) -> None:
    """The header: architecture, tokeniser and template."""
    writer.add_name("embedded")
    writer.add_description("made by engine/models/make_embedded.py; for trying and testing")
    writer.add_license("MIT")
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_F16))
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(DIMENSION)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(2**-17)
    writer.add_rope_dimension_count(DIMENSION // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*vocabulary, *CONTROL_TOKENS])
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_token_types([normal] * len(vocabulary) + [control] * len(CONTROL_TOKENS))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def make(path: Path) -> None:
    """Write the model to `path`; the same bytes on every run and machine."""
    text = Path(__file__).with_name("corpus.txt").read_text(encoding="utf-8")
    vocabulary, merges, symbols = learn_merges(text)
    embedding, output = codes_and_scores(vocabulary, symbols)
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, vocabulary, merges)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(DIMENSION, np.float32))
    writer.add_tensor("output.weight", output)
    for index in range(LAYERS):
        for name, tensor in layer(index).items():
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("embedded.gguf"))
