"""What a checkpoint may hold: tensors in plain containers, so that it can be read with weights_only=True."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from aptlab.errors import CheckpointError

_SINGLE = {type(None), bool, int, float, complex, str, bytes}
_SINGLE |= {torch.Tensor, torch.nn.Parameter, torch.Size, torch.dtype, torch.device}
_MAPPINGS = {dict, OrderedDict}
_SEQUENCES = {list, tuple}


def check_plain(checkpoint: Any, name: str = "checkpoint") -> None:
    """Walk everything; raises CheckpointError naming the first key that torch.load(weights_only=True) would refuse."""
    waiting = [(name, checkpoint)]
    while waiting:
        where, value = waiting.pop()
        kind = type(value)
        if kind in _MAPPINGS:
            for key, item in value.items():
                if type(key) not in _SINGLE:
                    raise _error(f"a key of {where}", key)
                waiting.append((f"{where}[{key!r}]", item))
        elif kind in _SEQUENCES:
            waiting += [(f"{where}[{i}]", item) for i, item in enumerate(value)]
        elif kind not in _SINGLE:
            raise _error(where, value)


def _error(where: str, value: Any) -> CheckpointError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return CheckpointError(
        f"{where} is a {kind}, which cannot be saved safely; make it a number, text, tensor, list or dict "
        "(state_dict of a callback: return plain values)"
    )


def estimate_checkpoint_size(checkpoint: Any) -> int:
    """Bytes of all tensors, each storage once, and 1 MiB for the rest."""
    seen: dict[int, int] = {}
    waiting = [checkpoint]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values()) + (1 << 20)


def pack_arrays(value: Any) -> Any:
    """Plain values with tensors in place of arrays, as a checkpoint may hold them."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: pack_arrays(item) for key, item in value.items()}
    return [pack_arrays(item) for item in value] if isinstance(value, list | tuple) else value


def unpack_arrays(value: Any) -> Any:
    """The inverse of `pack_arrays`."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy()
    if isinstance(value, Mapping):
        return {key: unpack_arrays(item) for key, item in value.items()}
    return [unpack_arrays(item) for item in value] if isinstance(value, list) else value
