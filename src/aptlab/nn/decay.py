"""Whose weights the optimizer treats in another way than the rest."""

from __future__ import annotations

from torch import nn


class Undecayed(nn.Module):
    """A module whose parameters, and those below it, take no weight decay: to pull them to 0 has no meaning.

    Embeddings, norms and biases need no mark (`aptlab.optim.make_parameter_groups`). This is for frequencies, tables of
    positions and the like, whose shape alone would take them for a matrix.
    """


class ScaledRate(Undecayed):
    """A module whose parameters take no weight decay and learn at `rate_scale` times the model's rate.

    For gates that hardly move otherwise (`aptlab.optim.make_parameter_groups`).
    """

    def __init__(self, rate_scale: float) -> None:
        super().__init__()
        self.rate_scale = rate_scale
