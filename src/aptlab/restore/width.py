"""The configuration of a nested network at one of its widths, which is dense. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHAPE, NESTED = "aptlab.nn.shape.Shape", "aptlab.nn.ffn.MatFormer"


def narrow_config(value: Any, hidden: int | list[int]) -> Any:
    """A copy of a configuration with this hidden size in every shape, and no nested rule in any layer."""
    if isinstance(value, list):
        return [narrow_config(item, hidden) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: item for key, item in value.items() if not (isinstance(item, Mapping) and is_nested_rule(item))}
    node = {key: narrow_config(item, hidden) for key, item in kept.items()}
    return {**node, "hidden": hidden} if node.get("_target_") == SHAPE else node


def is_nested_rule(node: Mapping[str, Any]) -> bool:
    """Whether a node is the rule of nested widths, under its public name or that of its file."""
    target = str(node.get("_target_", ""))
    return target == NESTED or (target.startswith("aptlab.nn.ffn.") and target.endswith(".MatFormer"))
