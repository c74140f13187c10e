"""Whether what a checkpoint would hold are finite numbers: seen on their device, with one answer to the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Named = tuple[str, Tensor]
WEIGHTS, OPTIMIZERS = "state_dict", "optimizer_states"


def find_poison(checkpoint: Mapping[str, Any], weights: Iterable[str]) -> str | None:
    """Names of the tensors of a checkpoint that training cannot mend, in words, or None.

    weights  names of what is trained, as `state_dict` has them

    A weight and the state of an optimizer must be finite. All else that is a tensor (a buffer, an average of the
    weights that a callback keeps) may be infinite, as a mask is, and must not be NaN. Single numbers are not judged.
    """
    trained = frozenset(weights)
    strict, lax = [], []
    for name, tensor in walk_tensors(checkpoint):
        inside = name.removeprefix(f"{WEIGHTS}.")
        (strict if inside in trained or name.startswith(f"{OPTIMIZERS}.") else lax).append((inside, tensor))
    found = [*find_nonfinite(strict), *find_nonfinite(lax, infinite=True)]
    if not found:
        return None
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def walk_tensors(value: Any, path: str = "") -> Iterator[Named]:
    """Every tensor of floating numbers with at least one axis, by its path in plain containers."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.dim() and value.numel():
            yield path, value.detach()
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from walk_tensors(item, f"{path}.{key}" if path else str(key))


def find_nonfinite(tensors: Iterable[Named], *, infinite: bool = False) -> list[str]:
    """Names of the tensors that hold NaN or, unless `infinite` allows it, an infinity.

    The least and the greatest number of each tell, which are NaN where one number is; one wait for each device.
    """
    bad: dict[torch.device, list[Tensor]] = {}
    names: dict[torch.device, list[str]] = {}
    for name, tensor in tensors:
        ends = torch.stack(torch.aminmax(tensor))
        bad.setdefault(tensor.device, []).append((ends.isnan() if infinite else ~ends.isfinite()).any())
        names.setdefault(tensor.device, []).append(name)
    flags = {device: torch.stack(found).tolist() for device, found in bad.items()}
    return [name for device, found in flags.items() for name, flag in zip(names[device], found, strict=True) if flag]


def has_finite_weights(module: torch.nn.Module) -> bool:
    """Whether all weights are finite numbers; one wait for the device."""
    return not find_nonfinite(list(walk_tensors(dict(module.named_parameters()))))
