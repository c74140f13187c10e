"""Configurations of checkpoints that earlier code wrote, in the words of today. No torch.

A configuration names classes (`_target_`) and their parameters. Both have been renamed; a checkpoint keeps what its
code called them. What is read from one is translated here, in memory: the file is never changed. To rename again, add a
row to `aptlab.config.renamed` (classes) or to KEYS, OPTIONS or WEIGHTS; for a value in another node, one to MOVES; for
a parameter that a class has got, one to ADDED.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from aptlab.checkpoint.manifest import Manifest
from aptlab.config import Config, compose, find_new_target, read_signature
from aptlab.errors import ConfigError
from aptlab.restore.data import modernize_choices, modernize_config, modernize_overrides

Node = dict[str, Any]

# Parameters with another name. A row is used only in a node whose class takes the new name and not the old one.
KEYS = {"reach": "window", "window": "size", "beside": "positions", "law": "temperature_law", "on_full": "on_error"}
# Words that such a parameter took: (old parameter, word) -> word.
VALUES = {("on_full", "warn"): "continue"}
# Values that stand in another root node now; used where the configuration of `train` has that node.
MOVES = {"trainer.val_check_interval": "validate.every"}
# Options of a group that have another name: (group, option) -> option.
OPTIONS = {("logger", "none"): "csv", ("smooth", "scaled"): "granite"}
STRETCHED = ("Dynamic", "Linear", "Llama3", "NTK", "YaRN")  # rules that took no part of a head
# Parameters that a class did not have, with the value that computes what it did; else they would count as changed.
ADDED: dict[str, Node] = {
    "aptlab.nn.attention.FullAttention": {
        "logits": {"_target_": "aptlab.nn.attention.LogitRule", "scale": None, "softcap": None}
    },
    "aptlab.nn.ffn.GELU": {"approximate": "none"},
    "aptlab.models.Decoder": {
        "head": {"_target_": "aptlab.models.HeadRule", "scale": 1.0, "softcap": None, "bias": False},
        "embedding": {"_target_": "torch.nn.Embedding", "_partial_": True},
    },
    "aptlab.nn.positions.rope.Growth": {"offset": 1},
    **{f"aptlab.nn.positions.rope.{name}": {"fraction": 1.0} for name in STRETCHED},
    "aptlab.nn.window.SlidingWindow": {"full_layers": []},
    "aptlab.callbacks.checkpoints.Checkpoints": {"reserve": True},
    "aptlab.nn.smooth.Strength": {"decay": 0.99},
    "aptlab.nn.smooth.Gate": {"learned": False},
}
# Root nodes that `train` has got since, with what computes as it did without them; for runs, not imported weights.
ROOTS: Node = {
    "curriculum": {"_target_": "aptlab.curriculum.RandomOrder"},
    "replay": {"_target_": "aptlab.continual.NoReplay"},
    "scenario": {"_target_": "aptlab.data.scenarios.NoScenario"},
}
# Beginnings of the names of weights.
WEIGHTS = {"net.places.": "net.embed_positions."}


def upgrade_config(config: Node) -> Node:
    """A resolved configuration in the words of today; the same object if it is in them already."""
    renamed = rename_parts(modernize_config(config))
    return fill_roots(fill_added(config if renamed == config else _merge_with_today(renamed)))


def fill_roots(config: Node) -> Node:
    """A configuration of a run with the root nodes of ROOTS that it lacks; the same object where it lacks none."""
    missing = {key: node for key, node in ROOTS.items() if key not in config} if "callbacks" in config else {}
    return {**config, **missing} if missing else config


def _merge_with_today(renamed: Node) -> Node:
    """The root nodes that today's `train` has beside those of an older one."""
    today = compose("train", [])
    for old, new in MOVES.items():
        if new.partition(".")[0] in today.cfg and _find(renamed, new) is None:
            _move(renamed, old, new)
    filled = fill_slots(today, renamed)
    if not _fits(renamed.get("model") or {}):
        renamed["model"] = {**filled["model"], "tied": renamed["model"]["tied"]}
    return {**filled, **renamed}


def upgrade_overrides(overrides: Iterable[str], config: Node) -> list[str]:
    """The overrides of a command line as they would be given today; `config` is the upgraded configuration."""
    found = []
    for text in overrides:
        key, sign, value = text.partition("=")
        prefix = key[: len(key) - len(key.lstrip("+~"))]
        value = rename_target(value) if key.endswith("_target_") else OPTIONS.get((key, value), value)
        renamed = _rename_key(key.removeprefix(prefix), config)
        value = value if renamed == key.removeprefix(prefix) else VALUES.get((key.rpartition(".")[2], value), value)
        found.append(f"{prefix}{renamed}{sign}{value}")
    return found


