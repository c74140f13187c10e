"""Which precision `precision=auto` stands for."""

from __future__ import annotations

from typing import Literal, get_args

from aptlab.errors import ConfigError, suggest_option

Precision = Literal["auto", "32-true", "bf16-mixed", "bf16-true", "16-mixed"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def resolve_precision(name: str, accelerator: str) -> str:
    """The precision Lightning is given: bf16-mixed on CUDA devices that compute in bfloat16, else 32-true.

    16-mixed is refused on the CPU, where Lightning would quietly take bfloat16 instead.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision={name}: no such precision{suggest_option(name, PRECISIONS)}")
    if name == "16-mixed" and accelerator == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU; on the CPU use precision=bf16-mixed or 32-true")
    if name != "auto":
        return name
    if accelerator == "cpu":
        return "32-true"
    import torch

    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"
