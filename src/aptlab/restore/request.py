"""A request whose values come partly from a checkpoint: checked before it is open, filled in afterwards. No torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from aptlab.config import Config, find_new_word
from aptlab.config.destinations import drop_destinations, says_where
from aptlab.config.escaped import escape_values, unescape_values
from aptlab.config.overrides import parse_overrides
from aptlab.errors import CheckpointError, ConfigError
from aptlab.restore.rope import fill_inherited_values
from aptlab.shown import print_shown

# Stand-ins for the check before the checkpoint is open; `fill_config` puts the real values in.
STAND_IN = {"context": 1024, "seed": 0, "tokenizer": {"_target_": "aptlab.data.tokenizers.ByteTokenizer"}}
SOURCE = {"_target_": "aptlab.data.sources.Stdlib"}  # stands in where rows are chosen without a source


def fill_config(config: Config, stored: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The request as plain values, where `${context}` and its like mean what the model was trained with.

    config  the request as composed
    stored  the checkpoint's configuration
    keys    root keys whose values are the checkpoint's

    A node is as `build` takes it: text in it that holds `${` is escaped.

    A position rule on these weights has their base, layout and part of a head, unless the user gave others. Data that
    are the checkpoint's go where the user says.
    """
    known = {name: stored.get(name) for name in keys}
    if places := find_data_places(config):
        known["data"] = {**drop_destinations(stored.get("data") or {}, "data")[0], **places}
    source = fill_source(config, (stored.get("data") or {}).get("source"))
    parts = replace_config_values(config, {**known, **source}).stored()
    # Nodes stay as they are stored, which is how they are built; a value of its own is what the user gave.
    values = {key: part if isinstance(part, dict) else unescape_values(part) for key, part in parts.items()}
    return fill_inherited_values(values, stored.get("rope"), list_override_keys(config.overrides))


def split_data_places(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line without, and with nothing but, what says where data go, where their option is not chosen.

    `data.cache=folder` needs no `data=packed` before it: the data are the checkpoint's, which never says where they go.
    """
    keys = [arg.partition("=")[0].lstrip("+") for arg in args]
    if "data" in keys:
        return list(args), []
    places = [key.startswith("data.") and says_where(key) for key in keys]
    rest = [arg for arg, place in zip(args, places) if not place]
    return rest, [arg for arg, place in zip(args, places) if place]


def put_data_places(config: Config, places: Sequence[str]) -> Config:
    """The request with what `split_data_places` found, in `data` and among the overrides; ConfigError for no override.

    `fill_config` makes it part of the checkpoint's data.
    """
    if not places:
        return config
    items, problems = parse_overrides(list(places))
    if problems:
        raise ConfigError("\n".join(problems))
    node = {item.key.partition(".")[2]: item.value for item in items}
    filled = config.replaced({"data": node}, typed=True)
    return dataclasses.replace(filled, overrides=[*config.overrides, *places])


def find_data_places(config: Config) -> dict[str, Any]:
    """Where the checkpoint's data go, by the names of their parameters; none where an option of `data` is chosen."""
    return {} if config.choices.get("data") is not None else escape_values(dict(config.cfg.get("data") or {}))


def drop_data_places(args: Sequence[str], command: str) -> list[str]:
    """The command line of a command that reads no data; says so where it names a place for them."""
    rest, places = split_data_places(args)
    for arg in places:
        print_shown(f"{arg}: not used, for {command} reads no data", file=sys.stderr)
    return rest


def show_config(config: Config, keys: Iterable[str]) -> dict[str, Any]:
    """The request as its run will have it, from what the manifest of the checkpoint says; torch stays out.

    keys  as in `fill_config`. Where nobody names a checkpoint and there is none, a line says so, and the request is as
    composed. Raises CheckpointError for one that is named and not there.
    """
    from aptlab.checkpoint import read_manifest
    from aptlab.restore.load import locate_checkpoint
    from aptlab.restore.upgrade import upgrade_manifest

    ckpt, root = config.cfg.ckpt, config.cfg.paths.root
    try:
        stored = upgrade_manifest(read_manifest(locate_checkpoint(ckpt, root=root))).config
    except CheckpointError as error:
        if "ckpt" in list_override_keys(config.overrides):
            raise
        print_shown(f"without what the checkpoint says: ckpt={ckpt}: {error}", file=sys.stderr)
        return config.resolved()
    return fill_config(config, stored, keys)


def fill_source(config: Config, source: Mapping[str, Any] | None) -> dict[str, Any]:
    """The source for a request that chooses rows and no source: that of the checkpoint."""
    chosen = config.choices
    return {"source": source} if chosen.get("data") is not None and chosen.get("source") is None else {}


def find_unchosen_groups(keys: Collection[str], groups: Mapping[str, str]) -> list[str]:
    """A problem for each group of which values are given and no option; old words are told when composing."""
    problems = []
    for group, example in groups.items():
        inner = sorted(key for key in keys if key.startswith(f"{group}.") and find_new_word(key) is None)
        if inner and group not in keys:
            problems.append(f"{inner[0]}: choose the option first, as in {example} {inner[0]}=…")
    return problems


def list_override_keys(overrides: Iterable[str]) -> frozenset[str]:
    """The keys that a command line sets."""
    return frozenset(arg.partition("=")[0].lstrip("+~") for arg in overrides)


def sets_key(key: str, keys: Collection[str]) -> bool:
    """Whether one of the given keys is `key` or lies below it."""
    return any(name == key or name.startswith(f"{key}.") for name in keys)


def replace_config_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values for some root keys; the original stays as it is."""
    return config.replaced(values)
