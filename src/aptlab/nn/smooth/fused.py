"""When a join and the norm that reads it are one kernel, and that kernel as a rule calls it. Legend: B, T, C."""

from __future__ import annotations

from torch import Tensor, nn

from aptlab.nn.norm import RMSNorm
from aptlab.nn.smooth.carry import Carry, JoinResult
from aptlab.nn.smooth.rule import SpinRule
from aptlab.ops.smooth_norm import GateArgs, JoinArgs, can_use_kernel, join_norm

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_fuse_gate(rule: SpinRule, u_BTC: Tensor, delta_BTC: Tensor) -> bool:
    """Whether the kernel computes this rule's gate, on a device that has the kernel.

    It is the normalized one, detached, of fixed numbers, and without a history over optimizer steps.
    """
    gate, plain = rule.gate, rule.strength.history != "step" and not rule.gate.learned
    return plain and gate.kind == "normalized" and gate.grad == "detach" and can_use_kernel(u_BTC, delta_BTC)


def can_fuse_norm(smooth: nn.Module, norm: nn.Module) -> bool:
    """Whether a kernel may stand for both modules: an RMS norm, and no hook that would miss its call."""
    return isinstance(norm, RMSNorm) and not any(getattr(module, name) for module in (smooth, norm) for name in HOOKS)


def make_join_args(rule: SpinRule, carry: Carry | None, lift_BT1: Tensor | None, norm: nn.Module | None) -> JoinArgs:
    """The numbers and tensors of a gated join, as the op takes them."""
    strength, before = rule.strength, carry if rule.deep else None
    gate = GateArgs(
        alpha=rule.alpha,
        tau=rule.knee,
        beta=rule.beta,
        kappa=rule.gate.kappa,
        baseline=rule.baseline,
        w1=strength.w1,
        w2=strength.w2,
        guard=1e-3 * strength.reference,
        zero=rule.gate.nonfinite == "zero_token",
        keep=rule.deep,
    )
    args = JoinArgs(gate, lift=lift_BT1) if before is None else JoinArgs(gate, before.step, before.phi, lift_BT1)
    return args if norm is None else add_norm(args, norm)


def add_norm(args: JoinArgs, norm: nn.Module) -> JoinArgs:
    """A join whose sum an RMS norm reads."""
    assert isinstance(norm, RMSNorm)
    return args._replace(weight=norm.weight, eps=norm.eps)


def join_fused(u_BTC: Tensor, delta_BTC: Tensor, args: JoinArgs) -> JoinResult:
    """One gated join as `LeftSpin.join` gives it, through the op."""
    out = join_norm(u_BTC, delta_BTC, args)
    assert out.strength is not None
    assert out.angle is not None
    assert out.gate is not None
    assert out.size is not None
    after = None if out.step is None else Carry(out.step, out.angle)
    return JoinResult(out.stream, after, out.strength, out.angle, out.gate, out.size.isfinite(), out.normed)
