"""Attention with a gated low-rank branch beside it.

Legend: B batch, T tokens, C dim, R rank of the branch, W tokens that are summed by one product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import Positive, Share
from aptlab.nn.attention.base import Attention
from aptlab.nn.attention.linear import SegmentDocuments, compute_causal_sums
from aptlab.nn.context import ForwardContext
from aptlab.nn.init import draw_weights
from aptlab.nn.positions.layer import LayerPositions
from aptlab.nn.shape import Shape
from aptlab.nn.window import mean_visible_keys
from aptlab.ops.measure import upcast_to_float32

GATES = ("mean", "token", "none")
CHUNK = 128  # W


class GateState(NamedTuple):
    """What decoding keeps: the sum of gate inputs and their number, [B, 1, 1, R + 1], and which document it is, [B]."""

    sums: Tensor
    document: Tensor


class AutopoieticAttention(Attention):
    """out_t = inner(x)_t + tanh(tau) · alpha · V (sigmoid(g_t) ⊙ U x_t), a gated low-rank branch beside any attention.

        gate=mean    g_t = W · mean of x_s over the tokens s <= t of t's document + b
        gate=token   g_t = W x_t + b
        gate=none    no gate: a plain low-rank branch, to compare with

    U, W [R, C], V [C, R], R = share · C. V starts at 0, so that training starts from the inner attention; tau is
    learned, and starts where it is given (at 0 neither it nor V would ever move, so that is refused).
    Source: the autopoietic attention of the APT-Transformer project. What differs: there the gate takes the mean over
    the whole row, later tokens, other documents and padding too; here it is causal, and where a pass is not causal (an
    encoder) the mean is over the token's own document. Means are float32 (float64 stays) and, as the gate is linear,
    taken of W x, R numbers a token; decoding keeps their sum. A document's tokens must lie side by side.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        layer: int,
        inner: Callable[..., Attention],
        gate: Literal["mean", "token", "none"] = "mean",
        share: Share = 0.25,
        alpha: Positive = 1.0,
        tau: float = 1.0,
    ) -> None:
        if gate not in GATES:
            raise ConfigError(f"gate={gate!r}{suggest_option(str(gate), GATES)}")
        if tau == 0:
            raise ConfigError("tau=0 shuts the branch for ever; start elsewhere, as with tau=1, or use attention=full")
        super().__init__()
        rank = max(1, round(share * shape.dim))
        self.layer, self.gate, self.alpha = layer, gate, alpha
        self.inner = inner(shape, layer=layer)
        self.down, self.up = nn.Linear(shape.dim, rank, bias=False), nn.Linear(rank, shape.dim, bias=False)
        self.gate_in = None if gate == "none" else nn.Linear(shape.dim, rank)
        self.tau = nn.Parameter(torch.tensor(float(tau)))
        nn.init.zeros_(self.up.weight)

    @property
    def left_to_right(self) -> str | None:
        """As the inner attention: the branch reads both ways where a pass does."""
        return self.inner.left_to_right

    @property
    def max_keys(self) -> int | None:
        """That of the inner attention."""
        return self.inner.max_keys

    def bind_positions(self, positions: LayerPositions) -> None:
        """The inner attention knows positions; the branch does not."""
        super().bind_positions(positions)
        self.inner.bind_positions(positions)

    def count_flops(self, tokens: int) -> float:
        """Those of the inner attention, and of the sums of the gate."""
        if self.gate != "mean":
            return self.inner.count_flops(tokens)
        near, sums = mean_visible_keys(tokens, chunk=CHUNK), self.down.out_features + 1
        return self.inner.count_flops(tokens) + 2 * near * (1 + sums) + 4 * sums

    def skip_flops(self) -> float:
        """Those that the inner attention skips."""
        return self.inner.skip_flops()

    def output_matrices(self) -> tuple[nn.Linear, ...]:
        """Those of the inner attention, and V."""
        return (*self.inner.output_matrices(), self.up)

    def value_weights(self) -> tuple[Tensor, ...]:
        """Those of the attention inside, and the branch's last matrix."""
        return (*self.inner.value_weights(), self.up.weight)

    def reset_parameters(self, std: float, depth: int) -> None:
        """The inner attention draws its own start, U and W are N(0, std), V is 0."""
        self.inner.reset_parameters(std, depth)
        for matrix in (self.down, self.gate_in):
            if matrix is not None:
                draw_weights(matrix, std)
        nn.init.zeros_(self.up.weight)

    def forward(self, x_BTC: Tensor, context: ForwardContext) -> Tensor:
        """Attention and the branch, [B, T, C]."""
        out_BTC = self.inner(x_BTC, context)
        branch_BTC = self.up(self._open(x_BTC, context) * self.down(x_BTC))
        return out_BTC + (torch.tanh(self.tau) * self.alpha).to(branch_BTC.dtype) * branch_BTC

    def _open(self, x_BTC: Tensor, context: ForwardContext) -> Tensor | float:
        """How far the gate of each token is open, [B, T, R] in (0, 1)."""
        if self.gate_in is None:
            return 1.0
        inputs_BTR = self.gate_in(x_BTC)
        if self.gate == "mean":
            with torch.autocast(x_BTC.device.type, enabled=False):
                wide_BTR = upcast_to_float32(inputs_BTR)
                average = average_earlier if context.causal else average_document
                inputs_BTR = average(wide_BTR, context).to(inputs_BTR.dtype)
        return torch.sigmoid(inputs_BTR)

    def extra_repr(self) -> str:
        """Layer, gate and factor, for printing."""
        return f"layer={self.layer}, gate={self.gate}, alpha={self.alpha}"


def average_earlier(x_BTR: Tensor, context: ForwardContext) -> Tensor:
    """The mean over each token's document up to it, [B, T, R]; 0 for padding that has nothing before it."""
    state: GateState | None = context.read_state("gate")
    documents = SegmentDocuments.of(context, len(x_BTR), before_B=None if state is None else state.document)
    ones_B1T1 = torch.ones_like(x_BTR[..., :1]).unsqueeze(1)
    values_B1TS = torch.cat((x_BTR.unsqueeze(1), ones_B1T1), dim=-1)
    before = None if state is None else state.sums
    sums, end = compute_causal_sums(ones_B1T1.unsqueeze(2), ones_B1T1, values_B1TS, documents, before, CHUNK)
    context.set_state(GateState(end, documents.last), part="gate")
    totals_BTS = sums[:, 0, 0]
    return totals_BTS[..., :-1] / totals_BTS[..., -1:].clamp(min=1)


def average_document(x_BTR: Tensor, context: ForwardContext) -> Tensor:
    """The mean over each token's whole document, [B, T, R]."""
    if context.segments is None:
        return x_BTR.mean(1, keepdim=True).expand_as(x_BTR)
    values_BTS = torch.cat((x_BTR, torch.ones_like(x_BTR[..., :1])), dim=-1)
    segments_BTS = context.segments.unsqueeze(-1).expand_as(values_BTS)
    totals = values_BTS.new_zeros(len(x_BTR), x_BTR.shape[1] + 1, values_BTS.shape[-1])
    totals_BTS = totals.scatter_add(1, segments_BTS, values_BTS).gather(1, segments_BTS)
    return totals_BTS[..., :-1] / totals_BTS[..., -1:]
