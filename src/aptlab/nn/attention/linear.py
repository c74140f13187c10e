"""Attention without softmax: time and memory grow with T, decoding keeps a state of fixed size.

Legend: B batch, H query heads, K key/value heads, G = H/K, T tokens, N chunks of W tokens, D head dim, F features.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.errors import AptlabError, ConfigError, suggest_option
from aptlab.limits import Positive, PositiveInt
from aptlab.nn.attention.base import HeadAttention
from aptlab.nn.attention.rotation import compute_query_growth
from aptlab.nn.context import ForwardContext
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.positions.rotary import Angles
from aptlab.nn.segments import check_contiguous_segments
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys
from aptlab.ops.measure import upcast_to_float32
from aptlab.ops.rotary import join_pairs

FORMS = ("numerator", "one_plus_cos")
MANY = 1 << 32  # chunks of positions that one segment may have
ONE_SUM = "linear attention keeps one sum per row: give each document's tokens side by side, or use attention=full"


class LinearAttentionState(NamedTuple):
    """What decoding keeps: sums over a row's current document of k vᵀ per head, and which document that is, [B]."""

    sums: tuple[Tensor, ...]
    document: Tensor


class LinearAttention(HeadAttention):
    """Weights are products of positive features, phi(x) = elu(x) + 1 (Katharopoulos et al. 2020, arXiv:2006.16236).

    R_m rotates pair i by m · theta_i; sums run over the earlier tokens n <= m of the same document.

        numerator     out_m = sum_n (R_m phi(q_m))·(R_n phi(k_n)) v_n / sum_n phi(q_m)·phi(k_n)
        one_plus_cos  out_m = sum_n w(m, n) v_n / sum_n w(m, n)
                      w(m, n) = sum_j phi(q_m)_j phi(k_n)_j (1 + cos((m - n) theta_j)) over the D dims of a head

    numerator is RoFormer's (Su et al. 2021, arXiv:2104.09864, eq. 19): the denominator is not rotated, so it is
    positive, while weights may be negative and need not sum to 1. In one_plus_cos both dims of a pair have the pair's
    theta (0 where a dim does not rotate). Every weight is >= 0, and they sum to 1. It follows from
    cos((m - n) t) = cos(mt) cos(nt) + sin(mt) sin(nt) as a product of features [phi, phi cos, phi sin], F = 3D. To
    rotate both members of a pair by R instead would add a sine of either sign, and the weights would not stay >= 0.
    Without a rotation both forms are those of Katharopoulos et al., section 3.3.

    What scales logits elsewhere (a rule's temperature, growth with position) scales the query before phi here; there
    is no 1/sqrt(D). All sums are float32 (float64 stays). Chunks of `chunk` tokens see each other directly and
    earlier chunks through the running sum (as in Hua et al. 2022, arXiv:2202.10447). A document's tokens must
    lie side by side; padding between them is passed over.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        form: Literal["numerator", "one_plus_cos"] = "numerator",
        chunk: PositiveInt = 128,
        qk_norm: bool = False,
        bias: bool = False,
        qk_norm_eps: Positive = 1e-5,
    ) -> None:
        if form not in FORMS:
            raise ConfigError(f"form={form!r}{suggest_option(form, FORMS)}")
        super().__init__(shape, layer=layer, qkv_bias=bias, out_bias=bias, qk_norm=qk_norm, qk_norm_eps=qk_norm_eps)
        self.form, self.chunk = form, chunk

    @property
    def left_to_right(self) -> str:
        """Always: sums run over earlier tokens."""
        return "attention=linear reads from left to right"

    @property
    def max_keys(self) -> int:
        """0: sums stand for earlier keys."""
        return 0

    def bind_positions(self, positions: LayerPositions) -> None:
        """Also raises ConfigError for what needs a matrix of logits."""
        check_layer_positions(positions, self.head_dim)
        super().bind_positions(positions)

    def count_flops(self, tokens: int) -> float:
        """FLOPs per token beside the matrices, of a text of `tokens`: keys of the own chunk, and the running sum.

        Per query head and form of features 2 (F + D) for a key and 2 F D for reading the sum; 2 F D per key head for
        adding to it.
        """
        near, dims = mean_visible_keys(tokens, chunk=self.chunk), self.head_dim
        sums = [(dims, dims), (dims, 1)] if self.form == "numerator" else [(3 * dims, dims + 1)]
        return sum(
            2 * self.heads * near * (features + values) + 2 * (self.heads + self.kv_heads) * features * values
            for features, values in sums
        )

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Features, sums and their quotient in float32 (float64 stays); [B, T, C]."""
        if not context.causal:
            raise AptlabError(
                "attention=linear reads from left to right, and this pass is not causal; use attention=full"
            )
        heads = self.split_heads(x_BTC)
        with torch.autocast(x_BTC.device.type, enabled=False):
            q, k, v = upcast_to_float32(heads).split([self.heads, self.kv_heads, self.kv_heads], dim=1)
            q, k = apply_feature_map(self._scaled(q, context)), apply_feature_map(self.k_norm(k))
            out_BHTD = self._mix(torch.cat((q, k), dim=1), v, context).to(heads.dtype)
        return self.merge_heads(out_BHTD)

    def _scaled(self, q: Tensor, context: ForwardContext) -> Tensor:
        """Queries times everything that would multiply their logits."""
        q, rotary, growth = self.q_norm(q), self.layer_positions.rotary, self.layer_positions.growth
        if rotary is not None:
            scale = context.angles(rotary).scale
            q = q * rotary.temperature * (1.0 if scale is None else scale)
        return q if growth is None else q * compute_query_growth(context.positions_BT, growth)

    def _mix(self, phi: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """The weighted mean of values, [B, H, T, D]; phi holds queries and keys, [B, H + K, T, D]."""
        pairs = self._feature_pairs(phi, v, context)
        state = None if context.state is None else LinearAttentionState(*context.state)  # a loaded one is a plain tuple
        known = None if state is None else state.document
        documents = SegmentDocuments.of(context, len(v), chunk=self.layer_positions.chunk, before_B=known)
        outs, sums = [], []
        for i, (features, values) in enumerate(pairs):
            q, k = features.split([self.heads, self.kv_heads], dim=1)
            before = None if state is None else state.sums[i]
            out, end = compute_causal_sums(
                q.unflatten(1, (self.kv_heads, -1)), k, values, documents, before, self.chunk
            )
            outs.append(out.flatten(1, 2))
            sums.append(end)
        context.set_state(LinearAttentionState(tuple(sums), documents.last))
        above, below = outs if len(outs) == 2 else outs[0].split([self.head_dim, 1], dim=-1)
        return above / torch.where(below > 0, below, 1.0)  # 0 where padding sees nothing

    def _feature_pairs(self, phi: Tensor, v: Tensor, context: ForwardContext) -> list[tuple[Tensor, Tensor]]:
        """Features and what they sum: values and ones apart (numerator), or side by side."""
        rotary, rotated = self.layer_positions.rotary, phi
        if rotary is not None:
            angles = context.angles(rotary)
            by_cosines = self.form == "one_plus_cos"
            rotated = (
                build_cosine_features(phi, angles, rotary.rule.layout) if by_cosines else rotary.rotate(phi, angles)
            )
        ones = torch.ones_like(v[..., :1])
        return [(rotated, v), (phi, ones)] if self.form == "numerator" else [(rotated, torch.cat((v, ones), -1))]

    def extra_repr(self) -> str:
        """Layer, form and chunk, for printing."""
        return f"layer={self.layer}, form={self.form}, chunk={self.chunk}"


class SegmentDocuments(NamedTuple):
    """Which tokens may see each other: a number that rises where a document begins, and which tokens are real.

    number  int64 [B, T], 0 = the document that the cached state is about; None = all tokens are of that one
    real    bool [B, T]; padding is passed over; None = all are real
    last    int64 [B], the document of the last real token by the name that segments give it
    """

    number: Tensor | None
    real: Tensor | None
    last: Tensor

    @classmethod
    def of(
        cls, context: ForwardContext, batch: int, *, chunk: int | None = None, before_B: Tensor | None = None
    ) -> SegmentDocuments:
        """The documents of a pass's tokens; `chunk` cuts by position, `before` names the one whose state is kept."""
        if context.segments is None and chunk is None:
            return cls(None, None, torch.ones(batch, dtype=torch.long, device=context.positions_BT.device))
        names_BT = torch.ones_like(context.positions_BT) if context.segments is None else context.segments
        if chunk is not None:
            names_BT = torch.where(names_BT == 0, 0, names_BT * MANY + context.positions_BT // chunk)
        names_BT = names_BT.expand(batch, -1)
        before_B = torch.zeros_like(names_BT[:, 0]) if before_B is None else before_B
        real_BT = names_BT != 0
        # the name of the last real token up to each place, beginning with the state's
        places_T = torch.arange(1, names_BT.shape[1] + 1, device=names_BT.device)
        nearest_BT = torch.where(real_BT, places_T, 0).cummax(dim=1).values
        current = torch.cat((before_B.unsqueeze(1), names_BT), 1).gather(1, F.pad(nearest_BT, (1, 0)))
        number_BT = (current[:, 1:] != current[:, :-1]).cumsum(1)
        check_contiguous_segments(names_BT, number_BT, ONE_SUM)
        return cls(number_BT, real_BT, current[:, -1])

    def padded(self, tokens: int) -> SegmentDocuments:
        """With `tokens` more of padding at the end."""
        if self.number is None or self.real is None:
            return self
        number = torch.cat((self.number, self.number[:, -1:].expand(-1, tokens)), dim=1)
        return SegmentDocuments(number, F.pad(self.real, (0, tokens)), self.last)


def compute_causal_sums(
    q_BKGTF: Tensor, k_BKTF: Tensor, v_BKTD: Tensor, documents: SegmentDocuments, before_BKFD: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """sum over n <= m of (q_m·k_n) v_n within m's document, [B, K, G, T, D], and the state after it, [B, K, F, D].

    The state is the sum of k_n v_nᵀ over the last token's document. Work and memory are O(T · (W + F)) per head.
    """
    tokens, size = q_BKGTF.shape[3], min(chunk, q_BKGTF.shape[3])
    pad = -tokens % size
    # [B, K, N, W, F]; a padded key is zero and adds nothing
    k, v = (F.pad(x, (0, 0, 0, pad)).unflatten(2, (-1, size)) for x in (k_BKTF, v_BKTD))
    q = F.pad(q_BKGTF, (0, 0, 0, pad)).unflatten(3, (-1, size)).transpose(2, 3)
    if before_BKFD is None:
        before_BKFD = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    view = ChunkMasks.of(documents.padded(pad), size, k.device)
    visible = k if view.kept is None else k * view.kept
    states, end = accumulate_states(before_BKFD, visible.mT @ v, view.goes_on)
    # the G query heads of a key head are rows of one product, so that no key is copied
    groups = q.shape[3]
    near = (q.flatten(3, 4) @ k.mT).unflatten(3, (groups, size)).masked_fill(~view.near, 0.0)
    far = (q.flatten(3, 4) @ states).unflatten(3, (groups, size))
    far = far if view.far is None else far * view.far
    out = (near.flatten(3, 4) @ v).unflatten(3, (groups, size)) + far
    return out.transpose(2, 3).flatten(3, 4)[:, :, :, :tokens], end


class ChunkMasks(NamedTuple):
    """What chunks see of themselves and of the state before them.

    near     bool [B or 1, 1, N or 1, 1, W, W], keys of the query's own chunk
    far      [B, 1, N, 1, W, 1], 1 where the state is about the query's document; None = everywhere
    kept     [B, 1, N, W, 1], 1 for keys of the document that the chunk ends in; None = all
    goes_on  [B, N], 1 where a chunk ends in the document that the state before it is about; None = everywhere
    """

    near: Tensor
    far: Tensor | None
    kept: Tensor | None
    goes_on: Tensor | None

    @classmethod
    def of(cls, documents: SegmentDocuments, size: int, device: torch.device) -> ChunkMasks:
        """The masks of chunks of `size` tokens."""
        earlier_WW = torch.ones(size, size, dtype=torch.bool, device=device).tril()
        if documents.number is None or documents.real is None:
            return cls(earlier_WW, None, None, None)
        number_BNW, real_BNW = (x.unflatten(1, (-1, size)) for x in (documents.number, documents.real))
        end_BN = number_BNW[:, :, -1]
        begin_BN = F.pad(end_BN[:, :-1], (1, 0))
        near = earlier_WW & (number_BNW.unsqueeze(3) == number_BNW.unsqueeze(2)) & real_BNW.unsqueeze(2)
        far_BNW = (number_BNW == begin_BN.unsqueeze(2)).float()
        kept_BNW = ((number_BNW == end_BN.unsqueeze(2)) & real_BNW).float()
        return cls(
            near[:, None, :, None], far_BNW[:, None, :, None, :, None], kept_BNW[:, None, ..., None], end_BN == begin_BN
        )


def accumulate_states(before_BKFD: Tensor, own_BKNFD: Tensor, goes_on_BN: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state before each chunk, [B, K, N, F, D], and after the last one.

    A new document starts from zero: sums are never taken back, which would leave the rounding of one in the next.
    """
    if goes_on_BN is None:
        sums = torch.cat((before_BKFD.unsqueeze(2), own_BKNFD), dim=2).cumsum(dim=2)
        return sums[:, :, :-1], sums[:, :, -1]
    states, state = [], before_BKFD
    for added, goes_on in zip(own_BKNFD.unbind(2), goes_on_BN.to(own_BKNFD.dtype).unbind(1), strict=True):
        states.append(state)
        state = torch.addcmul(added, state, goes_on[:, None, None, None])
    return torch.stack(states, dim=2), state


def apply_feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1, written so that it keeps its digits where it is small."""
    return torch.where(x > 0, x + 1, x.clamp_max(0).exp())


def build_cosine_features(phi: Tensor, angles: Angles, layout: str) -> Tensor:
    """[phi, phi cos, phi sin], [B, H, T, 3D]; dims that do not rotate have angle 0."""
    rest = phi.shape[-1] - 2 * angles.cos.shape[-1]
    cos = F.pad(join_pairs(angles.cos, angles.cos, layout), (0, rest), value=1.0)
    sin = F.pad(join_pairs(angles.sin, angles.sin, layout), (0, rest))
    return torch.cat((phi, phi * cos, phi * sin), dim=-1)


def check_layer_positions(positions: LayerPositions, head_dim: int) -> None:
    """ConfigError for what has no meaning without a matrix of logits."""
    rotary = positions.rotary
    if positions.scores is not None:
        raise ConfigError("linear attention has no scores to add a bias to; use bias=none, or attention=full")
    if positions.norm_after:
        raise ConfigError(
            "linear attention rotates features, not queries and keys, so they cannot be normalised after it; "
            "use a rope without that norm, qk_norm=true (before), or attention=full"
        )
    if rotary is None:
        return
    name = type(rotary.rule).__name__
    if rotary.rule.decay(head_dim) is not None:
        raise ConfigError(f"rope {name} decays with distance, linear attention does not; use attention=full")
    if rotary.rule.temperature_on == "cos_sin" and any(t != 1 for t in rotary.rule.temperatures()):
        raise ConfigError(
            f"rope {name} puts its temperature on cosines, where linear attention would get weights below zero; "
            "use its temperature_on=logits"
        )
