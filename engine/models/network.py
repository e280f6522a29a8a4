"""The LLaMA network in PyTorch, with llama.cpp's conventions: rope turns neighbouring pairs.

Used for training only. Must not know text. Rule: engine/models/README.md.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from engine.models.gguf_writer import EPSILON, ROPE_BASE, Shape

Weights = dict[str, torch.Tensor]


def new_weights(shape: Shape, seed: int) -> Weights:
    """Random weights to begin with; what a layer adds to the state begins small."""
    chance = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, size in shape.tensors().items():
        if len(size) == 1:
            start = torch.ones(size)
        else:
            spread = 0.02
            if name.endswith(("attn_output", "ffn_down")):
                spread /= (2 * shape.layers) ** 0.5
            start = torch.randn(size, generator=chance) * spread
        weights[name] = start.requires_grad_(True)
    return weights


def rope_tables(shape: Shape, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, (length, head / 2)."""
    frequency = ROPE_BASE ** (-torch.arange(0, shape.head, 2) / shape.head)
    angle = torch.outer(torch.arange(length), frequency)
    return angle.cos(), angle.sin()


def turn(x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rope on (rows, heads, length, head): element 2i turns with element 2i + 1."""
    cosine, sine = tables
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1)
    return turned.flatten(-2)


def forward(weights: Weights, shape: Shape, tokens: torch.Tensor) -> torch.Tensor:
    """The state after the last layer, (rows, length, dimension), of tokens (rows, length)."""
    rows, length = tokens.shape
    tables = rope_tables(shape, length)
    size = (shape.dimension,)

    def heads(x: torch.Tensor, count: int) -> torch.Tensor:
        return x.view(rows, length, count, shape.head).transpose(1, 2)

    state = weights["token_embd"][tokens]
    for index in range(shape.layers):
        w = {name: weights[f"blk.{index}.{name}"] for name in _LAYER}
        x = F.rms_norm(state, size, w["attn_norm"], EPSILON)
        query = turn(heads(F.linear(x, w["attn_q"]), shape.heads), tables)
        key = turn(heads(F.linear(x, w["attn_k"]), shape.key_heads), tables)
        value = heads(F.linear(x, w["attn_v"]), shape.key_heads)
        shared = shape.heads // shape.key_heads
        seen = F.scaled_dot_product_attention(
            query.to(value.dtype),
            key.to(value.dtype).repeat_interleave(shared, 1),
            value.repeat_interleave(shared, 1),
            is_causal=True,
        )
        state = state + F.linear(seen.transpose(1, 2).reshape(state.shape), w["attn_output"])
        x = F.rms_norm(state, size, w["ffn_norm"], EPSILON)
        gated = F.silu(F.linear(x, w["ffn_gate"])) * F.linear(x, w["ffn_up"])
        state = state + F.linear(gated, w["ffn_down"])
    return F.rms_norm(state, size, weights["output_norm"], EPSILON)


_LAYER = [
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
]


def greedy(weights: Weights, shape: Shape, prompt: list[int], end: int, most: int) -> list[int]:
    """The likeliest continuation of a prompt, at most `most` tokens, without the end token."""
    tokens = list(prompt)
    with torch.no_grad():
        while len(tokens) < len(prompt) + most:
            state = forward(weights, shape, torch.tensor([tokens]))[0, -1]
            best = int(F.linear(state, weights["token_embd"]).argmax())
            if best == end:
                break
            tokens.append(best)
    return tokens[len(prompt) :]


def arrays(weights: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """The weights as numpy arrays."""
    return {name: tensor.detach().numpy() for name, tensor in weights.items()}
