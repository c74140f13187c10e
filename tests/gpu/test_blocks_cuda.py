"""Other forms of a block, capped logits and norms over all heads on a CUDA device: the numbers of the CPU."""

from __future__ import annotations

import pytest
import torch

from aptlab.config import build, compose
from aptlab.nn.attention.capped import attend_capped
from aptlab.nn.attention.dispatch import compute_attention
from aptlab.nn.attention.spec import AttentionSpec, Heads
from aptlab.nn.context import ForwardContext
from aptlab.testing import decode_in_chunks, make_random_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", ["gemma2", "olmo2", "olmo3", "neox", "cohere", "stablelm", "phi2"])
def test_a_preset_gives_the_logits_of_the_cpu(name):
    words = ["size=tiny", "vocab=61", f"model={name}"]
    torch.manual_seed(0)
    net = build(compose("train", words).resolved()["model"]).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(4.0 if weight.ndim > 1 else 1.0)
        tokens = make_random_tokens(2, 300)
        expected = net(tokens).logits
        net.cuda()
        got = net(tokens.cuda()).logits.cpu()
        pieces = decode_in_chunks(net, tokens.cuda(), [200, 1, 40, 1]).cpu()
    assert expected.abs().max() > 0.1
    assert (got - expected).abs().max() < 1e-4
    assert (pieces - expected).abs().max() < 1e-4


@pytest.mark.parametrize("window", [None, 50])
def test_flex_attention_caps_as_the_dense_formula_does(window):
    generator = torch.Generator("cuda").manual_seed(0)
    sizes = ((2, 4, 300, 64), (2, 2, 300, 64), (2, 2, 300, 64))
    heads = Heads(*(2 * torch.randn(size, generator=generator, device="cuda") for size in sizes))
    spec = AttentionSpec(scale=0.3, window=window, softcap=5.0)
    context = ForwardContext(300, device="cuda")
    mask = context.mask(window=window, dense=True)
    assert (compute_attention(heads, context, spec) - attend_capped(heads, spec, mask)).abs().max() < 1e-4
