"""Left-spin smoothing that remembers in which directions it spiked. Legend: B batch, T tokens, C dim, k candidates."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.limits import Fraction, NonNegative
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.smooth.carry import JoinResult, Trace, build_trace
from aptlab.nn.smooth.fused import can_fuse_gate, can_fuse_norm
from aptlab.nn.smooth.left_spin import LeftSpin
from aptlab.nn.smooth.rule import Gate, SketchRule, Strength
from aptlab.nn.smooth.sketch import SpikeSketch

LIFT = 0.5


class MemorySmooth(Smooth):
    """LeftSpin whose strength rises near remembered spikes: s <- s + 0.5·danger(delta), danger in [0, 1].

        danger(delta) = max_j s_j · relu(cos(delta, n_j) - 0.7) / 0.3 · 2^(-age_j / H_j)

    The memory of a site is one `SpikeSketch`. A spike is a token with s > 0.5, s measured without the memory's lift,
    so that a memory does not keep itself alive. It is remembered by its direction n (a position means nothing from
    one batch to the next), in three tiers that differ in half-life H, counted in optimizer steps:

        short  H = 8    a new spike, in a ring of 32
        mid    H = 64   the same entry after the spike came back (cosine >= 0.9)
        long   H = inf  one of 16 centroids after it came back again: the running mean of the direction

    Coming back counts once per optimizer step, however many of its tokens point the same way. After every optimizer
    step `update` ages the memory and adds the strongest spikes of all micro-batches and ranks, so that neither
    accumulation nor the number of ranks changes what is remembered; the callback `SmoothMemory` calls it.
    forward only reads, and its buffers stand still for the whole step: recomputation and evaluation see what
    training sees. In training the trace always holds the candidates: "spike_directions" [k, C] and
    "spike_strengths" [k], 0 for none; the size is fixed.
    With gate.kind=softclip the lift is added to d, which keeps the bound. Source: aptlab, after the published short-,
    mid- and long-term spike lists, which define neither danger nor direction.
    """

    def __init__(
        self,
        dim: int,
        *,
        layer: int,
        site: str,
        alpha: NonNegative = 1.0,
        tau: NonNegative | None = 0.5,
        beta: Fraction = 0.7,
        strength: Strength | None = None,
        gate: Gate | None = None,
        sketch: SketchRule | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.spin = LeftSpin(dim, layer=layer, site=site, alpha=alpha, tau=tau, beta=beta, strength=strength, gate=gate)
        self.sketch = SpikeSketch(dim, sketch or SketchRule())

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The stream after the lifted gate; in training the trace also holds candidates to remember."""
        return self._join(u_BTC, delta_BTC, context, None).u

    def join_norm(
        self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The stream after the lifted gate and its norm, in one pass where there is a kernel."""
        if not (can_fuse_gate(self.spin.rule, u_BTC, delta_BTC) and can_fuse_norm(self, norm)):
            return super().join_norm(u_BTC, delta_BTC, context, norm)
        joined = self._join(u_BTC, delta_BTC, context, norm)
        assert joined.normed is not None
        return joined.u, joined.normed

    def _join(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module | None) -> JoinResult:
        danger = self.sketch.danger(delta_BTC)
        joined = self.spin.join(u_BTC, delta_BTC, context.carry, LIFT * danger, norm)
        context.set_carry(joined.carry)
        statistics: Trace = build_trace(joined, danger) if context.tracing else {}
        if self.training:
            directions_kC, strengths_k = self.sketch.propose(delta_BTC, joined.strength)
            statistics |= {"spike_directions": directions_kC, "spike_strengths": strengths_k}
            statistics |= self.spin.observe(delta_BTC, joined)
        if statistics:
            context.set_trace(statistics)
        return joined

    def bind_site(self, info: SiteInfo) -> None:
        """Learn how many joins the bound of softclip is shared by."""
        self.spin.bind_site(info)

    def reset_parameters(self, std: float, depth: int) -> None:
        """Learned alpha and tau are those of the rule again; the memory stays."""
        self.spin.reset_parameters(std, depth)

    def update(self, directions_kC: Tensor, strengths_k: Tensor) -> None:
        """Age the memory by one optimizer step and remember the strongest of these spikes; see `SpikeSketch.update`."""
        self.sketch.update(directions_kC, strengths_k)

    def measure_strength(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """s of each token, without the memory's lift."""
        return self.spin.measure_strength(u_BTC, delta_BTC, context)
