"""Numbers of the left-spin smoothing: pure math on Python floats, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import AtLeastOne, Fraction, NonNegative, OpenFraction, Positive, PositiveInt, validate_limits


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strong a step is: s = w1·d + w2·a, d its size beside the stream, a how far it turned from the last one.

    reference  usual rms of the stream, guards d where the stream is nearly zero (it adds reference/1000 to rms(u));
               0.02 = embeddings as aptlab starts them, 1 = normalised embeddings
    history    depth = compare with the previous block's step and let its angle linger; none = a = 0, no inertia
    """

    w1: NonNegative = 1.0
    w2: NonNegative = 0.5
    reference: Positive = 0.02
    history: Literal["depth", "none"] = "depth"

    def __post_init__(self) -> None:
        validate_limits(self)
        _one_of("smooth.strength.history", self.history, ("depth", "none"))


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How much of a step passes.

    kind       normalized: 1/sqrt(1 + phi²); cosine: cos(phi), 0 from phi = pi/2 on (such a branch is dead);
               softclip: m(d)/d with m(d) = d up to tau, then tau + c·tanh((d - tau)/c), c = bound - tau. Softclip is
               monotone and looks at d alone: alpha, beta, kappa, w1, w2 and history have no say in it.
    kappa      sharpness of the knee at tau
    bound      softclip only: the largest step in units of the stream; null = growth^(1/(2·depth)) - 1
    growth     softclip with bound=null: by how much 2·depth joins together may enlarge the stream
    depth      softclip with bound=null: number of blocks
    grad       detach = the gate is a constant of the backward pass; through = differentiate this site's own gate
    nonfinite  a token whose step is not finite: propagate = it stays so, and the loss shows it;
               zero_token = its step is taken as zero and counted in the trace
    """

    kind: Literal["normalized", "cosine", "softclip"] = "normalized"
    kappa: Positive = 8.0
    bound: Positive | None = 1.0
    growth: AtLeastOne = 1000.0
    depth: PositiveInt | None = None
    grad: Literal["detach", "through"] = "detach"
    nonfinite: Literal["propagate", "zero_token"] = "propagate"

    def __post_init__(self) -> None:
        validate_limits(self)
        _one_of("smooth.gate.kind", self.kind, ("normalized", "cosine", "softclip"))
        _one_of("smooth.gate.grad", self.grad, ("detach", "through"))
        _one_of("smooth.gate.nonfinite", self.nonfinite, ("propagate", "zero_token"))
        if self.bound is None and self.depth is None:
            raise ConfigError("smooth.gate.bound=null needs smooth.gate.depth, the number of blocks (size.depth)")

    @property
    def limit(self) -> float:
        """C, the bound of softclip: steps of at most C·u in 2·depth joins enlarge u at most (1 + C)^(2·depth)-fold."""
        if self.bound is not None:
            return self.bound
        assert self.depth is not None
        return self.growth ** (1 / (2 * self.depth)) - 1


@dataclass(frozen=True, kw_only=True)
class SpinRule:
    """The whole left-spin rule; see `aptlab.nn.smooth.LeftSpin` for its equations."""

    alpha: NonNegative = 1.0
    tau: NonNegative = 0.5
    beta: Fraction = 0.7
    strength: Strength = field(default_factory=Strength)
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.gate.kind == "softclip" and self.gate.limit <= self.tau:
            raise ConfigError(
                f"smooth.gate.bound={self.gate.limit:.4g} must be larger than smooth.tau={self.tau:g}, where softclip "
                f"begins; set smooth.tau={self.gate.limit / 2:.3g} or a larger bound"
            )

    @property
    def deep(self) -> bool:
        """Whether this rule looks at the previous block at all."""
        return self.strength.history == "depth" and self.gate.kind != "softclip"

    @property
    def baseline(self) -> float:
        """softplus(-tau), subtracted so that the angle of a vanishing step is zero."""
        return compute_softplus(-self.tau, self.gate.kappa)

    def angle(self, s: float) -> float:
        """phi-hat of one strength, in radians."""
        return self.alpha * max(compute_softplus(s - self.tau, self.gate.kappa) - self.baseline, 0.0)

    def passed(self, d: float) -> float:
        """The most that a step of relative size d can move the stream: g·d with the smallest angle that d allows.

        That is a = 0 and, with depth history, the previous angle 0, so that phi = beta·phi-hat.
        """
        if self.gate.kind == "softclip":
            c = self.gate.limit - self.tau
            return d if d <= self.tau else self.tau + c * math.tanh((d - self.tau) / c)
        phi = self.angle(self.strength.w1 * d) * (self.beta if self.deep else 1.0)
        return d / math.hypot(1.0, phi) if self.gate.kind == "normalized" else d * math.cos(min(phi, math.pi / 2))

    def step_bound(self) -> float:
        """sup over d of `passed(d)`: ||u' - u|| <= step_bound·||u|| (up to the guards of d); inf where there is none.

        As d grows, g·d of the normalised gate rises to a peak and falls to 1/(alpha·beta·w1): it is not monotone.
        """
        if self.gate.kind == "softclip":
            return self.gate.limit
        slope = self.alpha * self.strength.w1 * (self.beta if self.deep else 1.0)
        if slope == 0:
            return math.inf
        grid = [10 ** (-3 + i / 500) for i in range(6001)]
        best = max(grid, key=self.passed)
        peak = max(self.passed(best * (1 + i * 1e-5)) for i in range(-500, 501))
        return max(peak, 1 / slope if self.gate.kind == "normalized" else 0.0)


@dataclass(frozen=True, kw_only=True)
class SketchRule:
    """Sizes of the spike memory of one site.

    ring        spikes remembered for a while
    centroids   directions remembered for good
    short, mid  half-lives in optimizer steps: of a new spike, and of one that came back
    match       cosine from which a spike counts as one that came back
    near        cosine from which a remembered spike is a danger
    top         strongest tokens of one optimizer step that are remembered
    threshold   strength s from which a token can be remembered
    """

    ring: PositiveInt = 32
    centroids: PositiveInt = 16
    short: Positive = 8.0
    mid: Positive = 64.0
    match: OpenFraction = 0.9
    near: OpenFraction = 0.7
    top: PositiveInt = 4
    threshold: NonNegative = 0.5

    def __post_init__(self) -> None:
        validate_limits(self)
        if self.mid < self.short:
            raise ConfigError(
                f"smooth.sketch.mid={self.mid:g} is below smooth.sketch.short={self.short:g}; a spike that came back "
                "must not fade faster than a new one (default: short=8, mid=64)"
            )


def compute_softplus(x: float, kappa: float) -> float:
    """log(1 + exp(kappa·x)) / kappa, without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-kappa * abs(x))) / kappa


def _one_of(path: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ConfigError(f"{path}={value} is not known{suggest_option(str(value), options)}")
