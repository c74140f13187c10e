"""State that no cast of a model touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn


class FixedPrecision(nn.Module):
    """A module of buffers alone that follows the device of its model, never the dtype: `.to(bfloat16)` leaves it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for name, value in list(self.named_buffers(recurse=False)):
            device = fn(torch.empty(0, device=value.device)).device
            setattr(self, name, value.to(device))
        return self
