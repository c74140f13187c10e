"""A Llama-shaped decoder in float64 with loops over tokens, heads and pairs. Nothing of aptlab is imported.

`weights` is a dict of arrays by the names of the trained model; sizes and the rotary frequencies are given.
"""

import math

import numpy as np

from tests.reference.attention import attend
from tests.reference.ffn import linear, swiglu
from tests.reference.norm import rms_norm
from tests.reference.rope import rotate


def decoder(weights, tokens, *, depth, heads, kv_heads, head_dim, theta=None, temperature=1.0, eps=1e-5, segments=None):
    """Logits [T, V] of one row of token ids (Touvron et al. 2023, arXiv:2302.13971: pre-norm, SwiGLU, rotary).

    theta        radians per token of each pair, None for no rotary positions
    temperature  factor on the attention logits
    segments     a token sees earlier tokens of its own segment only; positions restart in each
    """
    segments = [1] * len(tokens) if segments is None else list(segments)
    positions = [segments[:t].count(segments[t]) for t in range(len(tokens))]
    scale = temperature / math.sqrt(head_dim)
    x = np.stack([np.asarray(weights["embed.weight"][t], dtype=np.float64) for t in tokens])
    for layer in range(depth):
        block = {k[len(f"blocks.{layer}.") :]: w for k, w in weights.items() if k.startswith(f"blocks.{layer}.")}
        normed = [rms_norm(row, block["attention_norm.weight"], eps) for row in x]
        q, k, v = _qkv(block, normed, heads, kv_heads, head_dim, eps)
        if theta is not None:
            q, k = _rotated(q, positions, theta), _rotated(k, positions, theta)
        out = attend(q, k, v, scale, lambda m, n: n <= m and segments[n] == segments[m])
        rows = out.reshape(len(tokens), heads * head_dim)
        x = x + np.stack([linear(row, block["attention.out.weight"], block.get("attention.out.bias")) for row in rows])
        x = x + np.stack([_ffn(block, rms_norm(row, block["ffn_norm.weight"], eps)) for row in x])
    return np.stack([linear(rms_norm(row, weights["norm.weight"], eps), weights["head.weight"]) for row in x])


def _qkv(block, rows, heads, kv_heads, head_dim, eps):
    joined = np.stack([linear(row, block["attention.qkv.weight"], block.get("attention.qkv.bias")) for row in rows])
    ends = np.cumsum([heads * head_dim, kv_heads * head_dim])
    q, k, v = (part.reshape(len(rows), -1, head_dim) for part in np.split(joined, ends, axis=1))
    if "attention.q_norm.weight" in block:
        q = np.stack([[rms_norm(head, block["attention.q_norm.weight"], eps) for head in row] for row in q])
        k = np.stack([[rms_norm(head, block["attention.k_norm.weight"], eps) for head in row] for row in k])
    return q, k, v


def _rotated(x, positions, theta):
    return np.stack([[rotate(head, position, theta) for head in row] for row, position in zip(x, positions)])


def _ffn(block, row):
    gate, up = np.split(block["ffn.gate_up.weight"], 2, axis=0)
    biases = block.get("ffn.gate_up.bias")
    gate_bias, up_bias = (None, None) if biases is None else np.split(biases, 2)
    return swiglu(row, gate, up, block["ffn.down.weight"], gate_bias, up_bias, block.get("ffn.down.bias"))
