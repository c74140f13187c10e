"""Explain one option: its file, what its class says of itself, and the parameters with their allowed values.

aptlab show rope=yarn
aptlab show data=packed      parts inside an option too, each by its whole key
aptlab show ckpt=last        what a checkpoint is: file, step, run, numbers, and what differs from the defaults
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from aptlab.config import Parameter, Signature, find_new_word, read_signature
from aptlab.config.files import read_config_file, read_config_text
from aptlab.config.search_path import SHIPPED, OptionIndex, read_option_index
from aptlab.config.shortcuts import SHORTCUTS
from aptlab.errors import ConfigError
from aptlab.limits import LIMITS
from aptlab.report.table import format_columns
from aptlab.runs.commands import find_run_hint
from aptlab.shown import print_shown


def run(args: list[str]) -> int:
    """Print the explanation; nothing of the option is imported."""
    if args and args[0].startswith("ckpt="):
        from aptlab.training.checkpoint_facts import describe_chosen_checkpoint

        print_shown(*describe_chosen_checkpoint(args[0].partition("=")[2], args[1:]))
        return 0
    group, sign, name = (args[0] if args else "").replace("/", "=").rpartition("=")
    if len(args) != 1 or not sign or not name:
        raise ConfigError(describe_request(args))
    index, group = read_option_index(), group.replace("=", "/")
    if group not in index.groups and (hint := find_run_hint(args[0])):
        raise ConfigError(hint)
    if name not in index.groups.get(group, {}) and (new := find_new_word(f"{group}={name}")) and "=" in new:
        print_shown(f"{group}={name} is {new} now\n")
        group, _, name = new.partition("=")
    option = index.option(group, name)
    node = read_config_file(option.path)
    where = "" if option.place.name == SHIPPED else f" ({option.place.name}, {option.path})"
    print_shown(f"{option.group}={option.name}{where}\n")
    print_shown(read_config_text(option.path).rstrip())
    for path, part in walk_parts(node, option.group):
        print_part(path, part)
    if rows := list_shortcuts(option.group, option.name, node, index):
        print_shown(f"\nchosen elsewhere\n{format_columns(rows, indent='  ')}")
    return 0


def describe_request(args: list[str]) -> str:
    """What to type instead: for a group alone, the command that lists its options; for a run, the one that shows it."""
    if len(args) == 1 and (hint := find_run_hint(args[0])):
        return hint
    group = args[0].rstrip("=/") if len(args) == 1 else ""
    if options := read_option_index().groups.get(group):
        return f"{group} is a group; aptlab ls {group} lists its options, aptlab show {group}={min(options)} shows one"
    return "aptlab show takes one option, for example: aptlab show rope=yarn, or a checkpoint: aptlab show ckpt=last"


def walk_parts(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The node and every node inside it that names a class, with their keys: `data`, `data.rows`, `data.split`."""
    if isinstance(node.get("_target_"), str):
        yield path, node
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from walk_parts(value, f"{path}.{key}")


def print_part(path: str, node: Mapping[str, Any]) -> None:
    """What the class of a node says of itself and takes; parameters of an inner node by their whole key."""
    target = node["_target_"]
    known = read_signature(target)
    if known is None:
        return
    inner = "." in path
    print_shown(f"\n{path}: {target}" if inner else f"\n{target}")
    if known.doc:
        print_shown(f"{known.doc.split(chr(10) * 2)[0].strip()}")
    prefix = f"{path}." if inner else ""
    rows = [(f"{prefix}{item.name}", describe_parameter(item)) for item in known.parameters.values()]
    print_shown(format_columns([("parameter", "takes"), *rows], indent="  ") if rows else "  takes no parameters")
    _others(known)


def list_shortcuts(group: str, name: str, node: Mapping[str, Any], index: OptionIndex) -> list[tuple[str, str]]:
    """(what to type, what it means) for words that choose or set something of an option from outside of it."""
    slots = [key for key, value in node.items() if value == f"${{{key}}}" and key in index.groups]
    rows = [(f"{slot}=…", f"one of {', '.join(index.groups[slot])}") for slot in slots]
    return rows + [
        (f"{key}=…", f"{at}={option} {full}=…")
        for key, (at, option, full) in SHORTCUTS.items()
        if at in slots or (at, option) == (group, name)
    ]


def describe_parameter(parameter: Parameter) -> str:
    """Type, limits and default of a parameter, in one line: "float > 0 or null, default 4.0"."""
    kind = " or ".join(_kind(word) for word in parameter.type_text.split(" | "))
    default = "needed, or given by its parent" if parameter.required else f"default {_yaml(parameter.default)}"
    return ", ".join(part for part in (kind, default) if part)


def _kind(word: str) -> str:
    """One alternative of a type: "float > 0", "null", "index | ratio"."""
    if word in LIMITS:
        kind, limit = LIMITS[word]
        return f"{kind.__name__} {str(limit).removeprefix('a finite number ')}"
    if word.startswith("Literal["):
        return word[len("Literal[") : -1].replace("'", "").replace(", ", " | ")
    return "null" if word == "None" else word


def _yaml(default: str | None) -> str:
    """A Python default as it would stand in YAML."""
    return {"None": "null", "True": "true", "False": "false"}.get(default or "", (default or "").strip("'"))


def _others(known: Signature) -> None:
    if known.open:
        print_shown("  … and others that its source does not list")
