"""A network out of a checkpoint: as it was trained, under another position rule, extended, or with other positions.

load        the network as it was trained              other_rule  the same weights under another position rule
weights     a task's weights for an extended model, or for one that knows positions in another way
rope        what a position rule takes from the trained one
request     a command's values that come from a checkpoint
upgrade     configurations and weights' names of checkpoints that earlier code wrote
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aptlab.restore.load import LoadedModel, load_network, locate_checkpoint, restore_network
    from aptlab.restore.other_rule import replace_network_rope
    from aptlab.restore.rope import find_inherited_values
    from aptlab.restore.upgrade import upgrade_checkpoint, upgrade_manifest
    from aptlab.restore.weights import adapt_weights, load_weights

__all__ = [
    "LoadedModel",
    "adapt_weights",
    "find_inherited_values",
    "load_network",
    "load_weights",
    "locate_checkpoint",
    "replace_network_rope",
    "restore_network",
    "upgrade_checkpoint",
    "upgrade_manifest",
]
_MODULES = {
    "LoadedModel": "load",
    "adapt_weights": "weights",
    "find_inherited_values": "rope",
    "load_network": "load",
    "load_weights": "weights",
    "locate_checkpoint": "load",
    "replace_network_rope": "other_rule",
    "restore_network": "load",
    "upgrade_checkpoint": "upgrade",
    "upgrade_manifest": "upgrade",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: some need torch, which a check of a request does without."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"aptlab.restore.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'aptlab.restore' has no attribute {name!r}")
