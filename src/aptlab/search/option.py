"""The factors as an option of the group `rope` in ./conf."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aptlab.config.search_path import LOCAL, read_option_index
from aptlab.errors import ConfigError
from aptlab.runs.atomic import format_yaml, write_text
from aptlab.runs.folder import make_folder

MADE = "made by aptlab search in "


def make_option_path(name: str) -> Path:
    """Where the option of this name is written: ./conf, which aptlab looks into by itself."""
    return Path("conf") / "rope" / f"{name}.yaml"


def check_option_free(path: Path, folder: Path) -> None:
    """ConfigError where the name is that of an option which this search did not write."""
    known = read_option_index().groups.get("rope", {}).get(path.stem)
    if known is not None and known.place.name != LOCAL:
        raise ConfigError(f"name={path.stem}: rope={path.stem} is there already ({known.path}); choose another name=…")
    if path.exists() and f"{MADE}{folder}" not in path.read_text(encoding="utf-8"):
        raise ConfigError(f"name={path.stem}: {path} is there already; choose another name=…, or move it away")


def write_option(path: Path, rule: Any, *, target: str, about: str, folder: Path) -> None:
    """Write the rule as `_target_` and its values, with where it comes from."""
    fields = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    text = format_yaml({"_target_": target, **{name: convert_tuples(value) for name, value in fields.items()}})
    make_folder(path.parent, way_out="run aptlab where ./conf can be made")
    write_text(path, f"# {about}\n# {MADE}{folder}\n{text}")


def convert_tuples(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, Mapping):
        return {key: convert_tuples(item) for key, item in value.items()}
    return [convert_tuples(item) for item in value] if isinstance(value, tuple | list) else value
