"""AdamW as a rule: which numbers, which parameters decay, which kernel. torch is imported on use."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aptlab.errors import ConfigError
from aptlab.limits import NonNegative, OpenFraction, Positive, validate_limits
from aptlab.optim.base import Optim

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}


def make_parameter_groups(net: nn.Module, weight_decay: float, lr: float | None = None) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases, embeddings and positions do not (Radford et al. 2019; Brown et al. 2020).

    A head tied to the embedding is the embedding. A module that is `aptlab.nn.decay.Undecayed` keeps what it has.
    Those of an `aptlab.nn.decay.ScaledRate` are a group by themselves, for each scale, at that many times `lr`.
    """
    from torch import nn

    from aptlab.nn.decay import ScaledRate, Undecayed

    scaled = {
        id(weight): module.rate_scale
        for module in net.modules()
        if isinstance(module, ScaledRate) and module.rate_scale != 1
        for weight in module.parameters()
    }
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    gates = [weight for weight in weights if id(weight) in scaled]
    weights = [weight for weight in weights if id(weight) not in scaled]
    owners = [module for module in net.modules() if isinstance(module, nn.Embedding | Undecayed)]
    spared = {id(weight) for module in owners for weight in module.parameters()}
    decays = [weight.ndim >= 2 and id(weight) not in spared for weight in weights]
    groups = [
        {"params": [weight for weight, yes in zip(weights, decays) if yes], "weight_decay": weight_decay},
        {"params": [weight for weight, yes in zip(weights, decays) if not yes], "weight_decay": 0.0},
    ]
    for scale in sorted({scaled[id(weight)] for weight in gates}):
        assert lr is not None, "a rate to scale"
        params = [weight for weight in gates if scaled[id(weight)] == scale]
        groups.append({"params": params, "weight_decay": 0.0, "lr": lr * scale})
    return groups


@dataclass(frozen=True, kw_only=True)
class Adam(Optim, abc.ABC):
    """The numbers that every Adam with decoupled weight decay takes."""

    lr: Positive = 3e-3
    weight_decay: NonNegative = 0.1
    beta1: OpenFraction = 0.9
    beta2: OpenFraction = 0.95
    eps: Positive = 1e-8

    def __post_init__(self) -> None:
        validate_limits(self)

    @abc.abstractmethod
    def make(self, net: nn.Module, *, unscaled: bool = True) -> Optimizer:
        """The optimizer of all trainable parameters; `unscaled` is false where a loss scaler runs."""


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""

    def make(self, net: nn.Module, *, unscaled: bool = True) -> Optimizer:
        """The optimizer of all trainable parameters.

        One fused kernel runs where every parameter's device has it. With a loss scaler (`unscaled=False`, precision
        16-mixed) the fused kernel would unscale by itself, before gradients can be clipped, so it stays off.
        """
        import torch

        fused = unscaled and all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in net.parameters())
        groups = make_parameter_groups(net, self.weight_decay, self.lr)
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=fused)


@dataclass(frozen=True, kw_only=True)
class AdamW8bit(Adam):
    """AdamW whose two moments take one byte each, in blocks of 256 (Dettmers et al. 2022, arXiv:2110.02861).

    Tensors below 4096 elements keep 32-bit moments.
    """

    def make(self, net: nn.Module, *, unscaled: bool = True) -> Optimizer:
        """The optimizer of all trainable parameters; an error where bitsandbytes is not installed."""
        del unscaled
        try:
            import bitsandbytes
        except ImportError as error:
            raise ConfigError(
                "optim=adamw8bit needs bitsandbytes, which has no build for this platform; use optim=adamw"
            ) from error
        groups = make_parameter_groups(net, self.weight_decay, self.lr)
        return bitsandbytes.optim.AdamW8bit(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps)
