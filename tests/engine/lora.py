"""Small LoRA files for a model, written with random numbers from a seed."""

from pathlib import Path

import gguf
import numpy as np

RANK = 4
TARGETS = ("attn_q.weight", "ffn_down.weight")


def write_lora(
    path: Path,
    base: Path,
    *,
    strength: float = 3.0,
    seed: int = 1,
    kind: str = "adapter",
    architecture: str = "llama",
    wider: int = 0,
) -> Path:
    """An adapter of two matrices a layer; `strength` 0 changes nothing, `wider` fits no model."""
    chance = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_string("general.type", kind)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for tensor in gguf.GGUFReader(str(base)).tensors:
        if not tensor.name.startswith("blk.") or not tensor.name.endswith(TARGETS):
            continue
        inner, outer = int(tensor.shape[0]) + wider, int(tensor.shape[1])
        down = chance.normal(0, inner**-0.5, (RANK, inner))
        up = chance.normal(0, strength, (outer, RANK))
        writer.add_tensor(f"{tensor.name}.lora_a", down.astype(np.float32))
        writer.add_tensor(f"{tensor.name}.lora_b", up.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
