"""A look at what a configuration needs beside itself, such as files and packages, before torch is imported.

`check` judges the configuration alone, wherever it will run; this asks the rules in it what they find here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from aptlab.config.building import build_plain
from aptlab.config.composing import Config, read_plain_tree
from aptlab.config.node_path import NodePath, add_path, follow_slots, read_parameters
from aptlab.config.static.signatures import is_rule
from aptlab.config.trust import walk_target_nodes
from aptlab.errors import AptlabError, DataError


@runtime_checkable
class Inspected(Protocol):
    """A rule that needs something beside the configuration, and can look whether it is there without reading it all."""

    def find_problems(self) -> Iterable[str]: ...


@runtime_checkable
class InspectedForTraining(Protocol):
    """A rule that knows what is wrong for training on rows of `context` tokens."""

    def find_training_problems(self, context: int) -> Iterable[str]: ...


def inspect_inputs(config: Config, *, train: bool = False, asked: dict[str, list[str]] | None = None) -> None:
    """Raise one DataError with everything that the rules of a checked configuration miss, each with its key in front.

    With `train` also what is wrong for training at its `context`; a configuration may be good enough to measure on.
    `asked` keeps what rules said, so that those that several configurations share are asked once.
    """
    found = list(dict.fromkeys(_find_problems(config, train, {} if asked is None else asked)))
    if found:
        raise DataError(found[0] if len(found) == 1 else "\n".join(["what the configuration needs:", *found]))


def build_known_rule(config: Config, key: str) -> Any:
    """The rule at a key of a checked configuration; None where there is none, or a class that needs torch."""
    from omegaconf import OmegaConf

    node = OmegaConf.select(config.cfg, key)
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else None
    parts = [part["_target_"] for _, part in walk_target_nodes(plain, key)] if plain else []
    if not parts or not all(map(is_rule, parts)):
        return None
    return build_plain(plain, NodePath(key, read_plain_tree(config.cfg)))


def _find_problems(config: Config, train: bool, asked: dict[str, list[str]]) -> Iterator[str]:

    plain, tree = config.resolved(), read_plain_tree(config.cfg)
    seen: set[str] = set()
    for path, node in sorted(walk_target_nodes(plain), key=lambda item: item[0].count(".")):
        key = follow_slots(tree, path)
        parts = [part["_target_"] for _, part in walk_target_nodes(node, path)]
        if key in seen or node.get("_partial_") or not all(map(is_rule, parts)):
            continue
        seen.add(key)
        context = plain.get("context") if train else None
        question = f"{path} {node} {context}"
        if question not in asked:
            asked[question] = _ask(node, NodePath(path, tree), context)
        yield from asked[question]


def _ask(node: dict[str, Any], where: NodePath, context: int | None) -> list[str]:
    """What a rule finds: problems for training only where there are no others."""
    try:
        rule = build_plain(node, where)
    except AptlabError:  # a part of a factory that lacks what its parent gives; `check` has told all others
        return []
    found = list(rule.find_problems()) if isinstance(rule, Inspected) else []
    if not found and context is not None and isinstance(rule, InspectedForTraining):
        found = list(rule.find_training_problems(context))
    return [str(add_path(DataError(problem), where, read_parameters(type(rule)))) for problem in found]
