"""The rotation kernel on a CUDA device: float64 cases, 64-bit offsets, gradients, one graph. Skipped without one."""

from __future__ import annotations

import pytest
import torch
from tests.ops.kernel_cases import LAYOUTS, assert_all_cases, assert_case, tables_of, theta_of, units

from aptlab.nn.attention import FullAttention
from aptlab.nn.positions.rope import IRope, Standard, YaRN
from aptlab.ops.rotary_heads import HeadNorm, RotationArgs, rotate_heads, rotate_heads_, rotate_heads_reference
from aptlab.testing import make_random_tokens, make_tiny_decoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_every_case_is_float64_to_a_unit_in_the_last_place():
    assert_all_cases("cuda")


@pytest.mark.parametrize("size", [(2, 700, 32, 8, 128, 64), (1, 1500, 12, 2, 96, 48), (1, 900, 3, 3, 80, 20)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_gradients_are_right_where_a_program_takes_several_tokens_and_tiles(size, layout, where, dtype):
    assert_case(size, layout, where, dtype, "cuda")


def test_gradients_of_the_norms_weights_are_the_same_twice():
    weight = torch.rand(2, 128, device="cuda", requires_grad=True)
    args = RotationArgs(
        torch.arange(3000, device="cuda").unsqueeze(0), tables_of(64).cuda(), 32, norm=HeadNorm(weight, 1e-6, "before")
    )
    x = torch.randn(1, 40, 3000, 128, device="cuda", dtype=torch.bfloat16)
    one, two = (torch.autograd.grad(rotate_heads(x, args).float().square().sum(), weight)[0] for _ in range(2))
    assert torch.equal(one, two)


def test_strided_positions_and_scales_are_read_where_they_lie():
    x = torch.randn(2, 6, 9, 64, device="cuda", dtype=torch.bfloat16)
    positions = torch.randint(0, 9_000_000, (9, 2), device="cuda").t()
    scale = torch.rand(9, 1, device="cuda").t()
    args = RotationArgs(positions, tables_of(32).cuda(), queries=4, scale=scale, theta=theta_of(32).cuda())
    expected = rotate_heads_reference(x.double(), args)
    assert units(rotate_heads(x, args), expected, torch.bfloat16) <= 1
    one = RotationArgs(positions[:1, :1].expand(1, 9), args.tables, queries=4)
    assert units(rotate_heads(x, one), rotate_heads_reference(x.double(), one), torch.bfloat16) <= 1


def test_offsets_beyond_32_bits_are_right():
    """A stride of 2^31 elements between rows of a batch, as in one very long fused projection."""
    memory = torch.zeros(2**31 + 4 * 3 * 64, dtype=torch.bfloat16, device="cuda")
    x = memory.as_strided((2, 3, 4, 64), (2**31, 64, 3 * 64, 1))
    x.copy_(torch.randn(2, 3, 4, 64, device="cuda"))
    args = RotationArgs(torch.arange(4, device="cuda").unsqueeze(0) + 9_000_000, tables_of(32).cuda(), queries=2)
    expected = rotate_heads_reference(x.double(), args)
    assert units(rotate_heads(x, args), expected, torch.bfloat16) <= 1


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_the_op_compiles_as_one_graph_with_gradients(layout):
    args = RotationArgs(torch.arange(50, device="cuda").unsqueeze(0), tables_of(32).cuda(), queries=4, layout=layout)
    x = torch.randn(2, 50, 8, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def loss(x):
        return rotate_heads(x.transpose(1, 2)[:, :6], args).float().square().sum()

    (eager,) = torch.autograd.grad(loss(x), x)
    torch._dynamo.reset()
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), x)
    assert (eager - compiled).abs().max() < 2e-2 * eager.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", [None, "before", "after"])
def test_heads_are_written_over_with_the_same_numbers(layout, where):
    whole = torch.randn(2, 1300, 48, 128, device="cuda", dtype=torch.bfloat16)
    norm = None if where is None else HeadNorm(None, 1e-6, where)
    args = RotationArgs(torch.arange(1300, device="cuda").unsqueeze(0), tables_of(64).cuda(), 32, layout, norm)
    x, values = whole.transpose(1, 2)[:, :40], whole[:, :, 40:].clone()
    expected = rotate_heads(x, args)
    assert rotate_heads_(x, args) is x
    assert torch.equal(whole[:, :, :40].transpose(1, 2), expected)
    assert torch.equal(whole[:, :, 40:], values)


def test_a_gradient_that_needs_what_was_written_over_is_refused():
    x = torch.randn(1, 4, 9, 64, device="cuda", requires_grad=True)
    y = x * 2
    loss = y.square().sum()
    rotate_heads_(y, RotationArgs(torch.arange(9, device="cuda").unsqueeze(0), tables_of(32).cuda(), queries=3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_hook_sees_queries_and_keys_as_they_were_projected():
    net = make_tiny_decoder(rope=Standard()).cuda()
    tokens, seen = make_random_tokens(1, 40).cuda(), []
    linear = net.blocks[0].attention.qkv
    with torch.no_grad():
        plain = net(tokens).logits
        handle = linear.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
        assert torch.equal(net(tokens).logits, plain)
        handle.remove()
        ((given, out),) = seen
        assert torch.equal(out, linear(given))


@pytest.mark.parametrize(
    "rule", [Standard(), YaRN(temperature_on="cos_sin"), IRope(chunk=16)], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_models_train_with_the_gradients_of_the_reference(rule, qk_norm):
    def grads(device):
        net = make_tiny_decoder(rope=rule, gain=2.0, attention=lambda *a, **k: FullAttention(*a, qk_norm=qk_norm, **k))
        net = net.to(device)
        net(make_random_tokens(2, 40).to(device)).logits.float().logsumexp(-1).sum().backward()
        return {name: weight.grad.cpu() for name, weight in net.named_parameters() if weight.grad is not None}

    host, device = grads("cpu"), grads("cuda")
    assert host.keys() == device.keys()
    for name, expected in host.items():
        assert (device[name] - expected).abs().max() <= 5e-3 * expected.abs().max() + 1e-4, name
