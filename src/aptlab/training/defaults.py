"""Values that one configuration does not name and another does, with the default of their class. No torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from aptlab.config import read_signature
from aptlab.errors import ConfigError


def is_unnamed_default(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a leaf is in one configuration alone, and has the value there that its class has without it.

    So a parameter that a class has got since a checkpoint was written does not make another experiment of it.
    """
    parts = key.split(".")
    nodes = [find_node(tree, parts[:-1]) for tree in (one, other)]
    named = [node for node in nodes if node is not None and parts[-1] in node]
    if len(named) != 1 or None in nodes:
        return False
    try:
        signature = read_signature(str(named[0].get("_target_")))
        parameter = signature.parameters.get(parts[-1]) if signature else None
        return parameter is not None and ast.literal_eval(str(parameter.default)) == named[0][parts[-1]]
    except (ConfigError, ValueError, SyntaxError):
        return False


def find_node(tree: Mapping[str, Any], parts: list[str]) -> Mapping[str, Any] | None:
    """The node at a path, None where there is none."""
    node: Any = tree
    for part in parts:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else None
