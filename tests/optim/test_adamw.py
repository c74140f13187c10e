"""Parameter groups and the optimizers that come out of the rules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aptlab.errors import ConfigError
from aptlab.optim import AdamW, AdamW8bit
from aptlab.optim.adamw import make_parameter_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 8, bias=False)


def test_matrices_decay_and_norms_biases_and_embeddings_do_not():
    net = Net()
    decayed, plain = make_parameter_groups(net, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(net.linear.weight), id(net.head.weight)}
    assert {id(p) for p in plain["params"]} == {
        id(net.embed.weight),
        id(net.linear.bias),
        id(net.norm.weight),
        id(net.norm.bias),
    }
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_a_tied_head_counts_as_the_embedding():
    net = Net()
    net.head.weight = net.embed.weight
    decayed, plain = make_parameter_groups(net, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(net.linear.weight)]
    assert id(net.embed.weight) in {id(p) for p in plain["params"]}


def test_frozen_parameters_are_left_out():
    net = Net()
    net.linear.weight.requires_grad_(False)
    groups = make_parameter_groups(net, 0.1)
    assert id(net.linear.weight) not in {id(p) for group in groups for p in group["params"]}


def test_one_step_equals_algorithm_2_of_the_paper_in_float64():
    torch.manual_seed(0)
    net = nn.Linear(3, 3, bias=False).double()
    before, grad = net.weight.detach().clone(), torch.randn(3, 3, dtype=torch.float64)
    rule = AdamW(lr=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8)
    optimizer = rule.make(net)
    net.weight.grad = grad.clone()
    optimizer.step()
    for i in range(3):
        for j in range(3):
            g, w = grad[i, j].item(), before[i, j].item()
            m, v = 0.1 * g / (1 - 0.9), 0.05 * g * g / (1 - 0.95)
            expected = w - 0.01 * 0.1 * w - 0.01 * m / (math.sqrt(v) + 1e-8)
            assert net.weight[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_the_kernel_is_fused_unless_a_loss_scaler_runs():
    assert AdamW().make(Net()).defaults["fused"] is True
    assert AdamW().make(Net(), unscaled=False).defaults["fused"] is False


def test_eight_bit_states_are_bytes_and_the_loss_falls():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes has no build for this platform")
    torch.manual_seed(0)
    net = nn.Linear(128, 128)
    optimizer = AdamW8bit(lr=0.01).make(net)
    x, y = torch.randn(64, 128), torch.randn(64, 128)
    losses = []
    for _ in range(10):
        loss = nn.functional.mse_loss(net(x), y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.9 * losses[0]
    assert optimizer.state[net.weight]["state1"].dtype == torch.uint8


def test_a_learning_rate_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"^lr must be a finite number > 0, got 0"):
        AdamW(lr=0)
