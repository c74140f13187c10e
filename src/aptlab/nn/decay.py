"""Whose weights the optimizer lets be."""

from __future__ import annotations

from torch import nn


class Undecayed(nn.Module):
    """A module whose parameters, and those below it, take no weight decay: to pull them to 0 has no meaning.

    Embeddings, norms and biases need no mark (`aptlab.optim.make_parameter_groups`). This is for frequencies, tables of
    positions and the like, whose shape alone would take them for a matrix.
    """
