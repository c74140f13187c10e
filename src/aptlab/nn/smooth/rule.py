"""Numbers of the left-spin smoothing: pure math on Python floats, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from aptlab.errors import ConfigError, suggest_option
from aptlab.limits import AtLeastOne, Fraction, NonNegative, OpenFraction, Positive, PositiveInt, validate_limits

HISTORIES = ("depth", "none", "step")
KINDS = ("normalized", "cosine", "softclip")


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How strong a step is: s = w1·d + w2·a, d its size beside the stream, a how far it turned from the last one.

    reference  usual rms of the stream, guards d where the stream is nearly zero (it adds reference/1000 to rms(u));
               0.02 = embeddings as aptlab starts them, 1 = normalised embeddings
    history    depth = compare with the previous block's step and let its angle linger; none = a = 0, no inertia; step =
               compare the step's size with the usual one of this site, a running mean over optimizer steps: a is how
               far it is above that, and there is no inertia
    decay      history=step: share of the running mean that an optimizer step keeps
    """

    w1: NonNegative = 1.0
    w2: NonNegative = 0.5
    reference: Positive = 0.02
    history: Literal["depth", "none", "step"] = "depth"
    decay: OpenFraction = 0.99

    def __post_init__(self) -> None:
        validate_limits(self)
        _one_of("history", self.history, HISTORIES)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How much of a step passes.

    kind       normalized: 1/sqrt(1 + phi²); cosine: cos(phi), 0 from phi = pi/2 on (such a branch is dead);
               softclip: m(d)/d with m(d) = d up to tau, then tau + c·tanh((d - tau)/c), c = bound - tau. Softclip is
               monotone and looks at d alone: alpha, beta, kappa, w1, w2 and history have no say in it.
    kappa      sharpness of the knee at tau
    bound      softclip only: the largest step in units of the stream; null = growth^(1/N) - 1 of N joins in the model
    growth     softclip with bound=null: by how much all joins together may enlarge the stream
    depth      softclip with bound=null: number of blocks of two joins each; null = as many as the model has
    grad       detach = the gate is a constant of the backward pass; through = differentiate this site's own gate
    nonfinite  a token whose step is not finite: propagate = it stays so, and the loss shows it;
               zero_token = its step is taken as zero and counted in the trace
    learned    alpha = softplus(a) and tau = sigmoid(t) are learned, one pair a site, from the given ones on
    """

    kind: Literal["normalized", "cosine", "softclip"] = "normalized"
    kappa: Positive = 8.0
    bound: Positive | None = 1.0
    growth: AtLeastOne = 1000.0
    depth: PositiveInt | None = None
    grad: Literal["detach", "through"] = "detach"
    nonfinite: Literal["propagate", "zero_token"] = "propagate"
    learned: bool = False

    def __post_init__(self) -> None:
        validate_limits(self)
        _one_of("kind", self.kind, KINDS)
        _one_of("grad", self.grad, ("detach", "through"))
        _one_of("nonfinite", self.nonfinite, ("propagate", "zero_token"))

    @property
    def limit(self) -> float | None:
        """C, the bound of softclip: steps of at most C·u in N joins enlarge u at most (1 + C)^N-fold; None = not known
        before the depth is."""
        if self.bound is not None or self.depth is None:
            return self.bound
        return compute_bound(self.growth, 2 * self.depth)


@dataclass(frozen=True, kw_only=True)
class SpinRule:
    """The whole left-spin rule; see `aptlab.nn.smooth.LeftSpin` for its equations.

    tau  None = half of softclip's bound
    """

    alpha: NonNegative = 1.0
    tau: NonNegative | None = 0.5
    beta: Fraction = 0.7
    strength: Strength = field(default_factory=Strength)
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        validate_limits(self)
        limit = self.gate.limit
        if self.gate.kind == "softclip":
            if limit is not None and self.tau is not None and limit <= self.tau:
                raise ConfigError(
                    f"gate.bound={limit:.4g} must be larger than tau={self.tau:g}, where softclip "
                    f"begins; set tau={limit / 2:.3g} or a larger bound"
                )
        elif self.tau is None:
            raise ConfigError(
                f"tau=null is half of softclip's bound, and gate.kind={self.gate.kind} has none; set tau=0.5"
            )
        if self.gate.learned:
            self._check_learned()

    def _check_learned(self) -> None:
        if self.gate.kind == "softclip":
            raise ConfigError("gate.learned=true and gate.kind=softclip: softclip has no angle; use kind=normalized")
        if self.alpha == 0 or not 0 < self.knee < 1:
            raise ConfigError(
                f"gate.learned=true starts from alpha={self.alpha:g}, tau={self.knee:g}, and needs alpha > 0 (a "
                "softplus) and tau in (0, 1) (a sigmoid); defaults: alpha=1, tau=0.5"
            )

    def for_joins(self, joins: int) -> SpinRule:
        """The rule in a model of so many joins; ConfigError where its softclip begins beyond the bound."""
        if self.gate.kind != "softclip" or self.gate.limit is not None:
            return self
        return replace(self, gate=replace(self.gate, bound=compute_bound(self.gate.growth, joins)))

    @property
    def knee(self) -> float:
        """tau, or half of softclip's bound."""
        if self.tau is not None:
            return self.tau
        assert self.gate.limit is not None
        return self.gate.limit / 2

    @property
    def deep(self) -> bool:
        """Whether this rule looks at the previous block at all."""
        return self.strength.history == "depth" and self.gate.kind != "softclip"

    @property
    def baseline(self) -> float:
        """softplus(-tau), subtracted so that the angle of a vanishing step is zero."""
        return compute_softplus(-self.knee, self.gate.kappa)

    def angle(self, s: float) -> float:
        """phi-hat of one strength, in radians."""
        return self.alpha * max(compute_softplus(s - self.knee, self.gate.kappa) - self.baseline, 0.0)

    def passed(self, d: float) -> float:
        """The most that a step of relative size d can move the stream: g·d with the smallest angle that d allows.

        That is a = 0 and, with depth history, the previous angle 0, so that phi = beta·phi-hat.
        """
        if self.gate.kind == "softclip":
            knee, limit = self.knee, self.gate.limit
            assert limit is not None
            return d if d <= knee else knee + (limit - knee) * math.tanh((d - knee) / (limit - knee))
        phi = self.angle(self.strength.w1 * d) * (self.beta if self.deep else 1.0)
        return d / math.hypot(1.0, phi) if self.gate.kind == "normalized" else d * math.cos(min(phi, math.pi / 2))

    def step_bound(self) -> float:
        """sup over d of `passed(d)`: ||u' - u|| <= step_bound·||u|| (up to the guards of d); inf where there is none.

        As d grows, g·d of the normalised gate rises to a peak and falls to 1/(alpha·beta·w1): it is not monotone.
        Of learned alpha and tau it is the bound at the start.
        """
        if self.gate.kind == "softclip":
            assert self.gate.limit is not None
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
                f"mid={self.mid:g} is below short={self.short:g}; a spike that came back "
                "must not fade faster than a new one (default: short=8, mid=64)"
            )


def compute_bound(growth: float, joins: int) -> float:
    """C with (1 + C)^joins = growth."""
    return growth ** (1 / joins) - 1


def compute_softplus(x: float, kappa: float) -> float:
    """log(1 + exp(kappa·x)) / kappa, without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-kappa * abs(x))) / kappa


def _one_of(name: str, value: str, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ConfigError(f"{name}={value} is not known{suggest_option(str(value), options)}")
