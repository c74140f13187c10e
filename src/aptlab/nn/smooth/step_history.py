"""The usual size of one site's steps. Legend: B batch, T tokens, C dim."""

from __future__ import annotations

import torch
from torch import Tensor

from aptlab.nn.smooth.fixed_precision import FixedPrecision
from aptlab.ops.measure import GUARD, compute_rms

STEP_SIZES = "step_sizes"


class StepHistory(FixedPrecision):
    """A running mean over optimizer steps, m <- m + max(1 - decay, 1 / n) (x_n - m): x_n is the mean over the finite
    tokens of step n, of all micro-batches and ranks, of rms(g delta).

    So m is the plain mean of the first 1 / (1 - decay) steps and from then on forgets. Read in forward, written by
    `update` once per optimizer step; both buffers are float32 scalars in the state_dict, equal on all ranks.
    """

    size: Tensor
    steps: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("size", torch.zeros((), dtype=torch.float32))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float32))

    def measure_excess(self, size_BT1: Tensor) -> Tensor:
        """[rms(delta) - m]+ / (rms(delta) + m + 1e-6) in [0, 1); 0 before the first optimizer step."""
        usual = torch.where(self.steps > 0, self.size, torch.inf).to(size_BT1.dtype)
        excess = (size_BT1 - usual).clamp_min(0) / (size_BT1 + usual + GUARD)
        return torch.where(self.steps > 0, excess, torch.zeros_like(excess))

    def observe(self, delta_BTC: Tensor, gate_BT1: Tensor) -> Tensor:
        """Sum of rms(g delta) over the tokens where it is finite, and their number: float32 [2]."""
        size_BT1 = gate_BT1 * compute_rms(delta_BTC)
        finite = size_BT1.isfinite()
        sizes = torch.where(finite, size_BT1, torch.zeros_like(size_BT1))
        return torch.stack((sizes.sum(), finite.sum().to(sizes.dtype))).float()

    @torch.no_grad()
    def update(self, sizes_2: Tensor, skipped: bool | Tensor = False) -> None:
        """An optimizer step passes, with the sum of its sizes and the number of its tokens; on their device.

        A step without a finite token, or one that was skipped, changes nothing.
        """
        total, tokens = sizes_2.to(self.size).unbind()
        counts = (tokens > 0) & ~torch.as_tensor(skipped, device=self.size.device).bool().reshape(())
        steps = self.steps + 1
        share = torch.clamp(1 / steps, min=1 - self.decay)
        size = self.size + share * (total / tokens.clamp_min(1) - self.size)
        self.size.copy_(torch.where(counts, size, self.size))
        self.steps.copy_(torch.where(counts, steps, self.steps))

    def extra_repr(self) -> str:
        """The decay, for printing."""
        return f"decay={self.decay:g}"
