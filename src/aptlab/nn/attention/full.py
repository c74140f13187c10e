"""Attention over earlier tokens.

Legend: B batch, H query heads, K key/value heads, T new tokens, S all tokens, D head dim, C dim.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, Positive
from aptlab.nn.attention.base import HeadAttention
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.largest import MAX_LOGITS, measure_max_logits
from aptlab.nn.attention.logits import LogitRule
from aptlab.nn.attention.qk_norm import QKNorm
from aptlab.nn.attention.rotation import rotate_queries_keys
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow, mean_visible_keys


class FullAttention(HeadAttention):
    """softmax(q·k / sqrt(D)) v over earlier tokens (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245). `qk_norm` normalises queries and
    keys before they are rotated, true = per head (Dehghani et al. 2023, arXiv:2302.05442; the Qwen 3 order). The rotary
    rule's temperature multiplies the logits, which is the same as scaling its cosines while all pairs rotate.

    bias    of all four matrices, or with "qkv" of queries, keys and values alone (as in Qwen 2)
    window  how many earlier tokens each layer sees; None = all
    sinks   a learned logit per head that takes attention and gives nothing (as in gpt-oss)
    logits  another scale than 1 / sqrt(D), and a soft cap (as in Gemma 2); None = neither
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        qk_norm: bool | QKNorm = False,
        bias: bool | Literal["qkv"] = False,
        dropout: OpenFraction = 0.0,
        qk_norm_eps: Positive = 1e-5,
        window: SlidingWindow | None = None,
        sinks: bool = False,
        logits: LogitRule | None = None,
    ) -> None:
        if bias not in (True, False, "qkv"):
            raise ConfigError(f"bias={bias!r}; allowed: true, false, qkv (queries, keys and values alone)")
        super().__init__(
            shape, layer=layer, qkv_bias=bool(bias), out_bias=bias is True, qk_norm=qk_norm, qk_norm_eps=qk_norm_eps
        )
        self.dropout, self.logits = dropout, logits or LogitRule()
        self.measures_logits = False  # set by who wants the largest logit of each head in training; costs as much as T²
        self.sinks = nn.Parameter(torch.zeros(self.heads)) if sinks else None
        self.window = None if window is None else window.for_layer(layer)

    @property
    def max_keys(self) -> int | None:
        """The smaller one of window and chunk."""
        limits = [limit for limit in (self.window, self.layer_positions.chunk) if limit is not None]
        return min(limits, default=None)

    @property
    def left_to_right(self) -> str | None:
        """A rope that decays with distance."""
        rotary = self.layer_positions.rotary
        if rotary is None or rotary.rule.decay(self.head_dim) is None:
            return None
        return f"the rope {type(rotary.rule).__name__} decays with the distance to earlier tokens"

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per seen key for scores and values, and what a bias that multiplies matrices takes."""
        keys = mean_visible_keys(tokens, window=self.window, chunk=self.layer_positions.chunk)
        scores = self.layer_positions.scores
        return 4 * self.heads * self.head_dim * keys + (0.0 if scores is None else scores.count_flops(keys))

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Project, rotate, attend, join the heads; [B, T, C]."""
        qk, v = self.split_heads(x_BTC).split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate_queries_keys(self, qk, context)
        k, v = (x.to(q.dtype) for x in context.store_keys(k, v))  # a cache may be wider than autocast
        heads, spec = Heads(q, k, v), self.attention_spec()
        if self.measures_logits and self.training:
            context.set_trace({MAX_LOGITS: measure_max_logits(heads, context, spec)}, part="qk")
        return self.merge_heads(compute_attention(heads, context, spec))

    def attention_spec(self) -> AttentionSpec:
        """What the kernels have to know of this layer."""
        rotary, temperature, decay = self.layer_positions.rotary, 1.0, None
        if rotary is not None:
            temperature, rates = rotary.temperature, rotary.rule.decay(self.head_dim)
            decay = None if rates is None else (rates, rotary.rule.layout)
        return AttentionSpec(
            scale=temperature * self.logits.find_scale(self.head_dim),
            softcap=self.logits.softcap,
            chunk=self.layer_positions.chunk,
            window=self.window,
            dropout=self.dropout if self.training else 0.0,
            decay=decay,
            scores=self.layer_positions.scores,
            sinks=self.sinks,
        )

    def extra_repr(self) -> str:
        """Layer and window, for printing."""
        return f"layer={self.layer}, window={self.window}"
