"""Where a run computes: rules that say which accelerator, how many, and which strategy Lightning takes."""

from aptlab.device.choice import resolve_torch_device
from aptlab.device.precision import PRECISIONS, resolve_precision
from aptlab.device.rules import DDP, Auto, Cpu, Cuda, Device

__all__ = ["DDP", "PRECISIONS", "Auto", "Cpu", "Cuda", "Device", "resolve_precision", "resolve_torch_device"]
