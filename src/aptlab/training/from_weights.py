"""What a run from weights that are there already must be told, and what it is refused. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aptlab.config import Config
from aptlab.config.files import read_config_file
from aptlab.config.search_path import OptionIndex, read_option_index
from aptlab.errors import ConfigError

RECIPE = "recipe=finetune"


def drop_recipe_values(stored: Sequence[str], new: Sequence[str]) -> list[str]:
    """A checkpoint's overrides without those that a recipe of the command line sets otherwise.

    Values are set after files are merged, so that an old `optim.lr=0.003` would beat the recipe's rate in silence.
    """
    index = read_option_index()
    added = [arg.partition("=")[2].strip("'\"") for arg in new if arg.startswith("recipe=") and arg not in stored]
    keys = [key for name in added for key in list_recipe_keys(name, index)]
    return [arg for arg in stored if arg.lstrip("+~").partition("=")[0] not in keys]


def list_recipe_keys(name: str, index: OptionIndex) -> Iterator[str]:
    """Groups that a recipe chooses and keys that it sets; none for a recipe that is not there."""
    option = index.groups.get("recipe", {}).get(name)
    file = read_config_file(option.path) if option else {}
    for item in file.pop("defaults", None) or []:
        if isinstance(item, Mapping):
            yield from (str(key).split()[-1].lstrip("/") for key in item)
    yield from flatten_config(file)


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists count as values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten_config(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def check_size(new: Sequence[str], config: Config, trained: Mapping[str, Any]) -> None:
    """ConfigError where the command line chooses a size that is not that of the weights."""
    typed = [arg for arg in new if arg.startswith("size=")]
    if not typed or not trained:
        return
    option = config.library.option("size", str(config.choices["size"]))
    wrong = [f"{key}={value}" for key, value in read_size(option.path).items() if (trained.get(key) or value) != value]
    if wrong:
        have = ", ".join(f"{key}={trained[key]}" for key in (item.partition("=")[0] for item in wrong))
        raise ConfigError(
            f"{typed[-1]}: that is {', '.join(wrong)}, and the weights have {have}; leave size out, for it comes with "
            "the weights"
        )


def read_size(path: Path) -> dict[str, Any]:
    """The dims that an option of the group `size` sets."""
    return {key: value for key, value in read_config_file(path).items() if not key.startswith("_")}


def describe_unnamed_text(new: Sequence[str], config: Config) -> list[str]:
    """The line about the text of a run from imported weights, where nobody has named one."""
    named = ("source=", "source.", "data.files=", "data.repo=")
    if config.choices.get("source") != "stdlib" or any(arg.lstrip("+").startswith(named) for arg in new):
        return []
    rate = (config.resolved().get("optim") or {}).get("lr")
    return [
        f"  text: Python's own (source=stdlib), for none was named; data.files=… names yours, and {RECIPE} has rates "
        f"for trained weights (optim.lr={rate} here)"
    ]
