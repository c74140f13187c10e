"""The outline of a network, its names and sizes without numbers, compared with stored weights before it is built.

A configuration in a received checkpoint asks for a million layers, or a width that no memory has, in one line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aptlab.config import build
from aptlab.errors import CheckpointError, ConfigError
from aptlab.models.hf.headers import StoredSizes

if TYPE_CHECKING:
    from aptlab.models import Decoder

SLACK = 4  # times the stored weights: other positions and a larger vocabulary may come to old weights
ROOM = 1 << 27  # weights more than that


def make_outline(node: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: Path) -> Decoder | None:
    """The network of a config node on torch's device `meta`, which takes no memory.

    None where a part computes with numbers while it is built, or the vocabulary is the task's own affair. Raises
    CheckpointError where it has more layers than the weights, whose number is compared first; ConfigError as `build`.
    """
    shape = node.get("shape")
    depth = shape.get("depth") if isinstance(shape, Mapping) else None
    layers = StoredSizes(str(path), {name: tuple(weight.shape) for name, weight in weights.items()}).layers
    if isinstance(depth, int) and layers and depth > layers:
        raise CheckpointError(
            f"size.depth={depth} in the configuration, and the weights of {path} have {layers} layers; give the "
            "depth that they were trained with, or another checkpoint"
        )
    if node.get("vocab") is None:
        return None
    try:
        with torch.device("meta"):
            return build(node, "model")
    except ConfigError as error:
        if "meta tensor" in str(error):
            return None
        raise


def check_outline_size(node: Mapping[str, Any], weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """CheckpointError where a network that is to take over weights is far larger than they are."""
    outline = make_outline(node, weights, path)
    if outline is None:
        return
    asked = sum(weight.numel() for weight in outline.parameters())
    stored = sum(math.prod(weight.shape) for weight in weights.values())
    if asked > SLACK * stored + ROOM:
        raise CheckpointError(
            f"the model has {asked:,} parameters, and {path} holds {stored:,}; give the sizes that they were trained "
            "with (size=…), or another checkpoint"
        )
