"""Attention to states from elsewhere, as a decoder's to the output of an encoder.

Legend: B batch, H query heads, K key/value heads, T new tokens, S states of the source, D head dim, C dim.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from aptlab.errors import AptlabError
from aptlab.limits import OpenFraction, Positive
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.dispatch import attend_sdpa
from aptlab.nn.attention.logits import LogitRule
from aptlab.nn.attention.qk_norm import QKNorm, resolve_qk_norm
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape


class SourceKeys(NamedTuple):
    """Keys and values of a source, [B, K, S, D], which generation computes once and keeps in its cache."""

    k: Tensor
    v: Tensor


class CrossAttention(Attention):
    """softmax(q·k / sqrt(D)) v with queries of the stream, keys and values of `context.source` (Vaswani et al. 2017,
    arXiv:1706.03762, section 3.2.3: encoder-decoder attention).

    Neither is rotated and nothing is added to the logits: places in the source are known by the states themselves
    (Raffel et al. 2020, arXiv:1910.10683, section 2.1, adds no relative position here either). A query sees the states
    of its own segment and no padding; one whose segment has no state there reads zeros. Heads may share keys and values
    as in self-attention.

    qk_norm  normalise queries and keys, true = per head
    bias     of all matrices
    logits   another scale than 1 / sqrt(D), and a soft cap; None = neither
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        qk_norm: bool | QKNorm = False,
        bias: bool = False,
        dropout: OpenFraction = 0.0,
        qk_norm_eps: Positive = 1e-5,
        logits: LogitRule | None = None,
    ) -> None:
        super().__init__()
        self.layer, self.dropout, self.logits = layer, dropout, logits or LogitRule()
        self.heads, self.kv_heads, self.head_dim = shape.head_sizes()
        self.q = nn.Linear(shape.dim, self.heads * self.head_dim, bias=bias)
        self.kv = nn.Linear(shape.dim, 2 * self.kv_heads * self.head_dim, bias=bias)
        self.out = nn.Linear(self.heads * self.head_dim, shape.dim, bias=bias)
        rule = resolve_qk_norm(qk_norm)
        self.q_norm = rule.build(self.heads, self.head_dim, qk_norm_eps) if rule else nn.Identity()
        self.k_norm = rule.build(self.kv_heads, self.head_dim, qk_norm_eps) if rule else nn.Identity()

    @property
    def max_keys(self) -> int:
        """0: the keys are not those of tokens that come one at a time; the cache keeps them as a state."""
        return 0

    def bind_positions(self, positions: LayerPositions) -> None:
        """Nothing: this layer knows no positions."""
        del positions

    def count_flops(self, tokens: int) -> float:
        """4 · D · H per token and state of the source, which is taken to be as long as the text."""
        return 4.0 * self.heads * self.head_dim * tokens

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """The matrix that joins the heads."""
        return (self.out,)

    def value_weights(self) -> tuple[Tensor, ...]:
        """The rows that make values, and the matrix that joins the heads."""
        return self.kv.weight[self.kv_heads * self.head_dim :], self.out.weight

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Read the source, [B, T, C]. AptlabError where the pass has none, or one of other rows."""
        if context.source is None:
            raise AptlabError(
                "cross attention has nothing to read: this pass has no source; give source=net.encode(tokens).source, "
                "or take the cross site out of the block"
            )
        q_BHTD = self.q_norm(self.q(x_BTC).unflatten(-1, (-1, self.head_dim)).transpose(1, 2))
        k_BKSD, v_BKSD = (x.to(q_BHTD.dtype) for x in self.read_source(context))
        if len(k_BKSD) != len(q_BHTD):
            raise AptlabError(
                f"the source has {len(k_BKSD)} rows and the batch {len(q_BHTD)}; a cache belongs to the source that it "
                "was first used with"
            )
        spec = AttentionSpec(
            scale=self.logits.find_scale(self.head_dim),
            softcap=self.logits.softcap,
            dropout=self.dropout if self.training else 0.0,
        )
        seen = context.source_mask()
        if seen is None:
            read_BHTD = attend_sdpa(Heads(q_BHTD, k_BKSD, v_BKSD), spec)
        else:
            nothing = ~seen.any(-1, keepdim=True)  # a softmax over no key is no number: all are seen, and forgotten
            read_BHTD = attend_sdpa(Heads(q_BHTD, k_BKSD, v_BKSD), spec, seen | nothing).masked_fill(nothing, 0.0)
        return self.out(read_BHTD.transpose(1, 2).flatten(2))

    def read_source(self, context: ForwardContext) -> SourceKeys:
        """Keys and values of the source: those of the cache, or computed now and kept there."""
        if context.state is not None:
            return context.state
        assert context.source is not None
        kv_BNSD = self.kv(context.source.states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        k_BKSD, v_BKSD = kv_BNSD.split(self.kv_heads, dim=1)
        keys = SourceKeys(self.k_norm(k_BKSD), v_BKSD)
        if context.cache is not None:
            context.set_state(keys)
        return keys

    def extra_repr(self) -> str:
        """Layer, for printing."""
        return f"layer={self.layer}"
