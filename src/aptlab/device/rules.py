"""Device rules. torch and Lightning are imported on use, so that a config check costs nothing."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, Literal

from aptlab.errors import ConfigError
from aptlab.limits import PositiveInt, validate_limits


class Device(abc.ABC):
    """What `device=` names: it answers with arguments of `lightning.Trainer`."""

    def __post_init__(self) -> None:
        validate_limits(self)

    @abc.abstractmethod
    def trainer_args(self) -> dict[str, Any]:
        """accelerator, devices and strategy; ConfigError when the device is not there."""

    @property
    @abc.abstractmethod
    def torch_device(self) -> str:
        """The device of a single process that evaluates or generates ("cpu", "cuda")."""


def count_cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_cuda(device: str, count: int) -> None:
    """Raise ConfigError unless so many CUDA devices are here; `device` opens its message."""
    found = count_cuda_devices()
    if found < count:
        raise ConfigError(
            f"{device} wants {count} CUDA device{'s' * (count > 1)} and {found} are here; use device=cpu, "
            "or device=auto for whatever there is"
        )


def make_ddp_strategy(backend: str) -> Any:
    from lightning.pytorch.strategies import DDPStrategy

    # Buffers are rotary tables and spike sketches: equal on all ranks already, so nothing is sent for them.
    return DDPStrategy(process_group_backend=backend, broadcast_buffers=False, gradient_as_bucket_view=True)


@dataclass(frozen=True, kw_only=True)
class Cpu(Device):
    """One process on the CPU."""

    def trainer_args(self) -> dict[str, Any]:
        return {"accelerator": "cpu", "devices": 1, "strategy": "auto"}

    @property
    def torch_device(self) -> str:
        return "cpu"


@dataclass(frozen=True, kw_only=True)
class Cuda(Device):
    """One or more CUDA devices of this host."""

    devices: PositiveInt = 1

    def trainer_args(self) -> dict[str, Any]:
        require_cuda(f"devices={self.devices}", self.devices)
        strategy = make_ddp_strategy("nccl") if self.devices > 1 else "auto"
        return {"accelerator": "cuda", "devices": self.devices, "strategy": strategy}

    @property
    def torch_device(self) -> str:
        require_cuda("this", 1)
        return "cuda"


@dataclass(frozen=True, kw_only=True)
class Auto(Device):
    """Every CUDA device that is there, else the CPU."""

    def trainer_args(self) -> dict[str, Any]:
        found = count_cuda_devices()
        return Cuda(devices=found).trainer_args() if found else Cpu().trainer_args()

    @property
    def torch_device(self) -> str:
        return "cuda" if count_cuda_devices() else "cpu"


@dataclass(frozen=True, kw_only=True)
class DDP(Device):
    """Data-parallel processes (Li et al. 2020, arXiv:2006.15704): NCCL on CUDA devices, gloo on CPU ranks."""

    devices: PositiveInt = 2
    nodes: PositiveInt = 1
    accelerator: Literal["auto", "cuda", "cpu"] = "auto"

    def trainer_args(self) -> dict[str, Any]:
        kind = self._kind()
        if kind == "cuda":
            require_cuda(f"devices={self.devices}", self.devices)
        strategy = make_ddp_strategy("nccl" if kind == "cuda" else "gloo")
        return {"accelerator": kind, "devices": self.devices, "num_nodes": self.nodes, "strategy": strategy}

    def _kind(self) -> str:
        if self.accelerator == "auto":
            return "cuda" if count_cuda_devices() >= self.devices else "cpu"
        return self.accelerator

    @property
    def torch_device(self) -> str:
        return self._kind()
