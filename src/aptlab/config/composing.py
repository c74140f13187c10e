"""A command's configuration from its primary file, group options and overrides, without any torch."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aptlab.config import overrides as over
from aptlab.config.choosing import choose_options
from aptlab.config.environment import hide_environment
from aptlab.config.escaped import escape_values, refuse_interpolations
from aptlab.config.fallback import Fallback
from aptlab.config.files import read_config_file, read_default_slots
from aptlab.config.growth import check_growth
from aptlab.config.renamed import find_new_word, find_renamed_problem
from aptlab.config.search_path import OptionIndex, read_option_index
from aptlab.config.shortcuts import expand_shortcuts, write_typed_key
from aptlab.config.suggestions import find_hint, find_option_hint, suggest_key
from aptlab.errors import ConfigError, suggest_option
from aptlab.redact import redact_value

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUN_ONLY = ("run_dir", "ckpt", "load", "job", "paths", "logger")
SWEEP = ("sweep", "launcher")
_OTHER_RESOLVER = re.compile(r"\$\{(?!oc\.select:)[\w.]+:")  # what it gives is no matter of the configuration alone


@dataclass(frozen=True)
class Config:
    """A composed configuration: the values, how they were asked for, and which options were chosen."""

    command: str
    cfg: DictConfig
    overrides: list[str]
    choices: dict[str, Any]
    library: OptionIndex = field(repr=False, compare=False)
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def resolved(self) -> dict[str, Any]:
        """A plain copy with all interpolations filled in; ConfigError where a value is missing.

        Each of them is parsed anew whenever it is read, so the answer is kept: `cfg` is read-only.
        """
        if "plain" not in self._known or _OTHER_RESOLVER.search(repr(read_plain_tree(self.cfg))):
            self._known["plain"] = resolve_to_plain(self.cfg)
        return copy.deepcopy(self._known["plain"])

    def stored(self) -> dict[str, Any]:
        """The same as it is written into files, and as `build` takes a plain node: text that holds `${` is escaped."""
        return escape_values(self.resolved())

    def public(self) -> dict[str, Any]:
        """`stored` with secrets hidden, also short ones that an interpolation took out of the environment."""
        return redact_value(hide_environment(self.stored(), read_plain_tree(self.cfg)))

    def replaced(self, values: Mapping[str, Any], *, typed: bool = False) -> Config:
        """The same with other values of top-level keys, which need not be there yet.

        Values are as files hold them (`stored`). ConfigError for one that holds an interpolation, unless it was typed.
        """
        from omegaconf import open_dict, read_write

        if not typed:
            refuse_interpolations(dict(values))
        cfg = self.cfg.copy()
        with read_write(cfg), open_dict(cfg):
            for name, value in values.items():
                cfg[name] = value
        return dataclasses.replace(self, cfg=cfg)

    def hash(self) -> str:
        """16 hex digits that name the experiment: equal for runs that differ only in where they write."""
        plain = {key: value for key, value in self.resolved().items() if key not in RUN_ONLY}
        if isinstance(plain.get("data"), dict):  # how files are verified makes no other experiment
            plain["data"] = {key: value for key, value in plain["data"].items() if key != "verify"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def compose(command: str, overrides: list[str], fallback: Fallback | None = None) -> Config:
    """Load `conf/<command>.yaml`, choose options, set values. ConfigError names every bad override at once.

    fallback  has the values of options whose files are not here, where the overrides are those of an older run

    The configuration's `overrides` have no shortcuts: `data.files=x` is there as `source=text` and `source.files=x`.
    """
    found = read_option_index()
    if command not in found.primaries:
        raise ConfigError(f"there is no config {command}.yaml{suggest_option(command, found.primaries)}")
    primary = found.primaries[command].path
    overrides = expand_shortcuts(overrides)
    parsed, problems = over.parse_overrides(overrides)
    missing = fallback.find_missing(parsed, found) if fallback else []
    parsed = [item for item in parsed if item not in missing]
    slots = read_default_slots(primary)
    groups, values = [], []
    for item in parsed:
        if not item.is_group(found):
            values.append(item)
        elif problem := over.find_group_problem(item, found) or _foreign(command, item, found, slots):
            hint = find_option_hint(command, item.key, str(item.value), found) if item.package is None else None
            problems.append(f"{item.text}: {hint}" if hint else problem)
        else:
            groups.append(item)
    if fallback and missing:
        told, _ = over.parse_overrides(fallback.list_recipe_choices(missing, groups))
        plain, choices = choose_options(command, _as_hydra([*told, *groups], slots), found)
        fallback.fill_all(plain, choices, missing, groups)
    else:
        plain, choices = choose_options(command, _as_hydra(groups, slots), found)
    roots = _roots(primary, slots, choices)
    problems += _apply_values(command, plain, values, roots, found)
    problems += _root_problems(plain, roots, choices)
    if problems:
        raise ConfigError("\n".join(problems))
    check_growth(plain)
    return Config(command, _dict_config(plain), overrides, choices, found)


def resolve_to_plain(cfg: Any) -> dict[str, Any]:
    """Resolve an OmegaConf node into plain containers; ConfigError names the key that cannot be."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(describe_config_error(error)) from None


