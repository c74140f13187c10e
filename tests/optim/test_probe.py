"""A state of another form is found by what a freshly stepped optimizer keeps, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from aptlab.optim import AdamW, AdamW8bit
from aptlab.optim.adamw import make_parameter_groups
from aptlab.optim.probe import SIDE, copy_corners, find_state_problem


@dataclass(frozen=True)
class Rule:
    """Any optimizer of torch, over the groups of the project."""

    kind: Any
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, net: nn.Module, *, unscaled: bool = True) -> torch.optim.Optimizer:
        return self.kind(make_parameter_groups(net, 0.0), **self.settings)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 80)
        self.blocks = nn.ModuleList([nn.Linear(80, 80), nn.LayerNorm(80)])


def state(rule: Any) -> dict[str, Any]:
    net = Net()
    optimizer = rule.make(net)
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer.state_dict()


FORMS = {
    "adamw": AdamW(),
    "adamw8bit": AdamW8bit(),
    "amsgrad": Rule(torch.optim.AdamW, {"amsgrad": True}),
    "sgd": Rule(torch.optim.SGD, {"lr": 0.1}),
    "momentum": Rule(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "adagrad": Rule(torch.optim.Adagrad),
}


@pytest.mark.parametrize("new", FORMS)
@pytest.mark.parametrize("old", FORMS)
def test_a_form_fits_itself_and_no_other(old, new):
    if "adamw8bit" in (old, new):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes has no build for this platform")
    problem = find_state_problem(FORMS[new], Net(), state(FORMS[old]))
    assert (problem is None) == (old == new), problem


def test_the_message_names_what_there_is_and_what_is_kept():
    problem = find_state_problem(Rule(torch.optim.SGD, {"momentum": 0.9, "lr": 1.0}), Net(), state(AdamW()))
    assert problem == "it holds exp_avg, exp_avg_sq, where SGD keeps momentum_buffer"


def test_other_groups_are_named():
    saved = state(AdamW())
    saved["param_groups"] = saved["param_groups"][:1]
    assert find_state_problem(AdamW(), Net(), saved) == "it has groups of [1] weights, and AdamW makes groups of [1, 4]"


def test_fused_foreach_and_plain_kernels_keep_the_same_form():
    for settings in ({"fused": True}, {"foreach": True}, {"foreach": False}):
        assert find_state_problem(Rule(torch.optim.AdamW, settings), Net(), state(AdamW())) is None
    assert find_state_problem(AdamW(), Net(), state(AdamW()), unscaled=False) is None


def test_corners_have_the_names_order_and_gradients_of_the_network_and_leave_it_alone():
    net = Net().to(torch.bfloat16)
    net.blocks[0].weight.requires_grad_(False)
    net.embed.weight.grad = torch.ones_like(net.embed.weight)
    small = copy_corners(net)
    named = dict(small.named_parameters())
    assert list(named) == [name for name, _ in net.named_parameters()]
    assert named["embed.weight"].shape == (SIDE, SIDE)
    assert named["blocks.1.weight"].shape == (SIDE,)
    assert {weight.dtype for weight in named.values()} == {torch.bfloat16}
    assert named["embed.weight"].grad.shape == (SIDE, SIDE)
    assert [name for name, weight in named.items() if not weight.requires_grad] == ["blocks.0.weight"]
    assert [type(module) for module in small.modules()] == [type(module) for module in net.modules()]
    with torch.no_grad():
        named["embed.weight"].fill_(9.0)
    assert not (net.embed.weight == 9.0).any()


def test_a_tied_weight_is_one_weight_of_the_corners_too():
    net = Net()
    net.blocks[0].weight = net.embed.weight
    assert [weight.shape for weight in copy_corners(net).parameters()] == [(SIDE, SIDE), (SIDE,), (SIDE,), (SIDE,)]
