"""How much the interpolations of a configuration stand for, counted before one of them is filled in.

`a: ${b}${b}`, `b: ${c}${c}` and so on double with every line, nodes as well as texts: fifty lines stand for more than
any memory holds. Each key is measured once, so the count is linear in the configuration. A reference in a resolver
(`oc.select:key`) counts as the key that it names; a circle is told by who resolves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aptlab.bounded import Bounds
from aptlab.config.node_path import join_keys
from aptlab.errors import ConfigError

GROWN = Bounds(bytes=16 << 20, depth=64, values=100_000)  # one of ours: 420 values, 3,000 characters
# The key in `${key}`, `${.key}` or `${resolver:key,…}`; `$${` and `\${` may be counted too, which is on the safe side.
_REFERENCE = re.compile(r"\$\{\s*(?:[\w.]+\s*:\s*)?(\.*[A-Za-z_][\w.\-@\[\]]*)")


class Size(NamedTuple):
    """Values and characters that a part of a configuration stands for."""

    values: int = 0
    characters: int = 0


class GrowthMeter:
    """Measures the parts of one configuration; see the module."""

    def __init__(self, tree: Mapping[str, Any], bounds: Bounds) -> None:
        self._tree, self._bounds = tree, bounds
        self._known: dict[str, Size] = {}

    def measure(self, value: Any, path: str, depth: int = 0) -> Size:
        """The size of the value at a path, `depth` references away from who asks; ConfigError beyond the bounds."""
        if path in self._known:
            return self._known[path]
        self._known[path] = Size()  # of a reference that comes back to itself
        if depth > self._bounds.depth:
            raise self._error(path, f"follow each other more than {self._bounds.depth} times")
        if isinstance(value, Mapping):
            parts = [self.measure(item, join_keys(path, str(key)), depth) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            parts = [self.measure(item, join_keys(path, str(number)), depth) for number, item in enumerate(value)]
        else:
            parts = self._measure_references(value, path, depth) if isinstance(value, str) and "${" in value else []
        own = len(value) if isinstance(value, str) else 0
        size = Size(1 + sum(part.values for part in parts), own + sum(part.characters for part in parts))
        if size.values > self._bounds.values:
            raise self._error(path, f"stand for more than {self._bounds.values:,} values")
        if size.characters > self._bounds.bytes:
            raise self._error(path, f"stand for more than {self._bounds.bytes:,} characters")
        self._known[path] = size
        return size

    def _measure_references(self, text: str, path: str, depth: int) -> list[Size]:
        keys = [resolve_reference(found[1], path) for found in _REFERENCE.finditer(text)]
        return [self.measure(*target, depth + 1) for key in keys if (target := self._find(key)) is not None]

    def _find(self, key: str) -> tuple[Any, str] | None:
        """The value and path of a key; None where there is none, which is told when it is resolved."""
        node: Any = self._tree
        for part in key.split(".") if key else []:
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                return None
        return node, key

    def _error(self, path: str, problem: str) -> ConfigError:
        return ConfigError(f"{path or 'the configuration'}: its interpolations {problem}; write out what is needed")


def check_growth(tree: Mapping[str, Any], bounds: Bounds = GROWN) -> None:
    """ConfigError that names the first key which stands for more than the bounds allow."""
    GrowthMeter(tree, bounds).measure(tree, "")


def resolve_reference(reference: str, path: str) -> str:
    """The whole key that a reference at a path means; leading dots go up, `[0]` is `.0`.

    >>> [resolve_reference(text, "rope.parts.0") for text in ("seed", ".1", "..base", "a[2].b")]
    ['seed', 'rope.parts.1', 'rope.base', 'a.2.b']
    """
    plain = re.sub(r"\[(\w+)\]", r".\1", reference)
    name = plain.lstrip(".")
    ups = len(plain) - len(name)
    parts = path.split(".")
    return name if not ups else ".".join([*parts[: max(len(parts) - ups, 0)], name])
