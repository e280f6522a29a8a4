"""Writes a small LLaMA-architecture GGUF: shapes, vocabulary, template, tensors.

Must not know how the weights came to be. Rule: engine/models/README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from engine.models.tokenizer import CONTROL_TOKENS

TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
ROPE_BASE = 10_000.0
EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model; `vocabulary` counts the control tokens."""

    vocabulary: int
    dimension: int
    layers: int
    heads: int
    key_heads: int
    feed_forward: int
    context_tokens: int = 2048

    @property
    def head(self) -> int:
        """The size of one attention head."""
        return self.dimension // self.heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of each tensor; the output weights are the embedding's."""
        wide = self.dimension
        found: dict[str, tuple[int, ...]] = {"token_embd": (self.vocabulary, wide)}
        for index in range(self.layers):
            layer = {
                "attn_norm": (wide,),
                "attn_q": (wide, wide),
                "attn_k": (self.key_heads * self.head, wide),
                "attn_v": (self.key_heads * self.head, wide),
                "attn_output": (wide, wide),
                "ffn_norm": (wide,),
                "ffn_gate": (self.feed_forward, wide),
                "ffn_up": (self.feed_forward, wide),
                "ffn_down": (wide, self.feed_forward),
            }
            found |= {f"blk.{index}.{name}": shape for name, shape in layer.items()}
        return found | {"output_norm": (wide,)}


def write_model(
    path: Path,
    *,
    name: str,
    description: str,
    shape: Shape,
    vocabulary: list[str],
    merges: list[tuple[str, str]],
    tensors: Mapping[str, npt.NDArray[np.float32]],
    quantized: bool = False,
) -> None:
    """Write a model whose last tokens are CONTROL_TOKENS; matrices in q8_0 or f16.

    `tensors` has the names of `Shape.tensors`, and may have "output" beside them.
    """
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.MOSTLY_F16
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_description(description)
    writer.add_license("MIT")
    writer.add_file_type(int(kind))
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.dimension)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(ROPE_BASE)
    _add_tokenizer(writer, vocabulary, merges)
    for key, tensor in tensors.items():
        if tensor.ndim == 1:
            writer.add_tensor(f"{key}.weight", tensor.astype(np.float32))
        elif quantized:
            q8_0 = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(tensor.astype(np.float32), q8_0)
            writer.add_tensor(f"{key}.weight", packed, raw_dtype=q8_0)
        else:
            writer.add_tensor(f"{key}.weight", tensor.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(
    writer: gguf.GGUFWriter, vocabulary: list[str], merges: list[tuple[str, str]]
) -> None:
    begin, _turn, end, pad = (vocabulary.index(name) for name in CONTROL_TOKENS)
    plain = len(vocabulary) - len(CONTROL_TOKENS)
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([normal] * plain + [control] * len(CONTROL_TOKENS))
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
