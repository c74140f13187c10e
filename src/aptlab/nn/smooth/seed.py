"""The left-spin formula as it was published. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from aptlab.limits import Fraction, NonNegative
from aptlab.nn.context import ForwardContext
from aptlab.nn.smooth.base import Smooth
from aptlab.nn.smooth.carry import Carry, JoinResult, build_trace
from aptlab.ops.measure import upcast_to_float32

EPSILON = 1e-8
W1, W2 = 1.0, 0.5


class LeftSpinSeed(Smooth):
    """u' = u + g·delta with the published gate, for comparison with `LeftSpin`.

        d   = |delta| / (1e-8 + |u|)      a = |delta - step| / (1e-8 + |delta| + |step|)      |x| = Euclidean norm
        phi = (1 - beta)·phi' + beta·alpha·softplus(d + a/2 - tau)                           g = 1 / sqrt(1 + phi²)

    How it differs from LeftSpin: no baseline is subtracted and the knee is soft (kappa = 1), so that even a vanishing
    step is shrunk (to 0.96 of itself); norms instead of rms, with a guard of 1e-8; alpha 0.5 and tau 0.3.
    What the publication leaves open is settled as in LeftSpin: norms per token; step and phi' are those of the
    previous block's same site (the released code kept one scalar per module from the previous *call*, so that one Inf
    spoilt all later calls and two equal calls differed); a = 0 and phi' = own angle in the first block; the gate
    takes no gradient. The released code switched the gate off in evaluation, which makes a different network of it;
    here evaluation computes what training does.
    Float32 inside (float64 stays), u's dtype comes out. Source: the left-spin formula of the APT-Transformer project.
    """

    def __init__(
        self,
        dim: int,
        *,
        layer: int,
        site: str,
        alpha: NonNegative = 0.5,
        tau: NonNegative = 0.3,
        beta: Fraction = 0.7,
    ) -> None:
        super().__init__()
        self.dim, self.layer, self.site = dim, layer, site
        self.alpha, self.tau, self.beta = alpha, tau, beta

    def forward(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """The stream after the gated step; hands its step and angle on."""
        carry: Carry | None = context.carry
        u, delta = upcast_to_float32(u_BTC), upcast_to_float32(delta_BTC)
        s = self._strength(u.detach(), delta.detach(), carry)
        phi = self.alpha * F.softplus(s - self.tau)
        if carry is not None:
            phi = (1 - self.beta) * carry.phi + self.beta * phi
        g = (1 + phi.square()).rsqrt()
        step = g * delta
        joined = JoinResult((u + step).to(u_BTC.dtype), None, s, phi, g, s.isfinite())
        context.set_carry(Carry(step.detach().to(delta_BTC.dtype), phi))
        if context.tracing:
            context.set_trace(build_trace(joined))
        return joined.u

    def _strength(self, u: Tensor, delta: Tensor, carry: Carry | None) -> Tensor:
        size = _norm(delta)
        s = W1 * size / (EPSILON + _norm(u))
        if carry is None:
            return s
        before = upcast_to_float32(carry.step)
        return s + W2 * _norm(delta - before) / (EPSILON + size + _norm(before))

    def measure_strength(self, u_BTC: Tensor, delta_BTC: Tensor, context: ForwardContext) -> Tensor:
        """s of each token."""
        return self._strength(upcast_to_float32(u_BTC), upcast_to_float32(delta_BTC), context.carry)

    def extra_repr(self) -> str:
        """Place and numbers, for printing."""
        return f"{self.dim}, layer={self.layer}, site={self.site}, alpha={self.alpha}, tau={self.tau}, beta={self.beta}"


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)
