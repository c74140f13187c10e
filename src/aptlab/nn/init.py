"""Who draws the weights that training starts from."""

from __future__ import annotations

import abc

from torch import nn


class OwnsInit(abc.ABC):
    """A module that draws its own weights: a model calls `reset_parameters` and touches nothing below it."""

    @abc.abstractmethod
    def reset_parameters(self, std: float, depth: int) -> None:
        """Draw the start of training; std is the model's, depth its number of blocks."""


def draw_weights(module: nn.Linear | nn.Embedding, std: float) -> None:
    """Weights N(0, std) and a bias of 0, in place."""
    nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def reset_tree(module: nn.Module, std: float, depth: int) -> None:
    """Let every module below that owns its start draw it; matrices and tables of nobody start as N(0, std)."""
    for child in module.children():
        if isinstance(child, OwnsInit):
            child.reset_parameters(std, depth)
            continue
        if isinstance(child, nn.Linear | nn.Embedding):
            draw_weights(child, std)
        reset_tree(child, std, depth)
