"""A position rule by the names of its options: what one on old weights takes from the trained one, and warnings.

No class that a configuration names is imported for it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
from collections.abc import Collection
from typing import Any

from aptlab.config import read_signature
from aptlab.config.option_names import get_option_name
from aptlab.errors import ConfigError
from aptlab.nn.positions.rope import Rope, list_rope_warnings

# Queries and keys were trained for these; another value is another model, not a longer context.
KEYS = ("base", "layout", "fraction")
PART = "RotaryFraction"  # the type of a `fraction` that is the part of each head that rotates
Node = dict[str, Any]


def warn_of_rope(rule: Rope, *, head_dim: int, length: int) -> list[str]:
    """What a user should know before trusting a rule at `length` tokens, each with a way out, by its option's name."""
    name_option = functools.partial(get_option_name, "rope")
    return list_rope_warnings(rule, head_dim=head_dim, length=length, name_option=name_option)


def find_inherited_values(rope: Node | None, trained: Node | None, keys: Collection[str]) -> dict[str, Any]:
    """Values of the trained rule by their keys in the new one ("rope.base"), where they differ and nobody gave one.

    keys  of the command line. The rotating layers of irope count: theirs are below `inner`
    """
    place, node = find_rotating_rule(rope or {})
    mine, theirs = read_rule_values(node), read_rule_values(find_rotating_rule(trained or {})[1])
    taken = {f"{place}.{key}": theirs[key] for key in mine if key in theirs and theirs[key] != mine[key]}
    return {key: value for key, value in taken.items() if key not in keys}


def fill_inherited_values(values: Node, trained: Node | None, keys: Collection[str]) -> Node:
    """A request's plain values with those of the trained rule put in."""
    _, node = find_rotating_rule(values.get("rope") or {})
    node.update(
        {
            key.rpartition(".")[2]: value
            for key, value in find_inherited_values(values.get("rope"), trained, keys).items()
        }
    )
    return values


def find_rotating_rule(rope: Node) -> tuple[str, Node]:
    """Where the rule of the layers that rotate stands, and that rule."""
    inner = rope.get("inner")
    return ("rope.inner", inner) if isinstance(inner, dict) else ("rope", rope)


def read_rule_values(node: Node) -> dict[str, Any]:
    """Those of `KEYS` that the rule has, as the node or its defaults say; none of a class that is not there."""
    target = str(node.get("_target_") or "")
    try:
        known = read_signature(target) if target else None
    except ConfigError:  # `check` says so of a new rule
        return {}
    parameters = known.parameters if known else {}
    same = [key for key in KEYS if key in parameters and (key != "fraction" or parameters[key].type_text == PART)]
    found = {}
    for key in same:
        with contextlib.suppress(ValueError):  # a default that is computed says nothing here
            found[key] = node[key] if key in node else ast.literal_eval(parameters[key].default or "None")
    return found
