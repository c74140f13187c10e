"""A request whose values come partly from a checkpoint: checked before it is open, filled in afterwards. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aptlab.config import Config
from aptlab.restore.rope import fill_inherited_values

# Stand-ins for the check before the checkpoint is open; `fill_config` puts the real values in.
STAND_IN = {"context": 1024, "seed": 0, "tokenizer": {"_target_": "aptlab.data.tokenizers.ByteTokenizer"}}


def fill_config(config: Config, stored: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The request as plain values, where `${context}` and its like mean what the model was trained with.

    config  the request as composed
    stored  the checkpoint's configuration
    keys    root keys whose values are the checkpoint's

    A position rule on these weights has their base, layout and part of a head, unless the user gave others.
    """
    values = replace_config_values(config, {name: stored.get(name) for name in keys}).resolved()
    return fill_inherited_values(values, stored.get("rope"), list_override_keys(config.overrides))


def list_override_keys(overrides: Iterable[str]) -> frozenset[str]:
    """The keys that a command line sets."""
    return frozenset(arg.partition("=")[0].lstrip("+~") for arg in overrides)


def sets_key(key: str, given: Collection[str]) -> bool:
    """Whether one of the given keys is `key` or lies below it."""
    return any(name == key or name.startswith(f"{key}.") for name in given)


def replace_config_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values for some root keys; the original stays as it is."""
    cfg = config.cfg.copy()
    for name, value in values.items():
        cfg[name] = value
    return dataclasses.replace(config, cfg=cfg)
