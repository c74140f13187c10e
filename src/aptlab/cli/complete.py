"""Candidates for shell completion: commands, groups, options, keys, values, files. No Hydra, no torch.

Options of installed extensions and of ./conf are among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aptlab.cli.table import COMMANDS, list_commands

FILE_KEYS = ("ckpt", "run_dir", "path", "files", "root", "cache", "out", "prompts_file")


def list_completions(words: list[str]) -> list[str]:
    """Completions of the last word; `words` follow `aptlab`. Never raises: a shell has no use for an error."""
    try:
        return sorted(set(_candidates(words or [""])))
    except Exception:
        return []


def _candidates(words: list[str]) -> Iterable[str]:
    *before, current = words
    if not before:
        return _starting(current, [*list_commands(), "--help", "--version"])
    command = before[0]
    if command == "completion":
        return _starting(current, ["bash", "zsh", "fish"])
    known = COMMANDS if command in COMMANDS else list_commands()
    if command not in known:
        return []
    if current.startswith("-"):
        flags = ["--help", "--cfg", "--multirun"] if known[command].config else ["--help"]
        return _starting(current, flags)
    return _from_config(command, before[1:], current)


def _from_config(command: str, before: list[str], current: str) -> Iterable[str]:
    from aptlab.config.search_path import read_option_index

    found = read_option_index()
    if command == "ls":
        return _starting(current, found.groups)
    if command in ("show", "cp"):
        sign = "=" if command == "show" else "/"
        names = [f"{group}{sign}{name}" for group, options in found.groups.items() for name in options]
        return _starting(current, names if sign in current else [f"{group}{sign}" for group in found.groups])
    if command == "check":
        primary, *rest = before if before and before[0] in found.primaries else ["train", *before]
        first = list(found.primaries) if not before else []
        return [*_starting(current, first), *_overrides(found, primary, rest, current)]
    if command in found.primaries:
        return _overrides(found, command, before, current)
    return _files("", current)


def _starting(prefix: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def _overrides(found: Any, primary: str, before: list[str], current: str) -> list[str]:
    from aptlab.config.files import read_config_entries, read_default_slots

    sign = current[: len(current) - len(current.lstrip("+~"))]
    bare = current[len(sign) :]
    path = found.primaries[primary].path
    chosen: dict[str, Any] = read_default_slots(path)
    chosen |= dict(word.lstrip("+").split("=", 1) for word in before if "=" in word)
    key, equals, value = bare.partition("=")
    if equals:
        return [f"{sign}{key}={item}" for item in _values(found, primary, chosen, key, value)]
    if "." in bare:
        return [f"{sign}{item}" for item in _keys(found, chosen, bare)]
    slots = [name for name in read_default_slots(path) if name in found.groups]
    names = [
        f"{name}=" for name in [*(found.groups if sign else slots), *(entry.key for entry in read_config_entries(path))]
    ]
    if bare in slots:
        names.append(f"{bare}.")
    return [f"{sign}{item}" for item in _starting(bare, names)]


def _values(found: Any, primary: str, chosen: dict[str, Any], key: str, value: str) -> list[str]:
    from aptlab.config import list_parameter_values, read_root_keys

    if key in found.groups:
        done, comma, last = value.rpartition(",")  # a sweep: rope=yarn,<here>
        return [f"{done}{comma}{name}" for name in _starting(last, found.groups[key])]
    if key.rpartition(".")[2] in FILE_KEYS:
        return [*_files("", value), *(_starting(value, ["last", "best"]) if key == "ckpt" else [])]
    if root := read_root_keys(primary).get(key):
        done, comma, last = value.rpartition(",") if "list[" in root.type_text else ("", "", value)
        names = _starting(last, list_parameter_values(root))
        return [f"{done}{comma}{name}" for name in names]  # a list: what=decay,<here>
    parameter = _parameters(_node(found, chosen, key.split(".")[:-1])).get(key.rpartition(".")[2])
    return _starting(value, list_parameter_values(parameter)) if parameter else []


def _keys(found: Any, chosen: dict[str, Any], bare: str) -> list[str]:
    *parents, last = bare.split(".")
    node = _node(found, chosen, parents)
    names = dict.fromkeys([*node, *_parameters(node)])
    prefix = ".".join(parents)
    return [
        f"{prefix}.{name}{'.' if isinstance(node.get(name), dict) else '='}"
        for name in _starting(last, names)
        if not name.startswith("_")
    ]


def _node(found: Any, chosen: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    """The plain node at a path, from the option that is chosen for its group."""
    from aptlab.config.files import read_config_file

    group, *rest = parents or [""]
    option = found.groups.get(group, {}).get(str(chosen.get(group)))
    node: Any = read_config_file(option.path) if option else {}
    for part in rest:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _parameters(node: dict[str, Any]) -> dict[str, Any]:
    from aptlab.config import read_signature

    known = read_signature(node["_target_"]) if isinstance(node.get("_target_"), str) else None
    return known.parameters if known else {}


def _files(prefix: str, value: str) -> list[str]:
    folder, slash, start = value.rpartition("/")
    base = Path(folder + slash) if slash else Path()
    if not base.expanduser().is_dir():
        return []
    names = [path.name + ("/" if path.is_dir() else "") for path in base.expanduser().iterdir()]
    shown = [name for name in names if name.startswith(start) and (start or not name.startswith("."))]
    return [f"{prefix}{folder}{slash}{name}" for name in shown]
