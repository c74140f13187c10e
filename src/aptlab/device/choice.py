"""The torch device that a word stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aptlab.device.rules import Auto, require_cuda
from aptlab.errors import ConfigError

if TYPE_CHECKING:
    import torch


def resolve_torch_device(device: str | torch.device) -> torch.device:
    """`auto` (CUDA where it is, else the CPU), or any name of torch ("cpu", "cuda:1").

    Raises ConfigError for a name that torch does not know and for a CUDA device that is not there.
    """
    import torch

    try:
        found = torch.device(Auto().torch_device if device == "auto" else device)
    except RuntimeError as error:
        raise ConfigError(f"device={device}: no such device; use auto, cpu, cuda or cuda:<number>") from error
    if found.type == "cuda":
        require_cuda(f"device={found}", (found.index or 0) + 1)
    return found
