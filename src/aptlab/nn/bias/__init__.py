"""Position methods that add to the attention scores."""

from __future__ import annotations

from torch import nn


class NoBias(nn.Module):
    """Nothing is added to the scores; the model leaves it out."""

    shared = True
    contextual = False

    def __init__(self, *, heads: int, head_dim: int, layer: int) -> None:
        super().__init__()
