"""Attention over earlier tokens.

Legend: B batch, H query heads, K key/value heads, T new tokens, S all tokens, D head dim, C dim.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError
from aptlab.limits import OpenFraction, Positive
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.norm import RMSNorm
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.nn.shape import Shape
from aptlab.nn.window import SlidingWindow, mean_visible_keys
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs, can_use_kernel, rotate_heads, rotate_heads_


class FullAttention(nn.Module):
    """softmax(q·k / sqrt(D)) v over earlier tokens (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

    Heads may share keys and values (Ainslie et al. 2023, arXiv:2305.13245). `qk_norm` normalises queries and
    keys per head before they are rotated (Dehghani et al. 2023, arXiv:2302.05442; the Qwen 3 order). The rotary
    rule's temperature multiplies the logits, which is the same as scaling its cosines while all pairs rotate.

    bias   of all four matrices, or with "qkv" of queries, keys and values alone (as in Qwen 2)
    reach  how far back each layer sees; None = to the first token
    sinks  a learned logit per head that takes attention and gives nothing (as in gpt-oss)
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        place: LayerPositions,
        qk_norm: bool = False,
        bias: bool | Literal["qkv"] = False,
        dropout: OpenFraction = 0.0,
        qk_norm_eps: Positive = 1e-5,
        reach: SlidingWindow | None = None,
        sinks: bool = False,
    ) -> None:
        super().__init__()
        if bias not in (True, False, "qkv"):
            raise ConfigError(f"bias={bias!r}; allowed: true, false, qkv (queries, keys and values alone)")
        self.layer, self.place, self.dropout = layer, place, dropout
        self.heads, self.kv_heads, self.head_dim = shape.head_sizes()
        self.qkv = nn.Linear(shape.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=bool(bias))
        self.out = nn.Linear(self.heads * self.head_dim, shape.dim, bias=bias is True)
        self.qk_norm = qk_norm
        self.q_norm = RMSNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=qk_norm_eps) if qk_norm else nn.Identity()
        self.sinks = nn.Parameter(torch.zeros(self.heads)) if sinks else None
        self.window = None if reach is None else reach.at(layer)

    @property
    def reach(self) -> int | None:
        """Keys that a token sees at most, itself included; None = all."""
        limits = [limit for limit in (self.window, self.place.chunk) if limit is not None]
        return min(limits, default=None)

    def mixing(self, tokens: int) -> float:
        """FLOPs per token of scores, of a bias that multiplies, and of the sum of values in a text of `tokens`.

        Masked pairs take none.
        """
        keys, scores = mean_visible_keys(tokens, window=self.window, chunk=self.place.chunk), self.place.scores
        own = getattr(scores, "mixing", None)
        return 4 * self.heads * self.head_dim * keys + (own(keys) if own else 0)

    def forward(self, x_BTC: Tensor, step: ForwardContext) -> Tensor:
        heads = self.qkv(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk, v = heads.split([self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = self._turn(qk, step)
        if step.cache is not None:
            k, v = (x.to(q.dtype) for x in step.cache.append(self.layer, k, v))  # a cache may be wider than autocast
        out_BHTD = compute_attention(Heads(q, k, v), step, self._look())
        return self.out(out_BHTD.transpose(1, 2).flatten(2))

    def _turn(self, qk: Tensor, step: ForwardContext) -> tuple[Tensor, Tensor]:
        """Normalise per head where asked, rotate, and scale queries by position; q and k lie side by side."""
        place, rotary = self.place, self.place.rotary
        in_kernel = rotary is not None and can_use_kernel(qk) and isinstance(rotary, RotaryEmbedding) and rotary.simple
        if self.qk_norm and (place.norm_after or not in_kernel):
            q, k = qk.split([self.heads, self.kv_heads], dim=1)
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1)
        scale = None
        if in_kernel:
            assert rotary is not None
            qk = (rotate_heads_ if self._spare() else rotate_heads)(qk, self._fused_turn(rotary, step))
        elif rotary is not None:
            angles = step.angles(rotary)
            qk, scale = rotary.rotate(qk, angles), angles.scale
        if place.norm_after and not in_kernel:
            qk = normalize_rms(qk, place.norm_eps)
        q, k = qk.split([self.heads, self.kv_heads], dim=1)
        if scale is not None:
            q = (q * scale).to(q.dtype)
        if place.growth is not None:
            q = (q * compute_query_growth(step.places, place.growth.floor, place.growth.scale)).to(q.dtype)
        return q, k

    def _spare(self) -> bool:
        """Whether nobody needs queries and keys unrotated: no gradient, no compiler, no hook that kept them."""
        return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or self.qkv._forward_hooks)

    def _fused_turn(self, rotary: RotaryEmbedding, step: ForwardContext) -> RotationArgs:
        """What the kernel does in one pass: rotation, and the norm before or after it."""
        norm = None
        if self.place.norm_after:
            norm = HeadNorm(None, self.place.norm_eps, "after")
        elif self.qk_norm:
            weights = torch.stack((self.q_norm.weight, self.k_norm.weight))  # type: ignore[arg-type]
            norm = HeadNorm(weights, self.q_norm.eps, "before")  # type: ignore[arg-type]
        layout, factor = rotary.rule.layout, rotary.factor
        return RotationArgs(step.places, rotary.tables, self.heads, layout, norm, factor, theta=rotary.theta)

    def _look(self) -> AttentionSpec:
        rotary, temperature, decay = self.place.rotary, 1.0, None
        if rotary is not None:
            temperature, rates = rotary.temperature, rotary.rule.decay(self.head_dim)
            decay = None if rates is None else (rates, rotary.rule.layout)
        return AttentionSpec(
            scale=temperature / math.sqrt(self.head_dim),
            chunk=self.place.chunk,
            window=self.window,
            dropout=self.dropout if self.training else 0.0,
            decay=decay,
            scores=self.place.scores,
            sinks=self.sinks,
        )


def normalize_rms(x: Tensor, eps: float) -> Tensor:
    """x over its root mean square, computed in float32 (Llama 4's query and key norm; it has no weights)."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def compute_query_growth(places_BT: Tensor, floor: int, scale: float) -> Tensor:
    """1 + scale · ln(1 + floor((position + 1) / floor)), float32 [B, 1, T, 1]."""
    steps = (places_BT + 1).div(floor, rounding_mode="floor")
    return (1 + scale * torch.log1p(steps.float()))[:, None, :, None]
