"""A small copy of a network's weights, on which an optimizer shows what it does without touching the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SIDE = 64  # largest size of a copied weight: 64 x 64 numbers are enough for states that are kept in blocks


class OptimizerRule(Protocol):
    """A rule that makes an optimizer, as an option of the group `optim` does."""

    def make(self, net: nn.Module, *, unscaled: bool = True) -> torch.optim.Optimizer: ...


def copy_corners(net: nn.Module, *, device: str | torch.device | None = None) -> nn.Module:
    """The first SIDE numbers of every size of every weight and gradient, in modules of the same names and classes.

    Rules ask modules what they are, to spare an embedding the decay; nothing else of a module is copied, so the copy
    computes nothing. Shared weights are shared in it too.
    """
    return _copy_module(net, device, {})


def _copy_module(module: nn.Module, device: str | torch.device | None, known: dict[int, Any]) -> nn.Module:
    if id(module) in known:
        return known[id(module)]
    known[id(module)] = copy = object.__new__(type(module))
    nn.Module.__init__(copy)
    for name, weight in module.named_parameters(recurse=False):
        if id(weight) not in known:
            known[id(weight)] = _copy_weight(weight, device)
        copy.register_parameter(name, known[id(weight)])
    for name, child in module.named_children():
        copy.add_module(name, _copy_module(child, device, known))
    return copy


def _copy_weight(weight: Tensor, device: str | torch.device | None) -> nn.Parameter:
    copy = nn.Parameter(copy_corner(weight, device), requires_grad=weight.requires_grad)
    if weight.grad is not None:
        copy.grad = copy_corner(weight.grad, device)
    return copy


def copy_corner(tensor: Tensor, device: str | torch.device | None = None) -> Tensor:
    """The first SIDE numbers of every size, as a tensor of its own."""
    return tensor.detach()[tuple(slice(SIDE) for _ in tensor.shape)].clone().to(device or tensor.device)


def find_state_problem(
    rule: OptimizerRule,
    net: nn.Module,
    saved: Mapping[str, Any],
    *,
    unscaled: bool = True,
    device: str | torch.device | None = None,
) -> str | None:
    """Why an optimizer of this rule cannot go on with a saved state, or None.

    rule      makes the optimizer that is to go on
    net       what it is to train
    saved     `state_dict()` of the optimizer that trained until now
    unscaled  False where a loss scaler runs

    What the rule keeps is seen, not known: an optimizer of it takes a step on a small copy of the weights.
    """
    probe = copy_corners(net, device=device)
    optimizer = rule.make(probe, unscaled=unscaled)
    kind = type(optimizer).__name__
    groups = [len(group["params"]) for group in saved["param_groups"]]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if groups != own:
        return f"it has groups of {groups} weights, and {kind} makes groups of {own}"
    for weight in probe.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    optimizer.step()
    old, new = (list(map(describe_form, state["state"].values())) for state in (saved, optimizer.state_dict()))
    if not old and not new:
        return None
    before, now = find_common_entries(old), find_common_entries(new)
    if before <= find_all_entries(new) and now <= find_all_entries(old):
        return None
    holds, keeps = before or find_all_entries(old), now or find_all_entries(new)
    return f"it holds {format_entries(holds)}, where {kind} keeps {format_entries(keeps)}"


def describe_form(state: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Name and kind of every entry of one weight's state: ("exp_avg", "floating"). Nested states count in full."""
    found: set[tuple[str, str]] = set()
    for name, value in state.items():
        if isinstance(value, Mapping):
            found |= describe_form(value)
        elif isinstance(value, Tensor) and value.ndim:
            found.add((name, "floating" if value.is_floating_point() else "integer"))
        else:
            found.add((name, "number"))
    return frozenset(found)


def find_common_entries(forms: list[frozenset[tuple[str, str]]]) -> frozenset[tuple[str, str]]:
    """What the states of all weights have."""
    return frozenset.intersection(*forms) if forms else frozenset()


def find_all_entries(forms: list[frozenset[tuple[str, str]]]) -> frozenset[tuple[str, str]]:
    """What the state of any weight has."""
    return frozenset().union(*forms)


def format_entries(entries: frozenset[tuple[str, str]]) -> str:
    """The names for a message; counts of steps, which all optimizers have, are left out."""
    names = [f"{name} as bytes" if kind == "integer" else name for name, kind in sorted(entries) if name != "step"]
    return ", ".join(names) or "nothing"
