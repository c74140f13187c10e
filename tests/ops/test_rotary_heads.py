"""The rotation of heads from positions: reference, and the Triton kernel in its interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aptlab.nn.positions.rope import Standard
from aptlab.nn.positions.rotary import RotaryEmbedding
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs, rotate_heads, rotate_heads_, rotate_heads_reference

CASES = Path(__file__).with_name("kernel_cases.py")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("sizes", ["first", pytest.param("others", marks=pytest.mark.slow)])
def test_the_kernel_is_float64_to_a_unit_in_the_last_place_forward_and_backward(sizes):
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(CASES), "cpu", sizes], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "all cases passed" in done.stdout


def test_float32_heads_are_rounded_once_where_the_frequencies_are_given():
    """10 million tokens away, to half a unit in the last place of each value, as float64 rounds it."""
    pytest.importorskip("triton", reason="the cases import the kernel")
    from tests.ops.kernel_cases import exact, lengths, tables_of, theta_of, units

    theta = theta_of(8)
    x = torch.randn(2, 5, 7, 16, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(7).unsqueeze(0) + 10_000_000
    args = RotationArgs(positions, tables_of(8), queries=3, theta=theta)
    expected = exact(x, args, theta, "half")
    assert units(rotate_heads(x, args), expected, torch.float32, floor=1e-6) <= 0.5
    by_tables = rotate_heads(x, args._replace(theta=None))
    assert units(by_tables, expected, torch.float32, floor=1e-6) > 2
    assert units(by_tables, expected, torch.float32, size=lengths(expected, 8, "half")) <= 2


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_heads_rotate_as_the_rotary_module_rotates_them(layout):
    rotary = RotaryEmbedding(Standard(layout=layout), head_dim=16)
    x, positions = torch.randn(2, 5, 7, 16), torch.arange(7).unsqueeze(0) * 1001
    tables = rotary.tables
    rotated = rotate_heads(x, RotationArgs(positions, tables, queries=3, layout=layout))
    assert torch.allclose(rotated, rotary.rotate(x, rotary.angles(positions)), atol=1e-6, rtol=0)


def test_queries_alone_are_scaled_and_weights_differ_for_keys():
    rotary = RotaryEmbedding(Standard(), head_dim=8)
    tables = rotary.tables
    x, positions = torch.randn(1, 3, 4, 8), torch.zeros(1, 4, dtype=torch.long)
    scale = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    rotated = rotate_heads_reference(x, RotationArgs(positions, tables, queries=2, scale=scale))
    assert torch.allclose(rotated[:, :2], x[:, :2] * scale.view(1, 1, 4, 1))
    assert torch.equal(rotated[:, 2:], x[:, 2:])
    weight = torch.stack((torch.full((8,), 2.0), torch.full((8,), 3.0)))
    normed = rotate_heads_reference(x, RotationArgs(positions, tables, queries=2, norm=HeadNorm(weight, 0.0, "before")))
    assert torch.allclose(normed.pow(2).mean(-1).sqrt()[0, :, 0], torch.tensor([2.0, 2.0, 3.0]))


def test_heads_that_are_not_needed_any_more_are_written_over():
    args = RotationArgs(torch.arange(4).unsqueeze(0), RotaryEmbedding(Standard(), head_dim=8).tables, queries=2)
    whole = torch.randn(2, 4, 5, 8)
    x, values = whole.transpose(1, 2)[:, :3], whole[:, :, 3:].clone()
    expected = rotate_heads(x, args)
    assert rotate_heads_(x, args) is x
    assert torch.equal(whole.transpose(1, 2)[:, :3], expected)
    assert torch.equal(whole[:, :, 3:], values)


def test_the_op_traces_as_one_graph():
    rotary = RotaryEmbedding(Standard(), head_dim=8)
    tables = rotary.tables
    x, positions = torch.randn(1, 3, 4, 8), torch.arange(4).unsqueeze(0)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: rotate_heads(x, RotationArgs(positions, tables, 2)), fullgraph=True, backend="aot_eager"
    )
    assert torch.allclose(compiled(x), rotate_heads(x, RotationArgs(positions, tables, 2)), atol=1e-6)
