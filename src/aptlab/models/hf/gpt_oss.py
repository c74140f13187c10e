"""A feed-forward as the only expert of a mixture, and back: gpt-oss with num_local_experts=1.

With one expert to choose from, the router's softmax is 1 whatever it says, so the mixture is that expert. Its matrices
are transposed and stacked, [1, C, 2F] and [1, F, C], gate and value alternating. Legend: C width, F hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PLACE, EXPERTS = "mlp.", "mlp.experts."


def stack_expert(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by names of plain layers (gate_proj, up_proj, down_proj) -> by those of a mixture with one expert."""
    out = dict(named)
    for first in [name for name in named if name.endswith("mlp.gate_proj.weight")]:
        layer = first.removesuffix("mlp.gate_proj.weight")
        for kind, suffix in (("weight", ""), ("bias", "_bias")):
            gate, up, down = (out.pop(f"{layer}{PLACE}{part}_proj.{kind}") for part in ("gate", "up", "down"))
            both = torch.stack((gate, up), dim=1).flatten(0, 1)
            out[f"{layer}{EXPERTS}gate_up_proj{suffix}"] = both.mT[None] if kind == "weight" else both[None]
            out[f"{layer}{EXPERTS}down_proj{suffix}"] = down.mT[None] if kind == "weight" else down[None]
        out[f"{layer}mlp.router.weight"] = torch.zeros_like(named[first][:1])
        out[f"{layer}mlp.router.bias"] = torch.zeros_like(named[first][0, :1])
    return out


def unstack_expert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `stacked`; what is not of one expert keeps its name, and is then told to have no place."""
    out = {name: weight for name, weight in weights.items() if not name.endswith(("router.weight", "router.bias"))}
    for name, weight in weights.items():
        layer, found, part = name.partition(EXPERTS)
        if not found or weight.shape[0] != 1:
            continue
        kind = "bias" if part.endswith("_bias") else "weight"
        expert = out.pop(name)[0].mT if kind == "weight" else out.pop(name)[0]
        if part.startswith("down_proj"):
            out[f"{layer}{PLACE}down_proj.{kind}"] = expert
        else:
            out[f"{layer}{PLACE}gate_proj.{kind}"], out[f"{layer}{PLACE}up_proj.{kind}"] = expert[::2], expert[1::2]
    return out
