"""What an objective may ask of the network in one training step. No torch."""

from __future__ import annotations

from typing import Any, Protocol


class Passes(Protocol):
    """The forward passes of a network over one micro-batch.

    step    optimizer steps taken; all micro-batches and ranks of a step have the same
    widths  at which the network can run, largest first; (1.0,) for a network of one width
    """

    @property
    def step(self) -> int: ...

    @property
    def widths(self) -> tuple[float, ...]: ...

    def run(self, *, width: float | None = None) -> Any:
        """The network's output for the micro-batch, as the objective needs it; None = as the network is."""