class _KnownTree:
    """The last read-only configuration that was asked for as it stands, and its plain form: runs ask often."""

    cfg: Any = None
    tree: Any = None


def read_plain_tree(cfg: Any) -> Any:
    """A configuration as plain containers, interpolations as they are written. Not to be changed: it may be shared."""
    from omegaconf import OmegaConf

    if not OmegaConf.is_readonly(cfg):
        return OmegaConf.to_container(cfg, resolve=False)
    if _KnownTree.cfg is not cfg:
        _KnownTree.tree, _KnownTree.cfg = OmegaConf.to_container(cfg, resolve=False), cfg
    return _KnownTree.tree


def describe_config_error(error: Any) -> str:
    """One line for an OmegaConf error: full key, then what is wrong."""
    key, text = getattr(error, "full_key", None) or "", str(error).strip().split("\n")[0]
    if type(error).__name__ == "MissingMandatoryValue":
        parent = getattr(error, "parent_node", None)
        key = key if parent is None else find_typed_key(parent._get_root(), key)
        return f"{key or text}: a value is needed; set {key}=<value>"
    if type(error).__name__ == "InterpolationKeyError":
        return f"{key}: needs {text.split(chr(39))[1]}, which is not in the configuration"
    return f"{key}: {text}" if key else text


def find_typed_key(cfg: Any, key: str) -> str:
    """The key of a configuration as a user types it; one that a shortcut sets has the name of the shortcut."""
    from omegaconf import OmegaConf

    parent = key.rpartition(".")[0]
    return write_typed_key(key, OmegaConf.select(cfg, f"{parent}._target_")) if parent else key


def _as_hydra(items: list[over.Override], slots: dict[str, Any]) -> list[str]:
    """The choices as Hydra wants them: the last of each group, with a plus if it is not in the defaults list."""
    chosen: dict[str, str] = {}
    for item in items:
        name = item.key if item.package is None else f"{item.key}@{item.package}"
        chosen.pop(name, None)
        if item.kind != "delete" and item.value is not None:
            chosen[name] = f"{'' if name in slots else '+'}{name}={item.text.partition('=')[2]}"
        elif slots.get(name) is not None:
            chosen[name] = f"~{name}"
    return list(chosen.values())


def _apply_values(
    command: str, plain: dict[str, Any], items: list[over.Override], roots: set[str], found: OptionIndex
) -> list[str]:
    problems = []
    for item in items:
        root = item.key.partition(".")[0]
        if root not in roots:
            problem = f"{root}: unknown top-level key{suggest_key(item.key, command, plain, roots, found)}"
        elif hint := find_hint(command, item.key):
            problem = f"{item.key}: {hint}"
        elif find_new_word(item.key) and not over.means_something(plain, item):
            problem = find_renamed_problem(item.key)
        else:
            problem = over.apply_override(plain, item)
            problem = problem and (find_renamed_problem(item.key) or problem)
        if problem and command == "train" and root in SWEEP:
            problem = f"{item.text}: this belongs to a sweep; add -m"
        if problem:
            problems.append(problem)
    return problems


def _foreign(command: str, item: over.Override, found: OptionIndex, slots: dict[str, Any]) -> str | None:
    """A group that the command does not have is an error, so that nothing asked for is ignored."""
    name = item.key if item.package is None else f"{item.key}@{item.package}"
    if item.key not in found.groups or item.kind == "add" or name in slots:
        return None
    if command == "train" and item.key in SWEEP:
        return f"{item.text}: this belongs to a sweep; add -m"
    return (
        f"{item.text}: aptlab {command} has no group {name}{suggest_option(name, slots)}"
        f"{'' if item.kind == 'delete' else f' (or +{item.text} if another part reads it)'}"
    )


def _roots(primary: Path, slots: dict[str, Any], choices: dict[str, Any]) -> set[str]:
    """Top-level keys of a command: its own, its groups, and groups that an override or a recipe added."""
    root_keys = set(read_config_file(primary)) - {"defaults"}
    added = [name.rpartition("@")[2].partition(".")[0] for name in choices]
    return root_keys | {slot.rpartition("@")[2].partition(".")[0] for slot in slots} | set(added)


def _root_problems(plain: dict[str, Any], roots: set[str], choices: dict[str, Any]) -> list[str]:
    """Top-level keys that a recipe or an option brought and nobody reads."""
    if "recipe" in plain:
        name = choices.get("recipe")
        return [f"recipe={name}: the file must begin with the line `# @package _global_`, or its values reach nothing"]
    return [f"{key}: unknown top-level key{suggest_option(str(key), roots)}" for key in plain if key not in roots]


@functools.cache
def _remember_parse_trees() -> None:
    """Two dozen texts such as `${size}` are read a hundred times a start, and OmegaConf 2.3 parses one each time."""
    from omegaconf import base

    base.parse = functools.lru_cache(1024)(base.parse)


def _dict_config(plain: dict[str, Any]) -> DictConfig:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _remember_parse_trees()
    try:
        cfg = OmegaConf.create(plain)
    except OmegaConfBaseException as error:  # for example a broken ${...} in a value
        raise ConfigError(describe_config_error(error)) from None
    OmegaConf.set_struct(cfg, True)
    OmegaConf.set_readonly(cfg, True)
    return cfg
