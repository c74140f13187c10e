"""Configuration files read for help and completion: fast, without Hydra, nothing resolved."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aptlab.bounded import OPTION, parse_yaml, read_bounded_text
from aptlab.errors import ConfigError

_ENTRY = re.compile(r"(?P<key>[A-Za-z_][\w-]*):(?:\s+(?P<value>[^#]*?))?\s*(?:#\s*(?P<comment>.*))?$")


@dataclass(frozen=True)
class ConfigEntry:
    """One top-level line of a file, as written: `seed: 0  # of weights`."""

    key: str
    value: str
    comment: str


def read_config_entries(path: Path) -> list[ConfigEntry]:
    """The top-level keys of a file with their comments, `defaults` left out."""
    matches = (_ENTRY.match(line) for line in read_config_text(path).splitlines())
    found = [ConfigEntry(m["key"], m["value"] or "", m["comment"] or "") for m in matches if m]
    return [entry for entry in found if entry.key != "defaults"]


def read_value_entries(path: Path) -> list[ConfigEntry]:
    """The values of a file as they are given on a command line: `validate.every` for a key inside `validate`."""
    found: list[ConfigEntry] = []
    parent = ""
    for line in read_config_text(path).splitlines():
        match = _ENTRY.match(line.removeprefix("  "))
        inside = line.startswith("  ")
        if match is None or (inside and not parent):
            continue
        key, value, comment = match["key"], match["value"] or "", match["comment"] or ""
        if not inside:
            parent = key if not value and key != "defaults" else ""
            if not value:
                continue
        elif key.startswith("_"):
            continue
        found.append(ConfigEntry(f"{parent}.{key}" if inside else key, value, comment))
    return found


def read_config_file(path: Path) -> dict[str, Any]:
    """The whole file as plain containers, interpolations as written; ConfigError names a broken line."""
    return parse_config_text(read_config_text(path), path, make_plain_loader())


@functools.cache
def make_plain_loader() -> Any:
    """PyYAML's safe loader, on libyaml where it is there, that refuses a key which stands twice."""
    import yaml

    return refuse_double_keys(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def refuse_double_keys(base: Any) -> Any:
    """A YAML loader that raises for a mapping with the same key twice, of which the first would be lost."""
    import yaml

    class Loader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys: set[str] = set()
            for key, _ in node.value:
                if key.tag != yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG:
                    continue
                if key.value in keys:
                    problem = f"found duplicate key {key.value}"
                    opening = "while constructing a mapping"
                    raise yaml.constructor.ConstructorError(opening, node.start_mark, problem, key.start_mark)
                keys.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return Loader


def read_config_text(path: Path) -> str:
    """ConfigError where it is not UTF-8, or larger than an option file may be."""
    try:
        return read_bounded_text(path, OPTION)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is no YAML: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def parse_config_text(text: str, path: Path, loader: Any) -> dict[str, Any]:
    """The text of this file by this YAML loader; ConfigError names file and line, and what is no mapping."""
    import yaml

    try:
        loaded = parse_yaml(text, loader, OPTION)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: this is no YAML: {getattr(error, 'problem', None) or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"{path}: a configuration file holds `key: value` lines, this one a {type(loaded).__name__}")
    return loaded or {}


def read_default_slots(primary: Path) -> dict[str, str | None]:
    """The defaults list of a primary file: "group" or "group@package" -> option."""
    slots: dict[str, str | None] = {}
    for item in read_config_file(primary).get("defaults") or []:
        if isinstance(item, dict):
            for key, value in item.items():
                slots[str(key).split()[-1].lstrip("/")] = None if value is None else str(value)
    return slots
