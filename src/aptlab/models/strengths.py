"""How strong the steps of each token are, by the model's own smoothing. Legend: B batch, T tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from aptlab.models.decoder import Decoder
from aptlab.models.output import Hidden
from aptlab.nn.smooth import Smooth


@torch.no_grad()
def measure_strengths(net: Decoder, **given: Any) -> tuple[Hidden, Tensor | None]:
    """What `net.hidden(**given)` gives, and the strength of each token, [B, T].

    It is the mean over the sites whose smoothing measures one (`Smooth.measure_strength`: left_spin and its relatives);
    None where no site does.
    """
    found: list[Tensor] = []

    def watch(smooth: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(smooth, Smooth)
        strength_BT1 = smooth.measure_strength(*args)
        if strength_BT1 is not None:
            found.append(strength_BT1.squeeze(-1))

    # A join with a hook is called by itself: no kernel that makes the next norm as well passes it by (`can_fuse_norm`).
    hooks = [smooth.register_forward_pre_hook(watch) for smooth in list_smooths(net)]
    try:
        hidden = net.hidden(**given)
    finally:
        for hook in hooks:
            hook.remove()
    return hidden, torch.stack(found).mean(0) if found else None


def list_smooths(net: Decoder) -> list[Smooth]:
    """The join of every site, in order; not what one is made of."""
    return [getattr(block, f"{name}_smooth") for block in net.each_block() for name in block.sites]
