"""Copy an option into ./conf, to change it there.

aptlab cp rope/yarn            writes conf/rope/my_yarn.yaml, used as rope=my_yarn
aptlab cp rope/yarn long       writes conf/rope/long.yaml
"""

from __future__ import annotations

import re
from pathlib import Path

from aptlab.config.search_path import read_option_index
from aptlab.errors import ConfigError
from aptlab.shown import print_shown


def run(args: list[str]) -> int:
    """Copy, never over a file and never under a name that is taken."""
    group, slash, source = (args[0] if args else "").replace("=", "/").rpartition("/")
    if len(args) not in (1, 2) or not slash or not source:
        raise ConfigError("aptlab cp takes an option and a new name, for example: aptlab cp rope/yarn my_yarn")
    found = read_option_index()
    option = found.option(group, source)
    name = args[1] if len(args) == 2 else f"my_{source}"
    if not re.fullmatch(r"[A-Za-z0-9][\w.\-]*", name):
        raise ConfigError(f"{name}: an option's name is of letters, digits and . _ -")
    if taken := found.groups[group].get(name):
        raise ConfigError(
            f"{group}={name} exists already ({taken.path}); choose another name: aptlab cp {group}/{source} <name>"
        )
    target = Path("conf", group, f"{name}.yaml")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(option.path.read_text(encoding="utf-8"))
    print_shown(f"{target}: use it as {group}={name}")
    return 0
