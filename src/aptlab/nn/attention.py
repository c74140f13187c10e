"""Attention over all earlier tokens.

Legend: B batch, H query heads, K key/value heads, T new tokens, S all tokens, D head dim, C dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import OpenFraction, Positive
from aptlab.nn.cache import KVCache
from aptlab.nn.norm import RMSNorm
from aptlab.nn.rotary import Angles, RotaryEmbedding
from aptlab.nn.shape import Shape


class FullAttention(nn.Module):
    """softmax(q·k / sqrt(D)) v over all earlier tokens (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245). `qk_norm` normalises queries and
    keys per head before they are rotated (Dehghani et al. 2023, arXiv:2302.05442; the Qwen 3 order). The rotary
    rule's temperature multiplies the logits, which is the same as scaling its cosines while all pairs rotate.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        rope: RotaryEmbedding | None,
        qk_norm: bool = False,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        qk_norm_eps: Positive = 1e-5,
    ) -> None:
        super().__init__()
        self.layer, self.rope, self.dropout = layer, rope, dropout
        self.heads, self.kv_heads, self.head_dim = shape.head_sizes()
        self.qkv = nn.Linear(shape.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=bias)
        self.out = nn.Linear(self.heads * self.head_dim, shape.dim, bias=bias)
        self.qk_norm = qk_norm
        self.q_norm = RMSNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.scale = (rope.rule.temperature if rope else 1.0) / math.sqrt(self.head_dim)

    def forward(
        self, x_BTC: Tensor, *, angles: Angles | None = None, mask: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        heads = self.qkv(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk, v = heads.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = self._place(qk, angles).split([self.heads, self.kv_heads], dim=1)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        out_BHTD = self._attend(q, k, v, mask)
        return self.out(out_BHTD.transpose(1, 2).flatten(2))

    def _place(self, qk: Tensor, angles: Angles | None) -> Tensor:
        """Normalise per head where asked, then rotate; queries and keys lie side by side, [B, H + K, T, D]."""
        if self.qk_norm:
            q, k = qk.split([self.heads, self.kv_heads], dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        return qk if self.rope is None or angles is None else self.rope.rotate(qk, angles)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Fused attention; without a mask it is causal, and a single new token sees everything."""
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and q.shape[2] > 1,
            scale=self.scale,
            enable_gqa=self.heads != self.kv_heads,
        )
