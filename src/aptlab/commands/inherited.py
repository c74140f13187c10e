"""What a position rule on old weights takes from the rule that they were trained with. No torch."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from typing import Any

from aptlab.nn.rope import Partial, Searched

# Queries and keys were trained for these; another value is another model, not a longer context.
KEYS = ("base", "layout", "fraction")
Node = Mapping[str, Any]


def inherited(rope: Node | None, trained: Node | None, given: Collection[str]) -> dict[str, Any]:
    """Values of the trained rule by their keys in the new one ("rope.base"), where they differ and nobody gave one.

    given  keys of the command line. The turning layers of irope count: theirs are below `inner`
    """
    (place, new), (_, old) = turning(rope or {}), turning(trained or {})
    kinds = [class_of(node) for node in (new, old)]
    if any(kind is None for kind in kinds):
        return {}
    mine, theirs = (values_of(kind, node) for kind, node in zip(kinds, (new, old)))
    if not all(issubclass(kind, Partial | Searched) for kind in kinds if kind is not None):
        mine.pop("fraction", None)  # a word that means something else elsewhere
    taken = {
        f"rope.{place}{key}": theirs[key] for key in KEYS if key in mine and theirs.get(key, mine[key]) != mine[key]
    }
    return {key: value for key, value in taken.items() if key not in given}


def turning(rope: Node) -> tuple[str, Node]:
    """Where the rule of the layers that turn stands, and that rule."""
    inner = rope.get("inner")
    return ("inner.", inner) if isinstance(inner, Mapping) else ("", rope)


def class_of(node: Node) -> type | None:
    """The rule's class; None where there is no rule, or one that has no fields."""
    module, _, name = str(node.get("_target_") or "").rpartition(".")
    found = getattr(importlib.import_module(module), name, None) if module else None
    return found if isinstance(found, type) and dataclasses.is_dataclass(found) else None


def values_of(kind: Any, node: Node) -> dict[str, Any]:
    """Those of `KEYS` that the class has, as the node or its defaults say."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    return {key: node.get(key, defaults[key]) for key in KEYS if key in defaults}
