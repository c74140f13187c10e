"""Root keys of a command: the fields of its Request dataclass, `aptlab.commands.<command>.<Command>Request`.

Types and limits are read from the source of the class, so that a check, a help text or a completion imports no command.
A field `config` holds the composed configuration with its groups, and is no key. A key that is a word of Python has a
field that ends in `_`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import keyword
from collections.abc import Mapping
from typing import Any, TypeVar

from aptlab.config.composing import Config
from aptlab.config.static.signatures import Parameter, read_signature
from aptlab.config.static.source import find_definition, split_target
from aptlab.config.static.types import find_value_problem
from aptlab.errors import ConfigError
from aptlab.extensions import list_extension_commands

Request = TypeVar("Request")


def name_request(command: str) -> str:
    """The dotted name of a command's Request class; a module whose name is a word of Python ends in `_`.

    A command of an installed package has it beside its function.
    """
    name = "".join(word.capitalize() for word in command.split("_"))
    if (entry := list_extension_commands().get(command)) is not None:
        return f"{entry.module}.{name}Request"
    module = f"{command}_" if keyword.iskeyword(command) else command
    return f"aptlab.commands.{module}.{name}Request"


def find_request_reader(command: str) -> str | None:
    """ "module:function" of what reads a command's request, where it asks more than `check` does; nothing is imported.

    It is the function `read_<command>_request` beside the Request class, which takes arguments and returns a Request.
    """
    module, _, request = name_request(command).rpartition(".")
    located = split_target(module)
    found = find_definition(located[0], name := f"read_{command}_request") if located and not located[1] else None
    returns = found.node.returns if found and isinstance(found.node, ast.FunctionDef) else None
    return f"{module}:{name}" if returns is not None and ast.unparse(returns) == request else None


def name_key(field: str) -> str:
    """The key that a field stands for: `for_` is `for`."""
    key = field.removesuffix("_")
    return key if keyword.iskeyword(key) else field


@functools.cache
def read_root_keys(command: str) -> Mapping[str, Parameter]:
    """The root keys of a command with their annotations; none for a command without a Request."""
    try:
        known = read_signature(name_request(command))
    except ConfigError:
        return {}
    return {name_key(name): item for name, item in known.parameters.items() if name != "config"} if known else {}


def find_root_key_problem(command: str, key: str, value: Any) -> str | None:
    """What is wrong with the value of a command's root key, or None."""
    parameter = read_root_keys(command).get(key)
    return find_value_problem(value, parameter) if parameter else None


def fill_request(request: type[Request], config: Config, **values: Any) -> Request:
    """The Request of a composed and checked configuration; `values` replace those of the configuration.

    Only the keys of the Request are resolved: a group may still lack what a checkpoint gives it.
    """
    from omegaconf import OmegaConf

    names = {field.name for field in dataclasses.fields(request)}  # type: ignore[arg-type]
    found: dict[str, Any] = {"config": config} if "config" in names else {}
    for name in names - {"config", *values}:
        if (key := name_key(name)) not in config.cfg:
            continue
        value = OmegaConf.select(config.cfg, key)
        found[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return request(**found, **values)
