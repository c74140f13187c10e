"""Joins with the norm that follows: the reference against plain loops, and the Triton kernel in its interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.reference import smooth as loops
from tests.reference.norm import rms_norm

from aptlab.nn.context import ForwardContext
from aptlab.nn.norm import LayerNorm, RMSNorm
from aptlab.nn.smooth import Carry, Gate, LeftSpin, MemorySmooth, Plain, Strength
from aptlab.nn.smooth.fused import can_fuse_norm, make_join_args
from aptlab.ops.smooth_norm import JoinArgs, join_norm, join_norm_reference
from aptlab.testing import make_random_tokens, make_tiny_decoder

HERE, DIM = Path(__file__).parent, 12


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("cases", [("smooth_cases.py", "ops"), ("smooth_cases.py", "models"), ("spike_cases.py",)])
def test_the_kernel_is_its_reference_forward_and_backward(cases):
    script, *words = cases
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(HERE / script), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all cases passed" in done.stdout


def make_join(dtype=torch.float64, **gate):
    rule = LeftSpin(
        DIM, layer=1, site="ffn", alpha=1.3, tau=0.4, beta=0.6, gate=Gate(kappa=5.0, **gate), strength=Strength(w1=0.9)
    )
    rng = torch.Generator().manual_seed(0)
    u, delta, step = (torch.randn(2, 4, DIM, generator=rng, dtype=torch.float64).to(dtype) for _ in range(3))
    delta = delta * torch.logspace(-2, 1, 8).view(2, 4, 1).to(dtype)
    phi, lift = (torch.rand(2, 4, 1, generator=rng, dtype=torch.float64).to(dtype) for _ in range(2))
    return rule, u, delta, Carry(step, phi), lift


def test_the_reference_is_the_equations_in_plain_loops():
    rule, u, delta, carry, lift = make_join()
    norm = RMSNorm(DIM).double()
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    out = join_norm_reference(u, delta, make_join_args(rule.rule, carry, lift, norm))
    numbers = {"alpha": 1.3, "tau": 0.4, "beta": 0.6, "kappa": 5.0, "w1": 0.9, "w2": 0.5, "reference": 0.02}
    assert out.normed is not None
    for b in range(2):
        for t in range(4):
            before = carry.step[b, t].tolist(), carry.phi[b, t].item()
            stream, step, phi, s, g = loops.left_spin(
                u[b, t].tolist(), delta[b, t].tolist(), before, lift=lift[b, t].item(), **numbers
            )
            assert out.stream[b, t].tolist() == pytest.approx(stream, rel=1e-9, abs=1e-12)
            assert out.step[b, t].tolist() == pytest.approx(step, rel=1e-9, abs=1e-12)
            measured = out.strength[b, t], out.angle[b, t], out.gate[b, t]
            assert [x.item() for x in measured] == pytest.approx([s, phi, g], rel=1e-9)
            expected = rms_norm(torch.tensor(stream).numpy(), norm.weight.detach().numpy())
            assert out.normed[b, t].tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("nonfinite", ["propagate", "zero_token"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_is_the_rule_bit_for_bit(dtype, nonfinite):
    rule, u, delta, carry, lift = make_join(dtype, nonfinite=nonfinite)
    delta[0, 1, 2] = torch.inf if nonfinite == "zero_token" else 3.0
    carry, lift = Carry(carry.step, carry.phi.float()), lift.float()
    for before in (None, carry):
        expected = rule.join(u, delta, before, lift)
        got = join_norm_reference(u, delta, make_join_args(rule.rule, before, lift, None))
        assert torch.equal(got.stream, expected.u)
        assert torch.equal(got.step, expected.carry.step)
        for one, other in ((got.strength, expected.strength), (got.angle, expected.angle), (got.gate, expected.gate)):
            assert torch.equal(one, other)
        assert torch.equal(got.size.isfinite(), expected.finite)


def test_a_plain_join_is_the_sum_and_the_norm_that_follows():
    u, delta, norm = torch.randn(2, 3, DIM), torch.randn(2, 3, DIM), RMSNorm(DIM)
    out = join_norm(u, delta, JoinArgs(weight=norm.weight, eps=norm.eps))
    assert torch.equal(out.stream, u + delta)
    assert torch.equal(out.normed, norm(u + delta))


def test_a_join_hands_the_stream_and_its_norm_on_and_hooks_see_both():
    u, delta, seen = torch.randn(1, 3, DIM), torch.randn(1, 3, DIM), []
    for smooth in (Plain(DIM, layer=0, site="ffn"), LeftSpin(DIM, layer=0, site="ffn")):
        for norm in (RMSNorm(DIM), LayerNorm(DIM)):
            assert can_fuse_norm(smooth, norm) == isinstance(norm, RMSNorm)
            handles = [module.register_forward_hook(lambda *given: seen.append(given[0])) for module in (smooth, norm)]
            assert not can_fuse_norm(smooth, norm)
            out, normed = smooth.join_norm(u, delta, ForwardContext(3), norm)
            assert seen[-2:] == [smooth, norm]
            for handle in handles:
                handle.remove()
            assert torch.equal(out, smooth(u, delta, ForwardContext(3)))
            assert torch.equal(normed, norm(out))


def test_every_norm_of_a_block_is_called_once_in_order_without_the_kernel():
    net, seen = make_tiny_decoder(), []
    for name, module in net.named_modules():
        if isinstance(module, RMSNorm):
            module.register_forward_hook(lambda module, given, out, name=name: seen.append(name))
    net(make_random_tokens(1, 4))
    assert seen == [f"blocks.{i}.{site}_norm" for i in range(3) for site in ("attention", "ffn")] + ["norm"]


def test_a_memory_finds_no_danger_in_a_step_that_is_not_finite_and_zero_token_drops_it():
    smooth = MemorySmooth(DIM, layer=0, site="ffn", gate=Gate(nonfinite="zero_token")).eval()
    smooth.update(torch.eye(2, DIM), torch.tensor([2.0, 1.0]))
    u, delta = torch.randn(1, 2, DIM), 5 * torch.eye(2, DIM).unsqueeze(0)
    delta[0, 1, 3] = torch.inf
    out = smooth(u, delta, ForwardContext(2))
    assert torch.equal(out[0, 1], u[0, 1])
    assert smooth.sketch.danger(delta)[0, :, 0].tolist() == [1.0, 0.0]
