"""Options whose files are not here, out of the configuration that was composed where they were. No torch, no Hydra."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aptlab.config.destinations import KEPT, drop_destinations
from aptlab.config.escaped import find_interpolations, refuse_interpolations
from aptlab.config.overrides import Override, parse_overrides
from aptlab.config.search_path import OptionIndex, read_option_index
from aptlab.config.shortcuts import expand_shortcuts

SLOTTED = ("model", "task", "trainer")  # made of the other groups, by interpolation, and the trainer of plain values
OF_A_COMMAND = ("ckpt", "load", "run_dir")  # not the run's
RECIPE = "recipe"  # its files set values of the whole configuration


@dataclass(frozen=True)
class Fallback:
    """What a checkpoint knows of the options of its run.

    config     the configuration, resolved
    choices    the option that was chosen of every group
    overrides  of the run; lists of options stand in no choices
    """

    config: Mapping[str, Any]
    choices: Mapping[str, Any]
    overrides: Sequence[str] = ()

    def find_missing(self, items: Sequence[Override], index: OptionIndex) -> list[Override]:
        """Choices that are the run's own, and of options that have no file here."""
        return [item for item in items if is_option_missing(item, index) and self._chose(item)]

    def fill_all(
        self, plain: dict[str, Any], choices: dict[str, Any], missing: Sequence[Override], chosen: Sequence[Override]
    ) -> None:
        """Put the values of missing options into a configuration, in place, but for groups that are chosen anew."""
        taken = {find_node_path(item) for item in chosen}
        for item in missing:
            if find_node_path(item) not in taken:
                self.fill(plain, item, chosen)
                choices[find_choice_name(item)] = item.value

    def list_recipe_choices(self, missing: Sequence[Override], chosen: Sequence[Override]) -> list[str]:
        """What a missing recipe chose, as overrides; groups that are chosen outright are left to themselves."""
        if not any(item.key == RECIPE for item in missing):
            return []
        taken = {RECIPE, *(item.key for item in (*missing, *chosen))}
        options = read_option_index().groups
        return [
            f"{group}={option}"
            for group, option in self.choices.items()
            if group not in taken and isinstance(option, str) and option in options.get(group, {})
        ]

    def fill(self, plain: dict[str, Any], item: Override, chosen: Sequence[Override]) -> None:
        """Put the values of a missing option into a configuration, in place."""
        if item.key != RECIPE:
            *parents, last = find_node_path(item).split(".")
            node = plain
            for part in parents:
                node = node.setdefault(part, {})
            node[last] = self._take(find_node_path(item))
            return
        taken = {other.key.partition("/")[0] for other in chosen}
        for key, value in self.config.items():
            if key in SLOTTED and isinstance(plain.get(key), dict):
                plain[key] |= {name: leaf for name, leaf in value.items() if is_plain_leaf(plain[key].get(name), leaf)}
            elif key in KEPT and isinstance(plain.get(key), dict):
                known = {name: leaf for name, leaf in (value or {}).items() if name in KEPT[key]}
                plain[key] |= {name: leaf for name, leaf in known.items() if is_plain_leaf(plain[key].get(name), leaf)}
            elif key in plain and key not in taken and key not in (*OF_A_COMMAND, *KEPT):
                plain[key] = self._take(key)

    def _chose(self, item: Override) -> bool:
        """Whether the run had this very option, and its values are known."""
        same = self.choices.get(find_choice_name(item)) == item.value or item.text in self.overrides
        return same and (item.key == RECIPE or self._find(find_node_path(item)) is not None)

    def _take(self, path: str) -> Any:
        """A copy of a node without what says where things go; ConfigError where it holds an interpolation."""
        node = self._find(path)
        refuse_interpolations(node, path)
        return copy.deepcopy(drop_destinations(node, path)[0])

    def _find(self, path: str) -> Any:
        node: Any = self.config
        for part in path.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node


def find_choice_name(item: Override) -> str:
    """What the choices call the group of an override."""
    return item.key if item.package is None else f"{item.key}@{item.package}"


def find_node_path(item: Override) -> str:
    """Where the option of a choice stands in the configuration."""
    return item.package or item.key.replace("/", ".")


def is_option_missing(item: Override, index: OptionIndex) -> bool:
    """Whether a choice names an option, or one of several, that no file is there for."""
    names = item.value if isinstance(item.value, list) else [item.value]
    known = index.groups.get(item.key)
    chooses = item.kind != "delete" and item.value is not None and not isinstance(item.value, dict)
    return known is not None and chooses and any(str(name) not in known for name in names)


def is_plain_leaf(now: Any, before: Any) -> bool:
    """Whether a value of a slotted node stands there itself, before and now."""
    known = not isinstance(now, dict | list) and not str(now).startswith("${")
    return known and not isinstance(before, dict | list) and not any(find_interpolations(before))


def find_missing_nodes(overrides: Sequence[str]) -> list[str]:
    """Where the options stand that overrides choose and that have no file here; "" for a recipe: everywhere."""
    index = read_option_index()
    items, _ = parse_overrides(expand_shortcuts(list(overrides)))
    missing = [item for item in items if is_option_missing(item, index)]
    return ["" if item.key == RECIPE else find_node_path(item) for item in missing]
