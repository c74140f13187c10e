"""Residual that shrinks steps which are large for their stream or turn sharply. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aptlab.limits import Fraction, NonNegative
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import SiteInfo, Smooth
from aptlab.nn.smooth.branch_scale import require_bound
from aptlab.nn.smooth.carry import Carry, JoinResult, Trace, build_trace
from aptlab.nn.smooth.fused import can_fuse_gate, can_fuse_norm, join_fused, make_join_args
from aptlab.nn.smooth.learned_angle import LearnedAngle
from aptlab.nn.smooth.measure import measure_direction_change
from aptlab.nn.smooth.rule import Gate, SpinRule, Strength
from aptlab.nn.smooth.step_history import STEP_SIZES, StepHistory
from aptlab.ops.measure import TINY, compute_rms, upcast_to_float32


class LeftSpin(Smooth):
    """u' = u + g·delta, with a gate g in [0, 1] per token that falls as the step grows or turns.

        d   = rms(delta) / (rms(u) + reference/1000)          rms(x) = sqrt(mean(x²) + 1e-12)
        a   = rms(delta - step) / (rms(delta) + rms(step) + 1e-6)   step = what the previous block applied here
        s   = w1·d + w2·a
        phi = (1 - beta)·phi' + beta·alpha·[sp(s - tau) - sp(-tau)]+     sp(x) = log(1 + exp(kappa·x)) / kappa
        g   = 1 / sqrt(1 + phi²)

    phi' is the angle of the same token at the same site of the previous block. The first block has no history:
    a = 0 and phi' = its own angle. So phi(0) = 0, small steps pass whole, and one step moves the stream by at most
    `rule.step_bound()` times its size (1.51 with the defaults; 1.43 for very large steps). alpha = 0 is `Plain`.
    history=step has a = [rms(delta) - m]+ / (rms(delta) + m + 1e-6) instead, m the usual size of this site's steps
    (`StepHistory`, written once per optimizer step), and no phi': small steps pass whole in every block.

    Differs from the published left-spin (see `LeftSpinSeed`): rms per token, the angle of nothing is zero, history
    runs over depth and not over calls (nothing is kept between calls; evaluation, recomputation and every rank see
    the same function), and the gate takes no gradient by default. `carry` never takes any: `gate.grad=through`
    differentiates this site's gate with respect to this site's u and delta only.

    Float32 inside (float64 stays), u's dtype comes out. A step counts as non-finite when its mean square overflows
    float32 (|delta| above about 1e19). `gate.nonfinite=zero_token` cleans the forward pass only: a branch that made
    Inf can still make NaN gradients. Source: aptlab; the gate's shape is that of the published g(phi).
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
    ) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.rule = SpinRule(alpha=alpha, tau=tau, beta=beta, strength=strength or Strength(), gate=gate or Gate())
        self.learned = LearnedAngle(self.rule) if self.rule.gate.learned else None
        self.history = StepHistory(self.rule.strength.decay) if self.rule.strength.history == "step" else None

    def bind_site(self, info: SiteInfo) -> None:
        """Learn how many joins the bound of softclip is shared by."""
        self.rule = self.rule.for_joins(info.joins)

    def reset_parameters(self, std: float, depth: int) -> None:
        """Learned alpha and tau are those of the rule again."""
        if self.learned is not None:
            self.learned.reset(self.rule)

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The stream after the gated step; hands its step and angle on."""
        return self._hand_on(self.join(u_BTC, delta_BTC, context.carry), delta_BTC, context).u

    def join_norm(
        self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext, norm: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """The stream after the gated step and its norm, in one pass where there is a kernel."""
        if not (can_fuse_gate(self.rule, u_BTC, delta_BTC) and can_fuse_norm(self, norm)):
            return super().join_norm(u_BTC, delta_BTC, context, norm)
        joined = self._hand_on(self.join(u_BTC, delta_BTC, context.carry, norm=norm), delta_BTC, context)
        assert joined.normed is not None
        return joined.u, joined.normed

    def _hand_on(self, joined: JoinResult, delta_BTC: Tensor, context: ForwardContext) -> JoinResult:
        context.set_carry(joined.carry)
        statistics: Trace = build_trace(joined) if context.tracing else {}
        if statistics := statistics | self.observe(delta_BTC, joined):
            context.set_trace(statistics)
        return joined

    def observe(self, delta_BTC: Tensor, joined: JoinResult) -> Trace:
        """What the site learns from, in training and with history=step: the sizes of its steps."""
        if self.history is None or not self.training:
            return {}
        return {STEP_SIZES: self.history.observe(upcast_to_float32(delta_BTC.detach()), joined.gate.detach())}

    def join(
        self,
        u_BTC: Tensor,
        delta_BTC: Tensor,
        carry: Carry | None,
        lift_BT1: Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> JoinResult:
        """One join with its measurements; `lift` [B, T, 1] is added to the strength (the size, for softclip).

        norm  where the kernel runs, what it makes of the new stream as well
        """
        if can_fuse_gate(self.rule, u_BTC, delta_BTC):
            return join_fused(u_BTC, delta_BTC, make_join_args(self.rule, carry, lift_BT1, norm))
        u, delta, finite = upcast_to_float32(u_BTC), upcast_to_float32(delta_BTC), None
        if self.rule.gate.nonfinite == "zero_token":
            finite = compute_rms(delta.detach()).isfinite()
            delta = torch.where(finite, delta, torch.zeros_like(delta))
        seen = (u, delta) if self.rule.gate.grad == "through" else (u.detach(), delta.detach())
        before = carry if self.rule.deep else None
        size = compute_rms(seen[1])
        d, s = self._strength(*seen, size, before)
        phi, g = self._gate(*((d, s) if lift_BT1 is None else (d + lift_BT1, s + lift_BT1)), before)
        step = g * delta
        after = Carry(step.detach().to(delta_BTC.dtype), phi.detach()) if self.rule.deep else None
        finite = size.detach().isfinite() if finite is None else finite
        return JoinResult((u + step).to(u_BTC.dtype), after, s, phi, g, finite)

    def _strength(self, u: Tensor, delta: Tensor, size: Tensor, carry: Carry | None) -> tuple[Tensor, Tensor]:
        """d and s, each [B, T, 1]."""
        rule = self.rule.strength
        d = size / (compute_rms(u) + 1e-3 * rule.reference)
        s = rule.w1 * d
        if carry is not None and rule.w2:
            s = s + rule.w2 * measure_direction_change(delta, upcast_to_float32(carry.step), size)
        if self.history is not None and rule.w2:
            s = s + rule.w2 * self.history.measure_excess(size)
        return d, s

    def _gate(self, d: Tensor, s: Tensor, carry: Carry | None) -> tuple[Tensor, Tensor]:
        """phi and g, each [B, T, 1]; for softclip phi = arccos(g)."""
        if self.rule.gate.kind == "softclip":
            g = self._softclip(d)
            return g.acos(), g
        kappa = self.rule.gate.kappa
        alpha, tau, baseline = self._read_angle()
        phi = alpha * (F.softplus(s - tau, beta=kappa) - baseline).clamp_min(0)
        if carry is not None:
            phi = (1 - self.rule.beta) * carry.phi + self.rule.beta * phi
        if self.rule.gate.kind == "cosine":
            return phi, phi.clamp_max(math.pi / 2).cos()
        return phi, (1 + phi.square()).rsqrt()

    def _read_angle(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """alpha, tau, and what the angle of a vanishing step would be without it."""
        if self.learned is None:
            return self.rule.alpha, self.rule.knee, self.rule.baseline
        alpha, tau = self.learned()
        return alpha, tau, F.softplus(-tau, beta=self.rule.gate.kappa)

    def _softclip(self, d: Tensor) -> Tensor:
        limit = require_bound(self.rule.gate.limit, self)
        tau, c = self.rule.knee, limit - self.rule.knee
        most = tau + c * ((d - tau).clamp_min(0) / c).tanh()
        return torch.where(d > tau, most / d.clamp_min(TINY), torch.ones_like(d))

    def measure_strength(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """s of each token."""
        return self.join(u_BTC, delta_BTC, context.carry).strength

    def extra_repr(self) -> str:
        """Place and rule, for printing."""
        return f"{self.dim}, layer={self.layer}, site={self.site}, {self.rule}"
