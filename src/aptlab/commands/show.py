"""Explain one option: its file, what its class says of itself, and the parameters with their allowed values.

aptlab show rope=yarn
"""

from __future__ import annotations

from aptlab.config.files import read_config_file
from aptlab.config.search_path import SHIPPED, read_option_index
from aptlab.config.static.signatures import Parameter, Signature, read_signature
from aptlab.errors import ConfigError
from aptlab.limits import LIMITS
from aptlab.report.table import format_columns


def run(args: list[str]) -> int:
    """Print the explanation; nothing of the option is imported."""
    group, sign, name = (args[0] if args else "").replace("/", "=").rpartition("=")
    if len(args) != 1 or not sign or not name:
        raise ConfigError("aptlab show takes one option, for example: aptlab show rope=yarn")
    option = read_option_index().option(group.replace("=", "/"), name)
    where = "" if option.place.name == SHIPPED else f" ({option.place.name}, {option.path})"
    print(f"{option.group}={option.name}{where}\n")
    print(option.path.read_text(encoding="utf-8").rstrip())
    target = read_config_file(option.path).get("_target_")
    known = read_signature(target) if isinstance(target, str) else None
    if known:
        print(f"\n{target}")
        if known.doc:
            print(f"{known.doc.split(chr(10) * 2)[0].strip()}")
        rows = [(item.name, describe_parameter(item)) for item in known.parameters.values()]
        print(format_columns([("parameter", "takes"), *rows], indent="  ") if rows else "  takes no parameters")
        _others(known)
    return 0


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
        print("  … and others that its source does not list")
