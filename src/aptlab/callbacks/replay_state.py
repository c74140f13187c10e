"""The samples of a replay memory as a checkpoint holds them: plain tensors, which weights_only=True loads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aptlab.continual.memory import KeyedMemory
from aptlab.runs.files import open_file


def pack_state(
    memory: KeyedMemory, seen: np.ndarray | None, pending: Sequence[np.ndarray], logits: Tensor | None
) -> dict[str, Any]:
    """Samples by slot (keys as the same 64 bits, signed), rows that came (one bit each), rows that wait, logits."""
    arrays = {name: torch.from_numpy(values.astype(np.int64, copy=True)) for name, values in memory.state().items()}
    rows = np.concatenate(pending) if len(pending) else np.zeros(0, dtype=np.int64)
    return {
        "memory": arrays,
        "rows": 0 if seen is None else len(seen),
        "seen": None if seen is None else torch.from_numpy(np.packbits(seen)),
        "pending": torch.from_numpy(rows),
        "logits": logits,
    }


def map_zeros(path: Path, shape: Sequence[int]) -> Tensor:
    """float32 zeros in a file that is mapped into memory and written by whoever writes the tensor."""
    size = math.prod(shape)
    with open_file(path, "wb") as file:
        file.truncate(4 * size)
    return torch.from_file(str(path), shared=True, size=size, dtype=torch.float32).view(*shape)


def unpack_state(
    memory: KeyedMemory, state: dict[str, Any]
) -> tuple[np.ndarray | None, list[np.ndarray], Tensor | None]:
    """Fill the memory; returns what else `pack_state` was given."""
    arrays = {name: tensor.numpy() for name, tensor in state["memory"].items()}
    memory.load_state({**arrays, "keys": arrays["keys"].view(np.uint64)})
    seen = None if state["seen"] is None else np.unpackbits(state["seen"].numpy(), count=state["rows"]).astype(bool)
    return seen, [state["pending"].numpy()], state["logits"]
