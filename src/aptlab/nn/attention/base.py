"""What a layer that mixes tokens owes, and the projections that most of them share.

Legend: B batch, H query heads, K key/value heads, T tokens, D head dim, C dim.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from aptlab.limits import Positive
from aptlab.nn.attention.qk_norm import QKNorm, resolve_qk_norm
from aptlab.nn.layer import Layer
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape


class Attention(Layer, abc.ABC):
    """A layer that mixes tokens. It knows positions by `layer_positions`, which the model binds after building it.

    It owes `forward`, `max_keys` (which sizes its part of the cache) and `count_flops`. What it keeps of earlier tokens
    beside keys and values goes through `context.state` and `context.set_state`.
    """

    layer_positions: LayerPositions = LayerPositions()

    @property
    def left_to_right(self) -> str | None:
        """Why the layer, as it is bound, reads from left to right alone and fits no encoder; None: it reads both ways.

        The words name the options, as in "attention=linear reads from left to right".
        """
        return None

    @property
    @abc.abstractmethod
    def max_keys(self) -> int | None:
        """Keys that a token sees at most, itself included; None = all earlier ones, 0 = no keys are kept."""

    @abc.abstractmethod
    def count_flops(self, tokens: int) -> float:
        """FLOPs per token of scores and of the sum of values, in a text of `tokens`; masked pairs take none."""

    def bind_positions(self, positions: LayerPositions) -> None:
        """Know positions in this way; ConfigError for what the layer cannot do."""
        self.layer_positions = positions


class HeadAttention(Attention, abc.ABC):
    """Attention over heads: queries, keys and values are one matrix, heads may share keys (arXiv:2305.13245).

    `qk_norm` normalises queries and keys, before anything else unless it says "after"; true = each head by its root
    mean square (Dehghani et al. 2023, arXiv:2302.05442).
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        qkv_bias: bool,
        out_bias: bool,
        qk_norm: bool | QKNorm,
        qk_norm_eps: Positive,
    ) -> None:
        super().__init__()
        self.layer, self.qk_norm, self.qk_norm_eps = layer, resolve_qk_norm(qk_norm), qk_norm_eps
        self.heads, self.kv_heads, self.head_dim = shape.head_sizes()
        self.qkv = nn.Linear(shape.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=qkv_bias)
        self.out = nn.Linear(self.heads * self.head_dim, shape.dim, bias=out_bias)
        rule = self.qk_norm
        self.q_norm = rule.build(self.heads, self.head_dim, qk_norm_eps) if rule else nn.Identity()
        self.k_norm = rule.build(self.kv_heads, self.head_dim, qk_norm_eps) if rule else nn.Identity()

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The matrix that joins the heads."""
        return (self.out,)

    def value_weights(self) -> tuple[Tensor, ...]:
        """The rows of the first matrix that make values, and the matrix that joins the heads."""
        return self.qkv.weight[(self.heads + self.kv_heads) * self.head_dim :], self.out.weight

    def split_heads(self, x_BTC: Tensor) -> Tensor:
        """Queries, keys and values of all heads, [B, H + 2K, T, D]."""
        return self.qkv(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def merge_heads(self, out_BHTD: Tensor) -> Tensor:
        """What the heads write to the stream, [B, T, C]."""
        return self.out(out_BHTD.transpose(1, 2).flatten(2))

    def normalize_qk(self, qk_BNTD: Tensor) -> Tensor:
        """Heads normalised as `qk_norm` says, where it is on; N = H + K."""
        if self.qk_norm is None:
            return qk_BNTD
        q, k = qk_BNTD.split([self.heads, self.kv_heads], dim=1)
        return torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
