"""The residual with a normalised branch: its equation, its laws, and its place in a decoder."""

import numpy as np
import torch

from aptlab.nn.smooth import PostNorm
from aptlab.testing import make_random_tokens, make_tiny_decoder
from aptlab.testing.smooth import join_once
from tests.reference.norm import rms_norm


def test_it_adds_the_normalised_branch():
    torch.manual_seed(0)
    layer = PostNorm(6, layer=0, site="ffn", eps=1e-3).double()
    torch.nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    u, delta = torch.randn(2, 3, 6).double(), 5 * torch.randn(2, 3, 6).double()
    out, carry, seen = join_once(layer, u, delta, None, trace=True)
    weight = layer.norm.weight.tolist()
    expected = u.numpy() + np.stack([[rms_norm(row, weight, 1e-3) for row in rows] for rows in delta.numpy()])
    assert np.abs(out.detach().numpy() - expected).max() < 1e-12
    assert carry is None
    assert seen["peak"] == out.abs().max().float()


def test_a_branch_of_any_size_adds_the_same():
    layer = PostNorm(16, layer=0, site="attention")
    u, delta = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    small, large = join_once(layer, u, delta)[0] - u, join_once(layer, u, 1000 * delta)[0] - u
    assert (small - large).abs().max().item() < 1e-4


def test_every_site_learns_its_size():
    net = make_tiny_decoder(smooth=PostNorm).train()
    net(make_random_tokens(2, 8)).logits.logsumexp(-1).sum().backward()
    for block in net.blocks:
        for site in (block.attention_smooth, block.ffn_smooth):
            assert site.norm.weight.grad.abs().min().item() > 0
