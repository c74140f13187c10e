"""Overrides of the command line: read with Hydra's grammar, judged and applied here.

Hydra chooses the options of groups; single values are set by `apply`, so that every message can name
the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from aptlab.config.renamed import find_renamed_problem
from aptlab.config.search_path import OptionIndex
from aptlab.config.suggestions import join_words, list_keys
from aptlab.errors import suggest_option

GRAMMAR = "write key=value, group=option, +key=value or ~key"


@dataclass(frozen=True)
class Override:
    """One override: `kind` is "set", "add" (+), or "delete" (~); `package` is what follows @ in the key."""

    text: str
    kind: str
    key: str
    package: str | None
    value: Any

    def is_group(self, library: OptionIndex) -> bool:
        return self.package is not None or "/" in self.key or self.key in library.groups


def parse_overrides(texts: list[str]) -> tuple[list[Override], list[str]]:
    """The overrides, and a problem for each text that is none."""
    overrides, problems = [], []
    for text in texts:
        parsed = _parse(text)
        (problems if isinstance(parsed, str) else overrides).append(parsed)
    return overrides, problems


def _parse(text: str) -> Override | str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(text)
        if parsed.is_sweep_override():
            return f"{text}: several values are a sweep; add -m, or write a list as key=[a,b]"
        value = parsed.value()
    except HydraException:
        if path := _as_path(text):
            return path
        return f"{text}: this is no override; {GRAMMAR}{_quoting(text)}"
    if not parsed.key_or_group:
        return f"{text}: this is no override; {GRAMMAR}"
    kinds = {OverrideType.DEL: "delete", OverrideType.ADD: "add", OverrideType.FORCE_ADD: "add"}
    kind = kinds.get(parsed.type, "set") if parsed.type is not None else "set"
    return Override(text, kind, parsed.key_or_group, parsed.package, value)


def _as_path(text: str) -> Override | None:
    """A file name with characters of Hydra's grammar (spaces, "=", brackets) is taken as it is."""
    key, _, value = text.partition("=")
    named = all(part.isidentifier() for part in key.lstrip("+").split("."))
    if not named or not ("/" in value or key in ("ckpt", "run_dir")) or value.startswith(tuple("[{('\"$")):
        return None
    return Override(text, "add" if key.startswith("+") else "set", key.lstrip("+"), None, value)


def _quoting(text: str) -> str:
    key, sign, value = text.partition("=")
    if not sign or not value or any(char in key for char in " ,()[]{}'\""):
        return ""
    return f", and quote special characters twice: '{key}=\"…\"'"


def find_group_problem(override: Override, library: OptionIndex) -> str | None:
    """What is wrong with the choice of an option, or None."""
    group, value = override.key, override.value
    where = override.text.partition("=")[0]
    if group not in library.groups:
        return f"{override.text}: there is no config group {group}{suggest_option(group, library.groups)}"
    if override.kind == "delete" or value is None:
        return None
    if isinstance(value, dict):
        return f"{where}: takes the name of an option; set single values as {group}.<key>=<value>"
    for name in value if isinstance(value, list) else [value]:
        if str(name) not in library.groups[group]:
            if renamed := find_renamed_problem(f"{where}={name}"):
                return renamed
            return f"{where}={name}: no such option{suggest_option(str(name), library.groups[group])}"
    return None


def apply_override(config: dict[str, Any], override: Override) -> str | None:
    """Set, add or delete one value of a plain config in place; returns what is wrong, or None.

    A parameter that a node with a `_target_` does not list yet is taken as it is: the check compares
    it with the signature.
    """
    *parents, last = override.key.split(".")
    node: Any = config
    for depth, part in enumerate(parents, start=1):
        path = ".".join(parents[:depth])
        child = _child(node, part)
        if child is None and override.kind == "add" and depth > 1 and isinstance(node, dict):
            child = node[part] = {}
        if child is None:
            return _unknown(path, node)
        if isinstance(child, str) and child.startswith("${") and child.endswith("}"):
            return f"{override.key}: {path} is {child}; set {child[2:-1]}.{'.'.join([*parents[depth:], last])} instead"
        if not isinstance(child, dict | list):
            return f"{override.key}: {path} is the value {child!r} and has no keys"
        node = child
    return _change(node, last, override)


def has_key(config: dict[str, Any], key: str) -> bool:
    """Whether a plain config lists the key; what is behind an interpolation does not count."""
    return _find(config, key) is not None


def means_something(config: dict[str, Any], override: Override) -> bool:
    """Whether a plain config has the override's key; a word does not fit a slot such as `source: ${source}`."""
    value = _find(config, override.key)
    slot = isinstance(value, str) and value.startswith("${")
    return value is not None and not (slot and isinstance(override.value, str))


def _find(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = _child(node, part) if isinstance(node, dict | list) else None
        if node is None:
            return None
    return node


def _change(node: Any, last: str, override: Override) -> str | None:
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            return f"{override.key}: the list has {len(node)} items, counted from 0"
        last_key: Any = int(last)
    else:
        last_key = last
        free = "_target_" in node or (override.kind == "add" and "." in override.key)
        if last not in node and (override.kind == "delete" or not free):
            return _unknown(override.key, node)
    if override.kind == "delete":
        del node[last_key]
    elif isinstance(override.value, dict) and isinstance(_child(node, last), dict):
        _merge(_child(node, last), override.value)
    else:
        node[last_key] = override.value
    return None


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _child(node: Any, part: str) -> Any:
    if isinstance(node, list):
        return node[int(part)] if part.isdigit() and int(part) < len(node) else None
    return node.get(part)


def _unknown(path: str, node: Any) -> str:
    kind, word = "key" if "." in path else "top-level key", path.rpartition(".")[2]
    options = map(str, node if isinstance(node, dict) else range(len(node)))
    below = [key for key in list_keys(node, path.rpartition(".")[0]) if key.rpartition(".")[2] == word]
    return f"{path}: unknown {kind}{f'; did you mean {join_words(below)}?' if below else suggest_option(word, options)}"


def split_raw_values(args: Iterable[str], keys: Collection[str]) -> tuple[dict[str, str | None], list[str]]:
    """The values of keys that are read as they are typed, in no grammar, null as None; and all other arguments."""
    pairs = [(arg, *arg.partition("=")) for arg in args]
    raw = {key: None if value == "null" else value for _, key, sign, value in pairs if sign and key in keys}
    return raw, [arg for arg, key, sign, _ in pairs if not sign or key not in keys]
