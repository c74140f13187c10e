"""Memory tiers on CUDA: the numbers of the CPU, mixed precision, and a compiled pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from aptlab.nn.memory import InfiniMemory, KNNMemory, TitansContextMemory, TitansGateMemory, XLMemory
from aptlab.testing import make_random_tokens, make_tiny_decoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TIERS = {
    "xl": partial(XLMemory, mem_len=48),
    "infini": partial(InfiniMemory, segment=32),
    "infini_delta": partial(InfiniMemory, segment=32, update="delta"),
    "knn": partial(KNNMemory, segment=32, size=64, neighbors=8, scale=4.0, layers=None),
    "titans_mag": partial(TitansGateMemory, segment=32, chunk=16),
    "titans_mac": partial(TitansContextMemory, segment=32, chunk=16),
}
NAMES = torch.tensor([[1] * 50 + [2] * 46, [3] * 20 + [4] * 76])


def read_segments(net: Any, tokens: Tensor, names: Tensor) -> Tensor:
    states: Any = {}
    logits = []
    for begin in range(0, 96, 48):
        part = slice(begin, begin + 48)
        out = net(tokens[:, part], segments=names[:, part], states=states)
        states, logits = out.states, [*logits, out.logits]
    return torch.cat(logits, 1)


@pytest.mark.parametrize("name", TIERS)
def test_a_tier_gives_the_numbers_of_the_cpu(name):
    net, tokens = make_tiny_decoder(gain=2.0, memory=TIERS[name]), make_random_tokens(2, 96)
    with torch.no_grad():
        expected = read_segments(net, tokens, NAMES)
        net = net.cuda()
        got = read_segments(net, tokens.cuda(), NAMES.cuda())
        assert (got.cpu() - expected).abs().max() < 2e-3 * expected.abs().max()
        compiled = torch.compile(net, fullgraph=True)
        again = read_segments(compiled, tokens.cuda(), NAMES.cuda())
        assert (again - got).abs().max() < 2e-3 * expected.abs().max()


@pytest.mark.parametrize("name", TIERS)
def test_a_tier_trains_in_bfloat16(name):
    net, tokens = make_tiny_decoder(gain=2.0, memory=TIERS[name]).cuda().train(), make_random_tokens(2, 96).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = read_segments(net, tokens, NAMES.cuda()).float().logsumexp(-1).mean()
    loss.backward()
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in net.parameters())
