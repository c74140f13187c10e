"""The rotation kernel on a CUDA device: float64 cases, 64-bit offsets, gradients, one graph. Skipped without one."""

from __future__ import annotations

import pytest
import torch
from tests.ops.kernel_cases import main, tables_of, units

from aptlab.nn.attention import FullAttention
from aptlab.nn.rope import IRope, Standard, YaRN
from aptlab.ops.rotary_heads import Turn, rotate_heads, rotate_heads_reference
from aptlab.testing import random_tokens, tiny_decoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_every_case_is_float64_to_a_unit_in_the_last_place():
    main("cuda")


def test_offsets_beyond_32_bits_are_right():
    """A stride of 2^31 elements between rows of a batch, as in one very long fused projection."""
    memory = torch.zeros(2**31 + 4 * 3 * 64, dtype=torch.bfloat16, device="cuda")
    x = memory.as_strided((2, 3, 4, 64), (2**31, 64, 3 * 64, 1))
    x.copy_(torch.randn(2, 3, 4, 64, device="cuda"))
    turn = Turn(torch.arange(4, device="cuda").unsqueeze(0) + 9_000_000, tables_of(32).cuda(), queries=2)
    wanted = rotate_heads_reference(x.double(), turn)
    assert units(rotate_heads(x, turn), wanted, torch.bfloat16, floor=1e-2) <= 1


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_the_op_compiles_as_one_graph_with_gradients(layout):
    turn = Turn(torch.arange(50, device="cuda").unsqueeze(0), tables_of(32).cuda(), queries=4, layout=layout)
    x = torch.randn(2, 50, 8, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    def loss(x):
        return rotate_heads(x.transpose(1, 2)[:, :6], turn).float().square().sum()

    (eager,) = torch.autograd.grad(loss(x), x)
    torch._dynamo.reset()
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), x)
    assert (eager - compiled).abs().max() < 2e-2 * eager.abs().max()


@pytest.mark.parametrize(
    "rule", [Standard(), YaRN(temperature_on="cos_sin"), IRope(chunk=16)], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_models_train_with_the_gradients_of_the_reference(rule, qk_norm):
    def grads(device):
        net = tiny_decoder(rope=rule, gain=2.0, attention=lambda *a, **k: FullAttention(*a, qk_norm=qk_norm, **k))
        net = net.to(device)
        net(random_tokens(2, 40).to(device)).logits.float().logsumexp(-1).sum().backward()
        return {name: weight.grad.cpu() for name, weight in net.named_parameters()}

    host, device = grads("cpu"), grads("cuda")
    for name, wanted in host.items():
        assert (device[name] - wanted).abs().max() <= 5e-3 * wanted.abs().max() + 1e-4, name