def upgrade_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The option that was chosen of every group, by its name of today."""
    return {group: OPTIONS.get((group, option), option) for group, option in modernize_choices(choices).items()}


def upgrade_manifest(manifest: Manifest) -> Manifest:
    """A manifest with its configuration, overrides and choices in the words of today."""
    config = upgrade_config(manifest.config)
    overrides = upgrade_overrides(modernize_overrides(manifest.overrides, manifest.config), config)
    return dataclasses.replace(manifest, config=config, overrides=overrides, choices=upgrade_choices(manifest.choices))


def upgrade_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint whose "aptlab" entry is in the words of today; the tensors are shared with `state`."""
    meta = state.get("aptlab")
    if not isinstance(meta, dict) or not isinstance(meta.get("config"), dict):
        return state  # not one of ours: who reads it says so
    config = upgrade_config(meta["config"])
    words = {
        "overrides": upgrade_overrides(modernize_overrides(meta.get("overrides") or (), meta["config"]), config),
        "choices": upgrade_choices(meta.get("choices") or {}),
    }
    weights = {rename_weight(name): value for name, value in (state.get("state_dict") or {}).items()}
    return {**state, "state_dict": weights, "aptlab": {**meta, **words, "config": config}}


def rename_target(target: str) -> str:
    """The dotted name of a class today."""
    return find_new_target(target) or target


def rename_weight(name: str) -> str:
    """The name of a weight of a task today."""
    for old, new in WEIGHTS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def rename_parts(value: Any) -> Any:
    """A copy of a configuration, each node with today's class and parameter names."""
    if isinstance(value, list):
        return [rename_parts(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    node = {key: rename_parts(item) for key, item in value.items()}
    target = node.get("_target_")
    if not isinstance(target, str):
        return node
    node["_target_"] = target = rename_target(target)
    taken = read_parameter_names(target)
    old = {key for key in node if key in KEYS and key not in taken and KEYS[key] in taken}
    return {
        KEYS[key] if key in old else key: VALUES.get((key, str(item)), item) if key in old else item
        for key, item in node.items()
    }


def fill_added(value: Any) -> Any:
    """A configuration with what ADDED says in nodes that lack it; the same object where none does."""
    if isinstance(value, list):
        items = [fill_added(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if not isinstance(value, Mapping):
        return value
    node = {key: fill_added(item) for key, item in value.items()}
    node |= {key: item for key, item in ADDED.get(str(value.get("_target_")), {}).items() if key not in node}
    same = len(node) == len(value) and all(node[key] is item for key, item in value.items())
    return value if same else node


def read_parameter_names(target: str) -> frozenset[str]:
    """What a class takes; nothing if it is not there, which the check or build of the node says."""
    with contextlib.suppress(ConfigError):
        signature = read_signature(target)
        return frozenset(signature.parameters) if signature else frozenset()
    return frozenset()


def fill_slots(today: Config, parts: Node) -> Node:
    """Today's configuration of `train`, resolved, with a checkpoint's own parts in the slots of its model.

    Root nodes that the checkpoint's code did not have are there with what their default option says.
    """
    own = {key: parts[key] for key in parts if key in today.cfg and key not in ("model", "task")}  # made of the others
    filled: Node = today.replaced(own).stored()
    return filled


def _fits(node: Node) -> bool:
    """Whether a node holds only parameters that its class takes."""
    taken = read_parameter_names(str(node.get("_target_")))
    return all(key in taken or key in ("_target_", "_partial_") for key in node)


def _find(config: Any, key: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _move(config: Node, old: str, new: str) -> None:
    """Take the value at `old` out of the tree and put it at `new`."""
    value = _find(config, old)
    if value is not None:
        *parents, name = old.split(".")
        del _find(config, ".".join(parents))[name]
        *parents, name = new.split(".")
        for part in parents:
            config = config.setdefault(part, {})
        config[name] = value


def _rename_key(key: str, config: Node) -> str:
    """A dotted key, each part of it as the configuration calls it."""
    for old, new in MOVES.items():
        if key == old and _find(config, old) is None and _find(config, new) is not None:
            return new
    parts, node = [], config
    for part in key.split("."):
        known = node if isinstance(node, Mapping) else {}
        parts.append(KEYS[part] if part not in known and KEYS.get(part) in known else part)
        node = known.get(parts[-1])
    return ".".join(parts)
